//! `taut sign`: what an authorization endpoint answers and what a request is signed with, for those who debug either.

mod mistake;

use std::fmt::Write as _;

use serde_json::Value;
use taut_pusher::auth::{Signature, SigningKey};
use taut_pusher::channel::{Channel, Kind};
use taut_pusher::member::{Member, User};
use taut_pusher::request::Request;
use taut_pusher::socket_id::SocketId;

use self::mistake::{Mistake, Signed};
use crate::api::{Failure, now};
use crate::app::{App, AppArguments};
use crate::exit::Exit;
use crate::json::quoted;
use crate::output::{self, printable};
use crate::publish::{content, master_key, socket_id};

/// Show how Pusher signs, and why a signature is wrong
///
/// It prints the text that is signed, the signature, and the answer of an authorization endpoint. With --check it says
/// whether a signature is right, and which mistake makes it wrong.
#[derive(clap::Args)]
#[allow(clippy::doc_markdown)] // These comments are the help, which is not Markdown.
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The channel, and then the socket id of the connection; with --user the socket id alone
    #[arg(value_name = "CHANNEL|SOCKET_ID", num_args = 1..=2)]
    positional: Vec<String>,

    /// In a presence channel, the id of the user
    #[arg(long, value_name = "ID", conflicts_with_all = ["data", "user", "request"])]
    user_id: Option<String>,

    /// What the user says of itself, as JSON
    #[arg(long, value_name = "JSON", requires = "user_id")]
    user_info: Option<String>,

    /// The channel_data or user_data itself, exactly as the endpoint answers it
    #[arg(long, value_name = "JSON", conflicts_with = "request")]
    data: Option<String>,

    /// Sign a user in, and not a subscription; the id, unless --data has it
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "", conflicts_with = "request")]
    user: Option<String>,

    /// Add the shared_secret of an encrypted channel, from this master key; prefer the variable
    #[arg(long, value_name = "BASE64", env = "TAUT_ENCRYPTION_KEY", hide_env_values = true)]
    encryption_key: Option<String>,

    /// Sign a request to the HTTP API: its method, its path with the query, its body; @FILE reads a file, - the
    /// standard input
    #[arg(long, value_names = ["METHOD", "PATH", "BODY"], num_args = 2..=3, conflicts_with = "positional")]
    request: Option<Vec<String>>,

    /// Sign the request for this time, in seconds since 1970, and not for now
    #[arg(long, value_name = "SECONDS", requires = "request")]
    timestamp: Option<u64>,

    /// Say whether this signature is right: KEY:SIGNATURE as in the field auth, or the signature alone
    #[arg(long, value_name = "SIGNATURE", conflicts_with = "request")]
    check: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    app: AppArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let shown = |(exit, text): (Exit, String)| {
        output::print(&text).map(|()| exit).map_err(|reason| Failure::new(Exit::Failed, reason))
    };
    Failure::report(sign(arguments).and_then(shown))
}

fn sign(arguments: &Arguments) -> Result<(Exit, String), Failure> {
    let app = arguments.app.resolve().map_err(Failure::usage)?;
    if let Some(request) = &arguments.request {
        return request_text(&app, request, arguments).map(|text| (Exit::Done, text));
    }
    let grant = Grant::of(arguments, &app).map_err(Failure::usage)?;
    let Some(given) = &arguments.check else { return Ok((Exit::Done, grant.text(arguments.json))) };
    let secret = app.secret().map_err(Failure::usage)?;
    let mistake = mistake::find(given, &grant.signed, &grant.key, secret);
    Ok((if mistake.is_none() { Exit::Done } else { Exit::Failed }, grant.verdict(mistake, arguments.json)))
}

/// What an authorization endpoint grants.
struct Grant {
    signed: Signed,
    key: String,
    signature: Signature,
    /// The fields of the answer beside `auth`.
    fields: Vec<(&'static str, String)>,
}

impl Grant {
    fn of(arguments: &Arguments, app: &App) -> Result<Self, String> {
        let (signed, mut fields) = match &arguments.user {
            Some(id) => signed_user(arguments, id)?,
            None => signed_subscription(arguments)?,
        };
        if let (Some(key), Signed::Subscription { channel, .. }) = (&arguments.encryption_key, &signed)
            && Kind::of(channel).is_encrypted()
        {
            fields.push(("shared_secret", master_key(key)?.shared_secret(channel).to_base64()));
        }
        let signature = app.signing_key()?.sign(&[signed.text().as_bytes()]);
        Ok(Self { signed, key: app.key()?.to_owned(), signature, fields })
    }

    /// The JSON object that the endpoint answers.
    fn answer(&self) -> String {
        let mut answer = format!("{{\"auth\":{}", quoted(&format!("{}:{}", self.key, self.signature)));
        for (name, value) in &self.fields {
            // Writing to a `String` cannot fail.
            let _ = write!(answer, ",\"{name}\":{}", quoted(value));
        }
        answer + "}"
    }

    fn text(&self, is_json: bool) -> String {
        let (signed, signature, answer) = (self.signed.text(), self.signature, self.answer());
        if is_json {
            return format!("{{\"signed\":{},\"signature\":\"{signature}\",\"answer\":{answer}}}\n", quoted(&signed));
        }
        format!("signed text  {}\nsignature    {signature}\nanswer       {answer}\n", printable(&signed))
    }

    fn verdict(&self, mistake: Option<Mistake>, is_json: bool) -> String {
        let is_right = mistake.is_none();
        let reason = mistake.map(|mistake| mistake.to_string());
        if is_json {
            let reason = reason.map_or_else(|| "null".to_owned(), |reason| quoted(&reason));
            return format!(
                "{{\"right\":{is_right},\"reason\":{reason},\"signed\":{}}}\n",
                quoted(&self.signed.text())
            );
        }
        match reason {
            None => "the signature is right\n".to_owned(),
            // The right signature is not shown: who checks one might hand it on.
            Some(reason) => {
                format!("the signature is wrong: {reason}\ntext to sign  {}\n", printable(&self.signed.text()))
            }
        }
    }
}

type Fields = Vec<(&'static str, String)>;

fn signed_user(arguments: &Arguments, id: &str) -> Result<(Signed, Fields), String> {
    let given = match &arguments.positional[..] {
        [given] => given,
        // `--user 123.456` takes what was meant to stand alone.
        [] if SocketId::is_well_formed(id) => {
            return Err(format!(
                "--user takes {id} as the user's id: put the socket id first, as in taut sign {id} --user"
            ));
        }
        _ => return Err("with --user only the socket id is given: taut sign --user ID SOCKET_ID".to_owned()),
    };
    let socket_id = socket_id(given)?;
    let data = arguments.data.clone().unwrap_or_else(|| format!("{{\"id\":{}}}", quoted(id)));
    let user = User::parse(&data).map_err(|invalid| invalid.to_string())?;
    if !id.is_empty() && user.id != id {
        return Err(format!("--user says {}, --data says {}", printable(id), printable(&user.id)));
    }
    let fields = vec![("user_data", data.clone())];
    Ok((Signed::User { socket_id, data }, fields))
}

fn signed_subscription(arguments: &Arguments) -> Result<(Signed, Fields), String> {
    let [channel, given] = &arguments.positional[..] else {
        return Err("the channel and the socket id are needed: taut sign private-orders 123.456".to_owned());
    };
    if SocketId::is_well_formed(channel) && !SocketId::is_well_formed(given) {
        return Err(format!("the channel comes first: taut sign {} {channel}", printable(given)));
    }
    let socket_id = socket_id(given)?;
    let kind = Channel::parse(channel, usize::MAX).map_err(|invalid| invalid.to_string())?.kind();
    if !kind.needs_signature() {
        return Err(format!("{channel} is a public channel: it needs no signature"));
    }
    let member = |id: &String| channel_data(id, arguments.user_info.as_deref());
    let data = arguments.data.clone().map(Ok).or_else(|| arguments.user_id.as_ref().map(member)).transpose()?;
    if kind.is_presence() {
        let data = data.as_deref().ok_or("a presence channel needs --user-id, or --data with the channel_data")?;
        Member::parse(data).map_err(|invalid| invalid.to_string())?;
    }
    let fields = data.iter().map(|data| ("channel_data", data.clone())).collect();
    Ok((Signed::Subscription { channel: channel.clone(), socket_id, data }, fields))
}

/// The `channel_data` of a user, as JSON.
///
/// # Errors
/// What the user says of itself is not JSON.
pub(crate) fn channel_data(user_id: &str, user_info: Option<&str>) -> Result<String, String> {
    let id = quoted(user_id);
    let Some(info) = user_info else { return Ok(format!("{{\"user_id\":{id}}}")) };
    serde_json::from_str::<Value>(info).map_err(|error| format!("--user-info: this is not JSON: {error}"))?;
    Ok(format!("{{\"user_id\":{id},\"user_info\":{info}}}"))
}

fn request_text(app: &App, request: &[String], arguments: &Arguments) -> Result<String, Failure> {
    let (method, (origin, target)) = (request[0].to_uppercase(), split_origin(&request[1]));
    let body = request.get(2).map(|body| content(body)).transpose()?.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = match path.trim_start_matches('/') {
        // A path below the app, such as /channels.
        resource if !path.contains("/apps/") => app.path(resource).map_err(Failure::usage)?,
        _ => path.to_owned(),
    };
    let read = taut_pusher::auth::Request::new(&method, &path, query, b"");
    // What is left of an older signature is made anew.
    let is_of_signature = |name: &str| name.starts_with("auth_") || name == "body_md5";
    let parameters: Vec<(&str, &str)> = read.parameters().filter(|(name, _)| !is_of_signature(name)).collect();
    let key: SigningKey = app.signing_key().map_err(Failure::usage)?;
    let signed = Request { method: &method, path: &path, parameters: &parameters, body: &body };
    let signed = signed.sign(app.key().map_err(Failure::usage)?, &key, arguments.timestamp.unwrap_or_else(now));
    let origin = origin.map_or_else(|| app.origin(), str::to_owned);
    let url = format!("{origin}{path}?{}", signed.query);
    let (text, signature) = (&signed.text, signed.signature);
    if arguments.json {
        let fields = [("signed", text), ("signature", &signature.to_string()), ("query", &signed.query), ("url", &url)];
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{}", quoted(value))).collect();
        return Ok(format!("{{{}}}\n", fields.join(",")));
    }
    let curl = curl(&method, &url, request.get(2).map_or("", String::as_str), body)?;
    Ok(format!("signed text  {}\nsignature    {signature}\nfor 10 minutes:\n{curl}\n", printable(text)))
}

/// The scheme and the authority of a whole URL, and the path and the query.
fn split_origin(target: &str) -> (Option<&str>, &str) {
    let is_scheme = |scheme: &str| ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let Some((scheme, rest)) = target.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return (None, target);
    };
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    let (origin, target) = target.split_at(scheme.len() + "://".len() + authority);
    (Some(origin), target)
}

/// A line for a POSIX shell that sends exactly what was signed.
fn curl(method: &str, url: &str, argument: &str, body: Vec<u8>) -> Result<String, Failure> {
    let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let data = match argument {
        _ if body.is_empty() => String::new(),
        // A file may hold what no argument can: a byte 0, or too much.
        file if file.starts_with('@') => format!(" --data-binary {}", quote(file)),
        _ => match String::from_utf8(body) {
            Ok(body) if !body.contains('\0') => format!(" --data-raw {}", quote(&body)),
            _ => return Err(Failure::usage("this body is not text: give it as @FILE, so that curl can read it, too")),
        },
    };
    let method = if method == "GET" && data.is_empty() { String::new() } else { format!(" -X {}", quote(method)) };
    let header = if data.is_empty() { "" } else { " -H 'Content-Type: application/json'" };
    Ok(format!("curl{method} {}{header}{data}", quote(url)))
}

/// The signature for a subscription, in the form of the field `auth`.
///
/// # Errors
/// The app's key or secret is not known.
pub(crate) fn auth(app: &App, socket_id: &str, channel: &str, channel_data: Option<&str>) -> Result<String, String> {
    let signature = app.signing_key()?.sign_subscription(socket_id, channel, channel_data);
    Ok(format!("{}:{signature}", app.key()?))
}

const EXAMPLES: &str = "\
Examples:
  taut sign private-orders 123.456
  taut sign presence-room 123.456 --user-id 7 --user-info '{\"name\":\"Ada\"}'
  taut sign --user 7 123.456
  taut sign private-orders 123.456 --check app-key:9f86d081884c7d65…
  taut sign --request POST /events '{\"name\":\"e\",\"channels\":[\"news\"],\"data\":\"{}\"}'";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// Signed with the credentials that Pusher publishes examples for.
    fn signed(line: &[&str]) -> Result<(Exit, String), Failure> {
        let app = ["sign", "--app", "3:278d425bdf160c739803:7ad3773142a6692b25b8"];
        sign(&Line::try_parse_from([&app[..], line].concat()).expect("a good line").arguments)
    }

    #[test]
    fn an_endpoints_answer_is_what_pusher_publishes() {
        for (line, signature) in [
            (&["private-foobar", "1234.1234"][..], "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"),
            (
                &["presence-foobar", "1234.1234", "--data", r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#],
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
            (&["--user=12345", "1234.1234"], "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"),
        ] {
            let (_, text) = signed(line).unwrap();
            let auth = format!("answer       {{\"auth\":\"278d425bdf160c739803:{signature}\"");
            assert!(text.contains(&auth), "{text}");
            let (exit, verdict) = signed(&[line, &["--check", signature]].concat()).unwrap();
            assert!(exit == Exit::Failed && verdict.contains("the key is missing"), "{verdict}");
            let check = format!("278d425bdf160c739803:{signature}");
            assert_eq!(signed(&[line, &["--check", &check]].concat()).unwrap().0, Exit::Done);
        }
    }

    #[test]
    fn the_answer_for_encrypted_and_presence_channels_is_complete() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let (_, text) = signed(&["private-encrypted-foobar", "1.2", "--encryption-key", key]).unwrap();
        assert!(text.contains(r#","shared_secret":"g3Au6SZ+UCU+IMfFsFva0rq+Gi4tzSHR6WCcWZbS9sY="}"#), "{text}");
        let line = ["presence-a", "1.2", "--user-id", "7", "--user-info", r#"{"n":1}"#, "--json"];
        let (_, text) = signed(&line).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["answer"]["channel_data"], r#"{"user_id":"7","user_info":{"n":1}}"#);
        assert_eq!(json["signed"], r#"1.2:presence-a:{"user_id":"7","user_info":{"n":1}}"#);
    }

    #[test]
    fn a_request_is_signed_as_pusher_signs_it() {
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let (_, text) = signed(&["--timestamp", "1353088179", "--request", "post", "/events", body]).unwrap();
        assert!(text.contains("da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"), "{text}");
        let path = "/apps/3/channels?info=user_count&filter_by_prefix=presence-&auth_signature=old";
        let (_, text) = signed(&["--timestamp", "1353088179", "--request", "GET", path]).unwrap();
        assert!(text.contains("16819168891cb5dfd72b5c7a5d3d602605b26c6ba1930033b5e2eeeb65010291"), "{text}");
        assert!(text.contains("curl 'http://127.0.0.1:6001/apps/3/channels?auth_key="), "{text}");
    }

    #[test]
    fn the_data_alone_says_who_signs_in() {
        for line in [&["1.2", "--user", "--data", r#"{"id":"8"}"#][..], &["1.2", "--user=8"]] {
            assert!(signed(line).unwrap().1.contains(r#"1.2::user::{"id":"8"}"#), "{line:?}");
        }
    }

    #[test]
    fn a_url_that_was_signed_before_is_signed_anew() {
        let body = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let old = "auth_key=k&auth_timestamp=1&auth_version=1.0&body_md5=00&auth_signature=00";
        for (origin, target) in [
            ("https://a.example:1", format!("https://a.example:1/apps/3/events?{old}")),
            ("HTTP://a.example", format!("HTTP://a.example/apps/3/events?{old}")),
            ("http://127.0.0.1:6001", format!("/events?{old}")),
        ] {
            let (_, text) = signed(&["--timestamp", "1353088179", "--request", "POST", &target, body]).unwrap();
            assert!(text.contains("da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"), "{text}");
            assert!(text.contains(&format!("curl -X 'POST' '{origin}/apps/3/events?auth_key=")), "{text}");
        }
        assert_eq!(split_origin("/channels?x=http://a/b"), (None, "/channels?x=http://a/b"));
        assert_eq!(split_origin("http://a?x=1"), (Some("http://a"), "?x=1"));
    }

    #[test]
    fn the_line_for_curl_sends_what_was_signed() {
        let line = |method, argument, body: &[u8]| curl(method, "http://a/", argument, body.to_vec());
        let json = "-H 'Content-Type: application/json'";
        for (method, argument, body, expected) in [
            ("GET", "", "", "curl 'http://a/'".to_owned()),
            ("DELETE", "", "", "curl -X 'DELETE' 'http://a/'".to_owned()),
            ("GET", "{}", "{}", format!("curl -X 'GET' 'http://a/' {json} --data-raw '{{}}'")),
            ("POST", "-", "@it's", format!(r"curl -X 'POST' 'http://a/' {json} --data-raw '@it'\''s'")),
            ("POST", "@f g", "{}", format!("curl -X 'POST' 'http://a/' {json} --data-binary '@f g'")),
        ] {
            assert_eq!(line(method, argument, body.as_bytes()), Ok(expected));
        }
        assert!(line("POST", "@f", b"\xff").is_ok_and(|line| line.ends_with("--data-binary '@f'")));
        for body in [&b"\xff"[..], b"\0"] {
            assert!(line("POST", "-", body).is_err_and(|failure| failure.reason.contains("@FILE")));
        }
    }

    #[test]
    fn what_cannot_be_signed_is_explained() {
        for (line, reason) in [
            (&["1.2", "private-a"][..], "the channel comes first: taut sign private-a 1.2"),
            (&["private-a", "x"], "x is not a socket id"),
            (&["news", "1.2"], "news is a public channel"),
            (&["private-a"], "the channel and the socket id are needed"),
            (&["presence-a", "1.2"], "a presence channel needs --user-id"),
            (&["presence-a", "1.2", "--data", "{}"], "Invalid channel_data"),
            (&["presence-a", "1.2", "--user-id", "7", "--user-info", "{"], "--user-info: this is not JSON"),
            (&[], "the channel and the socket id are needed"),
            (&["--user", "7", "private-a", "1.2"], "with --user only the socket id"),
            (&["--user"], "with --user only the socket id"),
            (&["--user", "1.2", "--data", r#"{"id":"7"}"#], "--user takes 1.2 as the user's id"),
            (&["--user", "7", "1.2", "--data", r#"{"id":"8"}"#], "--user says 7, --data says 8"),
        ] {
            let failure = signed(line).expect_err(reason);
            assert!(failure.exit == Exit::Usage && failure.reason.starts_with(reason), "{}", failure.reason);
        }
    }
}
