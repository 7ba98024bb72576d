//! `taut publish`: sends events to the subscribers of channels.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};

use clap::builder::NonEmptyStringValueParser;
use serde_json::Value;
use serde_json::value::RawValue;
use taut_pusher::channel::{Channel, Kind};
use taut_pusher::encryption::MasterKey;
use taut_pusher::payload::Payload;
use taut_pusher::socket_id::SocketId;

use crate::api::{Api, ApiArguments, Failure};
use crate::app::AppArguments;
use crate::exit::Exit;
use crate::json::{self, quoted};
use crate::output::{self, printable};

/// Publish an event to channels of a Pusher app
///
/// The data is JSON, which is checked, or with --text any text. A batch is published by requests of ten events each.
#[derive(clap::Args)]
#[allow(clippy::doc_markdown)] // These comments are the help, which is not Markdown.
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The channel
    #[arg(required_unless_present = "batch", value_parser = NonEmptyStringValueParser::new())]
    channel: Option<String>,

    /// The event's name
    #[arg(required_unless_present = "batch", value_parser = NonEmptyStringValueParser::new())]
    event: Option<String>,

    /// What the event carries, {} without it; @FILE reads a file, - the standard input
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,

    /// Publish to this channel as well, with the same request
    #[arg(short = 'c', long = "channel", value_name = "CHANNEL")]
    channels: Vec<String>,

    /// Do not check that the data is JSON
    #[arg(long)]
    text: bool,

    /// Leave out the connection with this socket id
    #[arg(long, value_name = "ID", value_parser = socket_id)]
    socket_id: Option<String>,

    /// Ask how many users or subscribers each channel has
    #[arg(long)]
    info: bool,

    /// Publish what this file says, - for the standard input: on each line an object with channel, name and data, and
    /// with socket_id if wanted
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["channel", "event", "data", "channels", "socket_id", "text"]
    )]
    batch: Option<String>,

    /// Encrypt for private-encrypted- channels with this master key, 32 bytes in base64; prefer the variable
    #[arg(long, value_name = "BASE64", env = "TAUT_ENCRYPTION_KEY", hide_env_values = true)]
    encryption_key: Option<String>,

    /// Print what the API answers, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    app: AppArguments,

    #[command(flatten)]
    api: ApiArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    Failure::report(publish(arguments).map(|()| Exit::Done))
}

fn publish(arguments: &Arguments) -> Result<(), Failure> {
    let key = arguments.encryption_key.as_deref().map(master_key).transpose().map_err(Failure::usage)?;
    if let Some(file) = &arguments.batch {
        let events = batch(&text_in(file)?, key.as_ref(), arguments.info)
            .map_err(|wrong| Failure::usage(format!("{}: {wrong}", name_of(file))))?;
        return publish_batch(&api(arguments)?, &events, arguments.json);
    }
    let event = Event::of(arguments)?;
    let body = event.body(key.as_ref(), arguments.info).map_err(Failure::usage)?;
    let answer = api(arguments)?.post("events", &body)?;
    let text = if arguments.json { format!("{answer}\n") } else { event.outcome(&answer) };
    output::print(&text).map_err(|reason| Failure::new(Exit::Failed, reason))
}

fn api(arguments: &Arguments) -> Result<Api, Failure> {
    Api::new(arguments.app.resolve().map_err(Failure::usage)?, &arguments.api)
}

/// An event to be published.
struct Event<'a> {
    name: &'a str,
    channels: Vec<&'a str>,
    data: String,
    socket_id: Option<&'a str>,
}

impl<'a> Event<'a> {
    fn of(arguments: &'a Arguments) -> Result<Self, Failure> {
        let data = arguments.data.as_deref().map(content).transpose()?;
        let data = data.map_or_else(|| Ok("{}".to_owned()), String::from_utf8);
        let data = data.map_err(|_| Failure::usage("the data is not text in UTF-8"))?;
        if !arguments.text {
            check_json(&data).map_err(Failure::usage)?;
        }
        Ok(Self {
            name: arguments.event.as_deref().unwrap_or_default(),
            channels: arguments.channel.iter().chain(&arguments.channels).map(String::as_str).collect(),
            data,
            socket_id: arguments.socket_id.as_deref(),
        })
    }

    /// The body of the request to the API.
    fn body(&self, key: Option<&MasterKey>, asks_for_info: bool) -> Result<String, String> {
        if self.channels.len() > 1 && self.channels.iter().any(|channel| Kind::of(channel).is_encrypted()) {
            return Err("each encrypted channel has its own key: publish to one at a time".to_owned());
        }
        let channels: Vec<_> =
            self.channels.iter().map(|channel| checked(channel).map(quoted)).collect::<Result<_, _>>()?;
        let data = payload(self.channels[0], &self.data, key)?;
        let mut body =
            format!(r#"{{"name":{},"channels":{},"data":{}"#, quoted(self.name), json::list(channels), quoted(&data));
        write_options(&mut body, self.socket_id, asks_for_info);
        body.push('}');
        Ok(body)
    }

    /// What to tell a person.
    fn outcome(&self, answer: &Value) -> String {
        let mut text = format!("published {} to {}\n", printable(self.name), printable(&self.channels.join(", ")));
        for (channel, counts) in answer["channels"].as_object().into_iter().flatten() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "  {}: {}", printable(channel), counted(counts));
        }
        text
    }
}

/// An event of a batch, as the API takes it, and its line in the file.
struct BatchEvent {
    line: usize,
    json: String,
}

/// Reads the lines of a batch.
fn batch(text: &str, key: Option<&MasterKey>, asks_for_info: bool) -> Result<Vec<BatchEvent>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let line_number = index + 1;
            let json = batch_event(line, key, asks_for_info).map_err(|wrong| format!("line {line_number}: {wrong}"))?;
            Ok(BatchEvent { line: line_number, json })
        })
        .collect()
}

fn batch_event(line: &str, key: Option<&MasterKey>, asks_for_info: bool) -> Result<String, String> {
    let event: HashMap<String, &RawValue> = serde_json::from_str(line)
        .map_err(|error| if error.is_data() { NO_EVENT.to_owned() } else { format!("this is not JSON: {error}") })?;
    let field = |name: &str| event.get(name).filter(|value| value.get() != "null");
    let text = |name: &str| serde_json::from_str(field(name)?.get()).ok().filter(|text: &String| !text.is_empty());
    let (Some(channel), Some(name)) = (text("channel"), text("name")) else { return Err(NO_EVENT.to_owned()) };
    let socket_id = field("socket_id").map(|id| socket_id(&Payload::of(id).text())).transpose()?;
    // As Pusher's libraries do it: a text is sent as it is, anything else as JSON.
    let data = field("data").map_or_else(
        || "{}".to_owned(),
        |data| match Payload::of(data).text() {
            text if data.get().starts_with('"') => text.into_owned(),
            json => json::compact(&json),
        },
    );
    let data = payload(checked(&channel)?, &data, key)?;
    let mut json = format!(r#"{{"channel":{},"name":{},"data":{}"#, quoted(&channel), quoted(&name), quoted(&data));
    write_options(&mut json, socket_id.as_deref(), asks_for_info);
    json.push('}');
    Ok(json)
}

fn publish_batch(api: &Api, events: &[BatchEvent], is_json: bool) -> Result<(), Failure> {
    let failed = |reason| Failure::new(Exit::Failed, reason);
    for (number, part) in events.chunks(LARGEST_BATCH).enumerate() {
        let body = format!(r#"{{"batch":{}}}"#, json::list(part.iter().map(|event| event.json.clone())));
        let answer = api.post("batch_events", &body).map_err(|failure| {
            let (before, first, last) = (number * LARGEST_BATCH, part[0].line, part[part.len() - 1].line);
            let reason = format!("{}\n  lines {first} to {last}; published before them: {before}", failure.reason);
            Failure { reason, ..failure }
        })?;
        if is_json {
            output::print(&format!("{answer}\n")).map_err(failed)?;
            continue;
        }
        for (event, counts) in part.iter().zip(answer["batch"].as_array().into_iter().flatten()) {
            output::print(&format!("  line {}: {}\n", event.line, counted(counts))).map_err(failed)?;
        }
    }
    let published = format!("published {}\n", numbered(events.len() as u64, "event"));
    if is_json { Ok(()) } else { output::print(&published).map_err(failed) }
}

/// What goes over the network: of an encrypted channel, the ciphertext.
fn payload(channel: &str, data: &str, key: Option<&MasterKey>) -> Result<String, String> {
    if !Kind::of(channel).is_encrypted() {
        return Ok(data.to_owned());
    }
    let key = key.ok_or_else(|| format!("{channel} is encrypted: its master key is needed, TAUT_ENCRYPTION_KEY"))?;
    let mut nonce = [0; 24];
    getrandom::fill(&mut nonce).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(key.shared_secret(channel).encrypt(data, nonce))
}

fn write_options(json: &mut String, socket_id: Option<&str>, asks_for_info: bool) {
    if let Some(socket_id) = socket_id {
        // Writing to a `String` cannot fail.
        let _ = write!(json, r#","socket_id":{}"#, quoted(socket_id));
    }
    if asks_for_info {
        json.push_str(r#","info":"user_count,subscription_count""#);
    }
}

/// What the API counts, in words: `3 users`, `1 subscription`.
pub(crate) fn counted(counts: &Value) -> String {
    let words = [("user_count", "user"), ("subscription_count", "subscription")]
        .iter()
        .filter_map(|(field, word)| Some(numbered(counts[field].as_u64()?, word)));
    let words: Vec<_> = words.collect();
    if words.is_empty() { "not counted".to_owned() } else { words.join(", ") }
}

fn numbered(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// Checks the name of a channel.
///
/// # Errors
/// It is not one.
pub(crate) fn checked(channel: &str) -> Result<&str, String> {
    // How long a name may be is a setting of the server.
    Channel::parse(channel, usize::MAX).map_err(|invalid| format!("{}: {invalid}", printable(channel)))?;
    Ok(channel)
}

fn check_json(data: &str) -> Result<(), String> {
    serde_json::from_str::<&RawValue>(data).map(drop).map_err(|error| {
        format!("the data is not JSON: {error}; a text needs \"quotes\", or --text to be sent as it is")
    })
}

/// What an argument means: `@FILE` a file's content, `-` the standard input, and anything else itself.
///
/// # Errors
/// It cannot be read.
pub(crate) fn content(argument: &str) -> Result<Vec<u8>, Failure> {
    match argument.strip_prefix('@') {
        Some(path) => bytes_in(path),
        None if argument == "-" => bytes_in(argument),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

fn text_in(path: &str) -> Result<String, Failure> {
    let no_text = |_| Failure::usage(format!("{} is not text in UTF-8", name_of(path)));
    String::from_utf8(bytes_in(path)?).map_err(no_text)
}

fn bytes_in(path: &str) -> Result<Vec<u8>, Failure> {
    let read = if path == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    read.map_err(|error| Failure::usage(format!("{} cannot be read: {error}", name_of(path))))
}

fn name_of(path: &str) -> &str {
    if path == "-" { "the standard input" } else { path }
}

/// Reads the key that encrypted channels need.
///
/// # Errors
/// It is not one; the text is not repeated.
pub(crate) fn master_key(text: &str) -> Result<MasterKey, String> {
    MasterKey::from_base64(text).ok_or_else(|| "the encryption key must be 32 bytes in base64".to_owned())
}

/// Checks the form of a socket id.
///
/// # Errors
/// It has another one.
pub(crate) fn socket_id(text: &str) -> Result<String, String> {
    if SocketId::is_well_formed(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{} is not a socket id: clients are told theirs when they connect, such as 123.456", printable(text)))
}

const NO_EVENT: &str = "an event is an object whose channel and name are texts";

/// Events that the API takes at a time.
const LARGEST_BATCH: usize = 10;

const EXAMPLES: &str = "\
Examples:
  taut publish news headline '{\"title\":\"It works\"}'
  taut publish news -c sports headline @story.json --info
  date | taut publish clock tick - --text
  taut publish --batch events.jsonl";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event<'a>(channels: &[&'a str], data: &str) -> Event<'a> {
        Event { name: "e", channels: channels.to_vec(), data: data.to_owned(), socket_id: Some("1.2") }
    }

    #[test]
    fn the_body_is_what_pushers_libraries_send() {
        let body = event(&["a", "private-b"], "{\"x\": 1}").body(None, true).unwrap();
        let expected = json!({"name": "e", "channels": ["a", "private-b"], "data": "{\"x\": 1}", "socket_id": "1.2",
            "info": "user_count,subscription_count"});
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn an_encrypted_channel_needs_its_key_and_a_request_of_its_own() {
        let name = "private-encrypted-a";
        assert!(event(&[name], "{}").body(None, false).unwrap_err().contains("TAUT_ENCRYPTION_KEY"));
        let key = master_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        assert!(event(&["b", name], "{}").body(Some(&key), false).unwrap_err().contains("one at a time"));
        let body: Value = serde_json::from_str(&event(&[name], "[7]").body(Some(&key), false).unwrap()).unwrap();
        let secret = key.shared_secret(name);
        assert_eq!(secret.decrypt(body["data"].as_str().unwrap()).as_deref(), Ok("[7]"));
    }

    #[test]
    fn a_batch_is_checked_before_any_of_it_is_sent() {
        let (first, third) =
            (r#"{"channel":"a","name":"e","data":{"x":1}}"#, r#"{"channel":"b","name":"f","data":"t"}"#);
        let events = batch(&format!("{first}\n\n{third}\n"), None, false).unwrap();
        assert_eq!((events.len(), events[1].line), (2, 3));
        assert_eq!(events[0].json, r#"{"channel":"a","name":"e","data":"{\"x\":1}"}"#);
        for (line, reason) in [
            ("{", "line 1: this is not JSON"),
            (r#"{"channel":"a"}"#, "line 1: an event is an object"),
            (r#"{"channel":"a b","name":"e"}"#, "line 1: a b: The channel name contains"),
            (r#"["a","e"]"#, "line 1: an event is an object"),
            (r#"{"channel":"a","name":7}"#, "line 1: an event is an object"),
            (r#"{"channel":"a","name":"e","socket_id":"7"}"#, "line 1: 7 is not a socket id"),
            (r#"{"channel":"a","name":"e","socket_id":1.2e3}"#, "line 1: 1.2e3 is not a socket id"),
        ] {
            let wrong = batch(line, None, false).err().expect(line);
            assert!(wrong.starts_with(reason), "{wrong}");
        }
    }

    #[test]
    fn the_data_of_a_batch_keeps_its_order_and_its_digits() {
        let data = |data: &str| {
            let json = batch_event(&format!(r#"{{"channel":"a","name":"e"{data}}}"#), None, false).expect(data);
            serde_json::from_str::<Value>(&json).expect("JSON")["data"].as_str().expect("a text").to_owned()
        };
        let exact = r#"{"b":1.50,"a":12345678901234567890123,"e":"caf\u00e9 /"}"#;
        assert_eq!(data(&format!(r#","data":{exact}"#)), exact);
        assert_eq!(data(r#","data": { "b" : [ 1e2, " x" ] }"#), r#"{"b":[1e2," x"]}"#);
        assert_eq!(data(r#","data":"{\"a\": 1}""#), r#"{"a": 1}"#);
        assert_eq!((data(r#","data":null"#), data("")), ("{}".to_owned(), "{}".to_owned()));
        assert_eq!(data(r#","socket_id":null,"data":false"#), "false");
    }

    #[test]
    fn a_flag_that_is_misspelled_is_not_data() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let data = |line: &[&str]| {
            let line = <Line as clap::Parser>::try_parse_from([&["publish", "news", "e"], line].concat());
            line.map(|line| line.arguments.data.unwrap_or_default()).map_err(|error| error.kind())
        };
        for number in ["-1", "-1.5e3", "-"] {
            assert_eq!(data(&[number]).as_deref(), Ok(number));
        }
        assert_eq!(data(&["--text", "--jsn"]), Err(clap::error::ErrorKind::UnknownArgument));
        assert_eq!(data(&["--text", "--", "--jsn"]).as_deref(), Ok("--jsn"));
    }

    #[test]
    fn data_that_is_not_json_says_what_to_do() {
        assert!(check_json("hello").unwrap_err().contains("--text"));
        assert!(check_json("\"hello\"").is_ok());
    }
}
