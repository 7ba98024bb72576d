//! How soketi writes down an app: in its configuration, in its variables, and in the columns of its table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value as Json;

use super::apps::{Draft, event_by_name};
use super::foreign::{none_below_zero, truth};
use crate::app::{App, Webhook};
use crate::http::address;

/// Reads an app by a look-up of its fields' texts by their names with underscores. Gives what could not be used as well.
///
/// # Errors
/// When it is no app at all, with the reason.
pub(crate) fn app(lookup: impl Fn(&str) -> Option<String>) -> Result<(Draft, Vec<String>), String> {
    let required = |name: &str| lookup(name).ok_or_else(|| format!("the {name} is missing"));
    let app = App::new(required("id")?, required("key")?, required("secret")?);
    app.check().map_err(|invalid| invalid.to_string())?;
    let mut draft = Draft::new(app, 0);
    let mut problems = Vec::new();
    for &(name, apply) in FIELDS {
        let Some(value) = lookup(name).filter(|value| !value.trim().is_empty()) else { continue };
        if let Err(reason) = apply(&mut draft, &value) {
            problems.push(format!("{name}: {reason}"));
        }
    }
    if let Some(text) = lookup("webhooks").filter(|text| !text.trim().is_empty()) {
        let (webhooks, wrong) = webhooks(&text);
        draft.app.webhooks = webhooks;
        draft.lacks_webhooks = !wrong.is_empty();
        problems.extend(wrong.into_iter().map(|problem| format!("webhooks: {problem}")));
    }
    Ok((draft, problems))
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
    if listen.ip().to_canonical().is_loopback() {
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

/// Reads a list of webhooks, and what could not be used of it.
pub(crate) fn webhooks(text: &str) -> (Vec<Webhook>, Vec<String>) {
    let Ok(Json::Array(list)) = serde_json::from_str(text) else {
        return (Vec::new(), vec!["this is no list in JSON".to_owned()]);
    };
    let mut problems = Vec::new();
    let webhooks = list.iter().filter_map(|webhook| read_webhook(webhook, &mut problems)).collect();
    (webhooks, problems)
}

fn read_webhook(json: &Json, problems: &mut Vec<String>) -> Option<Webhook> {
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
            Some(value) => webhook.headers.push((name.clone(), value.to_owned())),
            None => problems.push(format!("the header {name} is no text")),
        }
    }
    crate::webhook::check(&webhook).map_err(|invalid| problems.push(invalid.to_string())).ok()?;
    Some(webhook)
}

/// Where soketi serves its metrics unless it is told otherwise.
const METRICS_PORT: u16 = 9601;

type Apply = fn(&mut Draft, &str) -> Result<(), String>;

const FIELDS: &[(&str, Apply)] = &[
    ("enabled", |draft, value| truth(value).map(|on| draft.app.enabled = on)),
    ("enable_client_messages", |draft, value| truth(value).map(|on| draft.app.features.client_events = on)),
    ("enable_user_authentication", |draft, value| {
        truth(value).map(|on| draft.app.features.authorization_timeout = authentication(on))
    }),
    ("max_connections", |draft, value| draft.limit("connections", none_below_zero(value, "0"))),
    ("max_client_events_per_sec", |draft, value| draft.limit("client-events", none_below_zero(value, "1000000"))),
    ("max_presence_members_per_channel", |draft, value| draft.limit("presence-members", value.to_owned())),
    ("max_presence_member_size_in_kb", |draft, value| draft.limit("presence-member", kilobytes(value)?)),
    ("max_channel_name_length", |draft, value| draft.limit("channel-name", value.to_owned())),
    ("max_event_channels_at_once", |draft, value| draft.limit("publish-channels", value.to_owned())),
    ("max_event_name_length", |draft, value| draft.limit("event-name", value.to_owned())),
    ("max_event_payload_in_kb", |draft, value| draft.limit("event-data", kilobytes(value)?)),
    ("max_event_batch_size", |draft, value| draft.limit("batch", value.to_owned())),
    ("max_backend_events_per_sec", unlimited_only),
    ("max_read_req_per_sec", unlimited_only),
];

fn unlimited_only(_: &mut Draft, value: &str) -> Result<(), String> {
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
