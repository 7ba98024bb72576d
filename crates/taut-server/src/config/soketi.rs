//! How soketi writes down an app: in its configuration, in its variables, and in the columns of its table.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value as Json;

use super::apps::{PartialApp, event_by_name};
use super::text::{none_below_zero, truth};
use crate::address;
use crate::app::{AppConfig, Webhook};

/// An app as soketi has it.
pub(crate) struct Read {
    pub(crate) draft: PartialApp,
    /// What could not be used.
    pub(crate) problems: Vec<String>,
    /// What was left out, and need not be there.
    pub(crate) notes: Vec<String>,
}

/// Reads an app by a look-up of its fields' texts by their names with underscores. `prepare` sets what holds where nothing is said.
///
/// # Errors
/// When it is no app at all, with the reason.
pub(crate) fn app(lookup: impl Fn(&str) -> Option<String>, prepare: fn(&mut PartialApp)) -> Result<Read, String> {
    let required = |name: &str| lookup(name).ok_or_else(|| format!("the {name} is missing"));
    let app = AppConfig::new(required("id")?, required("key")?, required("secret")?);
    app.check().map_err(|invalid| invalid.to_string())?;
    let mut draft = PartialApp::new(app, 0);
    prepare(&mut draft);
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    for &(name, apply) in FIELDS {
        let Some(value) = lookup(name).filter(|value| !value.trim().is_empty()) else { continue };
        if let Err(reason) = apply(&mut draft, &value) {
            problems.push(format!("{name}: {reason}"));
        }
    }
    if let Some(text) = lookup("webhooks").filter(|text| !text.trim().is_empty()) {
        let read = webhooks(&text);
        draft.app.webhooks = read.usable;
        draft.lacks_webhooks = !read.problems.is_empty();
        problems.extend(read.problems.into_iter().map(|problem| format!("webhooks: {problem}")));
        notes.extend(read.notes.into_iter().map(|note| format!("webhooks: {note}")));
    }
    Ok(Read { draft, problems, notes })
}

/// What holds for an app of soketi where nothing is said.
pub(crate) fn prepare(draft: &mut PartialApp) {
    draft.app.features.client_events = false;
    // Whoever asks for the attribute is given it.
    draft.app.features.subscription_count_in_info = true;
    // A limit that there is, so it is set.
    let _ = draft.limit("client-events", NO_LIMIT.to_owned());
}

/// What holds for all at soketi where nothing is said, as far as Taut's own defaults differ: settings of ours, by name and text. A message may have
/// 100 MiB there, of which an event of a client may be 100 KB: as a text in JSON it can be twice as long.
pub(crate) const SERVER_DEFAULTS: &[(&str, &str)] =
    &[("listen", "0.0.0.0:6001"), ("activity-timeout", "30"), ("cache-ttl", "3600"), ("max-message", "256KiB")];

/// As many as can be set, where another server has no limit.
pub(crate) const NO_LIMIT: &str = "1000000";

/// The URL of a database, with soketi's defaults for what is not named. `kind` is `mysql` or `postgres`.
pub(crate) fn database_url(
    kind: &str,
    host: Option<&str>,
    port: Option<&str>,
    user: Option<&str>,
    password: Option<&str>,
    database: Option<&str>,
) -> String {
    let (usual_user, usual_port) = if kind == "mysql" { ("root", "3306") } else { ("postgres", "5432") };
    format!(
        "{kind}://{}:{}@{}:{}/{}",
        escaped(user.unwrap_or(usual_user)),
        escaped(password.unwrap_or("password")),
        host.unwrap_or("127.0.0.1"),
        port.unwrap_or(usual_port),
        escaped(database.unwrap_or("main"))
    )
}

/// For a URL (RFC 3986 §2.3).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// How long a client may take where it has to sign in.
pub(crate) fn authentication(is_on: bool) -> Duration {
    if is_on { Duration::from_secs(30) } else { Duration::ZERO }
}

/// Kilobytes, not always whole ones, as bytes.
pub(crate) fn kilobytes(value: &str) -> Result<String, String> {
    let number: f64 = value.trim().parse().map_err(|_| format!("{value:?} is not a number of kilobytes"))?;
    if !(0.001..=1_048_576.0).contains(&number) {
        return Err(format!("{value:?} is not a number of kilobytes between 0.001 and 1048576"));
    }
    #[allow(clippy::cast_sign_loss, reason = "it is between two positive numbers")]
    let bytes = (number * 1024.0).round() as u64;
    Ok(bytes.to_string())
}

/// Where soketi's metrics are served. soketi opens them to everybody unless it is told otherwise; here they stay on this machine unless a host is named.
/// Gives what could not be used as well, each with the name of its part.
pub(crate) fn metrics_listen(host: Option<&str>, port: Option<&str>) -> (SocketAddr, Vec<(&'static str, String)>) {
    let mut problems = Vec::new();
    let mut take = |part: &'static str, read: Result<SocketAddr, String>, usual: SocketAddr| {
        read.unwrap_or_else(|reason| {
            problems.push((part, reason));
            usual
        })
    };
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
    let port = port.map_or(Ok(METRICS_PORT), |port| {
        port.trim().parse::<u16>().map_err(|_| format!("{port:?} is not a port, so {METRICS_PORT} is"))
    });
    let address = take("port", port.map(|port| SocketAddr::new(usual.ip(), port)), usual);
    let host = match host.map(str::trim) {
        None | Some("localhost") => Ok(address.ip()),
        Some(host) => host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .map_err(|_| format!("{host:?} is not an IP address, so 127.0.0.1 is")),
    };
    (take("host", host.map(|host| SocketAddr::new(host, address.port())), address), problems)
}

/// Who can read the metrics there, in a sentence.
pub(crate) fn who_reads_metrics(listen: SocketAddr) -> String {
    if address::is_loopback(listen.ip()) {
        let port = listen.port();
        format!(
            "the metrics are on {listen}, for this machine alone; TAUT_METRICS_LISTEN=0.0.0.0:{port} opens them to others"
        )
    } else {
        format!(
            "the metrics are on {listen}, for everybody who can reach it; metrics-token closes them to those who have no token"
        )
    }
}

/// A list of webhooks, as far as it could be used.
pub(crate) struct Webhooks {
    pub(crate) usable: Vec<Webhook>,
    /// What could not be used.
    pub(crate) problems: Vec<String>,
    /// What was left out, and need not be there.
    pub(crate) notes: Vec<String>,
}

pub(crate) fn webhooks(text: &str) -> Webhooks {
    let mut read = Webhooks { usable: Vec::new(), problems: Vec::new(), notes: Vec::new() };
    let Ok(Json::Array(list)) = serde_json::from_str(text) else {
        read.problems.push("this is no list in JSON".to_owned());
        return read;
    };
    let Webhooks { problems, notes, .. } = &mut read;
    read.usable = list.iter().filter_map(|webhook| read_webhook(webhook, problems, notes)).collect();
    read
}

fn read_webhook(json: &Json, problems: &mut Vec<String>, notes: &mut Vec<String>) -> Option<Webhook> {
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    if json.get("lambda_function").is_some_and(|name| !name.is_null()) {
        problems
            .push("a webhook calls a Lambda function, which Taut does not: put an HTTP address before it".to_owned());
        return None;
    }
    let mut webhook = Webhook::new(text(&json["url"]));
    if let Err(invalid) = address::parse(&webhook.url) {
        problems.push(invalid.to_string());
        return None;
    }
    for event in json["event_types"].as_array().into_iter().flatten() {
        match event_by_name(&text(event)) {
            Ok(event) => webhook.events.push(event),
            Err(reason) => problems.push(reason),
        }
    }
    if webhook.events.is_empty() {
        problems.push("a webhook names no event that there is".to_owned());
        return None;
    }
    webhook.channel_prefix = text(&json["filter"]["channel_name_starts_with"]);
    webhook.channel_suffix = text(&json["filter"]["channel_name_ends_with"]);
    for (name, value) in json["headers"].as_object().into_iter().flatten() {
        match value.as_str() {
            // soketi sets these too, whatever it is told.
            _ if crate::webhooks::is_reserved(name) => {
                notes.push(format!("the header {name} is left out: each request has it anyway"));
            }
            Some(value) => webhook.headers.push((name.clone(), value.to_owned())),
            None => problems.push(format!("the header {name} is no text")),
        }
    }
    crate::webhooks::check(&webhook).map_err(|invalid| problems.push(invalid.to_string())).ok()?;
    Some(webhook)
}

/// Where soketi serves its metrics unless it is told otherwise.
const METRICS_PORT: u16 = 9601;

type Apply = fn(&mut PartialApp, &str) -> Result<(), String>;

const FIELDS: &[(&str, Apply)] = &[
    ("enabled", |draft, value| truth(value).map(|on| draft.app.enabled = on)),
    ("enable_client_messages", |draft, value| truth(value).map(|on| draft.app.features.client_events = on)),
    ("enable_user_authentication", |draft, value| {
        truth(value).map(|on| draft.app.features.authorization_timeout = authentication(on))
    }),
    ("max_connections", |draft, value| draft.limit("connections", none_below_zero(value, "0"))),
    ("max_client_events_per_sec", |draft, value| draft.limit("client-events", none_below_zero(value, NO_LIMIT))),
    ("max_presence_members_per_channel", |draft, value| draft.limit("presence-members", value.to_owned())),
    ("max_presence_member_size_in_kb", |draft, value| draft.limit("presence-member", kilobytes(value)?)),
    ("max_channel_name_length", |draft, value| draft.limit("channel-name", value.to_owned())),
    ("max_event_channels_at_once", |draft, value| draft.limit("publish-channels", value.to_owned())),
    ("max_event_name_length", |draft, value| draft.limit("event-name", value.to_owned())),
    ("max_event_payload_in_kb", |draft, value| draft.limit("event-data", kilobytes(value)?)),
    ("max_event_batch_size", |draft, value| draft.limit("batch", value.to_owned())),
    ("max_backend_events_per_sec", |_, value| unlimited_only(value)),
    ("max_read_req_per_sec", |_, value| unlimited_only(value)),
];

/// Of a limit that there is no counterpart for.
pub(crate) fn unlimited_only(value: &str) -> Result<(), String> {
    if value.trim().starts_with('-') {
        return Ok(());
    }
    Err("Taut does not limit what backends ask per second".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_stay_on_this_machine_unless_a_host_is_named() {
        let listen = |host, port| {
            let (address, problems) = metrics_listen(host, port);
            (address.to_string(), problems.iter().map(|(part, _)| *part).collect::<Vec<_>>())
        };
        assert_eq!(listen(None, None), ("127.0.0.1:9601".to_owned(), vec![]));
        assert_eq!(listen(Some("localhost"), Some("9000")), ("127.0.0.1:9000".to_owned(), vec![]));
        assert_eq!(listen(Some("0.0.0.0"), None), ("0.0.0.0:9601".to_owned(), vec![]));
        assert_eq!(listen(Some("::"), Some("1")), ("[::]:1".to_owned(), vec![]));
        assert_eq!(
            listen(Some("soketi.local"), Some("tcp://10.0.0.1:9601")),
            ("127.0.0.1:9601".to_owned(), vec!["port", "host"])
        );
        assert!(
            who_reads_metrics("127.0.0.1:9000".parse().expect("an address"))
                .ends_with("=0.0.0.0:9000 opens them to others")
        );
        assert!(who_reads_metrics("0.0.0.0:9000".parse().expect("an address")).contains("metrics-token"));
    }
}
