//! `taut channels`: what is going on in a Pusher app.

use std::fmt::Write as _;

use clap::builder::NonEmptyStringValueParser;
use serde_json::{Map, Value, json};
use taut_pusher::channel::Kind;
use taut_pusher::request::encode;

use crate::api::{Api, ApiArguments, Failure};
use crate::app::AppArguments;
use crate::exit::Exit;
use crate::output::{self, printable};
use crate::publish::checked;

/// List the occupied channels of a Pusher app, or show one
///
/// Presence channels have a number of users. The others have a number of subscriptions, if the app counts them.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The channel to show; without one, all occupied channels are listed
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    channel: Option<String>,

    /// List channels whose names begin like this
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true, conflicts_with = "channel")]
    prefix: String,

    /// List the users of a presence channel
    #[arg(long, requires = "channel")]
    users: bool,

    /// Print what the API answers, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    app: AppArguments,

    #[command(flatten)]
    api: ApiArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let print =
        |text: String| output::print(&text).map(|()| Exit::Done).map_err(|reason| Failure::new(Exit::Failed, reason));
    Failure::report(text(arguments).and_then(print))
}

fn text(arguments: &Arguments) -> Result<String, Failure> {
    arguments.channel.as_deref().map(checked).transpose().map_err(Failure::usage)?;
    let api = Api::new(arguments.app.resolve().map_err(Failure::usage)?, &arguments.api)?;
    let (answer, text): (Value, fn(&Value) -> String) = match arguments.channel.as_deref() {
        None => (list(&api, &arguments.prefix)?, list_text),
        Some(channel) if arguments.users => (api.get(&format!("channels/{}/users", encode(channel)), &[])?, users_text),
        Some(channel) => (one(&api, channel)?, one_text),
    };
    Ok(if arguments.json { format!("{answer}\n") } else { text(&answer) })
}

/// Lists all channels, and counts users in presence channels. The API needs one request for each.
fn list(api: &Api, prefix: &str) -> Result<Value, Failure> {
    let mut list = with_subscriptions(api, "channels", &[("filter_by_prefix", prefix)], "")?;
    let presence = if prefix.len() < PRESENCE.len() { PRESENCE } else { prefix };
    if presence.starts_with(PRESENCE) && presence.starts_with(prefix) {
        let users = api.get("channels", &[("filter_by_prefix", presence), ("info", "user_count")])?;
        let mut counted: Map<String, Value> = users["channels"].as_object().cloned().unwrap_or_default();
        if let Some(channels) = list["channels"].as_object_mut() {
            for (name, counts) in channels {
                if Kind::of(name).is_presence() {
                    *counts = counted.remove(name).unwrap_or_else(|| json!({}));
                }
            }
        }
    }
    Ok(list)
}

fn one(api: &Api, channel: &str) -> Result<Value, Failure> {
    let kind = Kind::of(channel);
    let resource = format!("channels/{}", encode(channel));
    let cache = if kind.is_cache() { "cache" } else { "" };
    if kind.is_presence() {
        let info = if cache.is_empty() { "user_count" } else { "user_count,cache" };
        return api.get(&resource, &[("info", info)]);
    }
    with_subscriptions(api, &resource, &[], cache)
}

/// Asks for the number of subscriptions, and again without where the app does not count them.
fn with_subscriptions(api: &Api, resource: &str, parameters: &[(&str, &str)], info: &str) -> Result<Value, Failure> {
    let counted = if info.is_empty() { "subscription_count".to_owned() } else { format!("subscription_count,{info}") };
    let asked = |info: &str| api.get(resource, &[parameters, &[("info", info)]].concat());
    match asked(&counted) {
        Err(Failure { exit: Exit::Refused, reason }) if reason.contains("subscription_count") => {
            if info.is_empty() {
                api.get(resource, parameters)
            } else {
                asked(info)
            }
        }
        other => other,
    }
}

fn list_text(answer: &Value) -> String {
    let channels: Vec<_> = answer["channels"].as_object().into_iter().flatten().collect();
    if channels.is_empty() {
        return "no channel has subscribers\n".to_owned();
    }
    let rows = channels.iter().map(|(name, counts)| {
        let count = |field: &str| counts[field].as_u64().map_or_else(|| "-".to_owned(), |count| count.to_string());
        [printable(name), count("subscription_count"), count("user_count")]
    });
    table(["CHANNEL", "SUBSCRIPTIONS", "USERS"], &rows.collect::<Vec<_>>())
}

fn one_text(answer: &Value) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = writeln!(text, "occupied       {}", if answer["occupied"] == true { "yes" } else { "no" });
    for (field, name) in [("user_count", "users"), ("subscription_count", "subscriptions")] {
        if let Some(count) = answer[field].as_u64() {
            let _ = writeln!(text, "{name:13}  {count}");
        }
    }
    match answer.get("cache") {
        Some(Value::Null) => text.push_str("last event     none\n"),
        Some(cache) => {
            let data = printable(cache["data"].as_str().unwrap_or_default());
            let ttl = cache["ttl"].as_u64().map(|seconds| format!("  (kept for {seconds} s more)")).unwrap_or_default();
            let _ = writeln!(text, "last event     {data}{ttl}");
        }
        None => {}
    }
    text
}

fn users_text(answer: &Value) -> String {
    let ids = answer["users"].as_array().into_iter().flatten().filter_map(|user| user["id"].as_str());
    let text: String = ids.map(|id| printable(id) + "\n").collect();
    if text.is_empty() { "no users\n".to_owned() } else { text }
}

/// Columns; all but the first hold numbers.
fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in [&head.map(str::to_owned)].into_iter().chain(rows) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

const PRESENCE: &str = "presence-";

const EXAMPLES: &str = "\
Examples:
  taut channels
  taut channels --prefix private- --json
  taut channels presence-room --users";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_a_table() {
        let answer = json!({"channels": {
            "news": {"subscription_count": 12}, "presence-room": {"user_count": 3}, "x\u{1b}": {}
        }});
        let expected = "\
CHANNEL        SUBSCRIPTIONS  USERS
news                      12      -
presence-room              -      3
x\\e                        -      -
";
        assert_eq!(list_text(&answer), expected);
        assert_eq!(list_text(&json!({"channels": {}})), "no channel has subscribers\n");
    }

    #[test]
    fn a_channel_shows_what_is_known_of_it() {
        let answer = json!({"occupied": true, "subscription_count": 2, "cache": {"data": "{}", "ttl": 5}});
        let expected = "occupied       yes\nsubscriptions  2\nlast event     {}  (kept for 5 s more)\n";
        assert_eq!(one_text(&answer), expected);
        assert_eq!(one_text(&json!({"occupied": false, "cache": null})), "occupied       no\nlast event     none\n");
        assert_eq!(users_text(&json!({"users": [{"id": "1"}, {"id": "b\n"}]})), "1\nb\\n\n");
    }
}
