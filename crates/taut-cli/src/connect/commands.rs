//! What is typed at the prompt: messages, and commands that begin with a slash.

use std::fmt::Write as _;
use std::fs;

use rustyline::completion::unescape;
use taut::{Close, CloseCode, Message};

use super::format::bytes_of_base64;
use crate::hex;

/// A line of the prompt, understood.
#[derive(Debug, PartialEq)]
pub(super) enum Typed {
    Send(Message<'static>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Close),
    /// Turn indentation of JSON on or off.
    ToggleJson,
    Help,
    Nothing,
}

/// Understands a line: a slash begins a command, two slashes a message that begins with one.
///
/// # Errors
/// What is wrong with it; nothing was done.
pub(super) fn parse(line: &str) -> Result<Typed, String> {
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(if line.is_empty() { Typed::Nothing } else { Typed::Send(Message::from(line.to_owned())) });
    };
    if rest.starts_with('/') {
        return Ok(Typed::Send(Message::from(rest.to_owned())));
    }
    let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    match name {
        "ping" => control(argument).map(Typed::Ping),
        "pong" => control(argument).map(Typed::Pong),
        "close" => close(argument).map(Typed::Close),
        "quit" | "exit" | "q" => Ok(Typed::Close(CloseCode::NORMAL.into())),
        "json" => Ok(Typed::ToggleJson),
        "help" | "?" => Ok(Typed::Help),
        "binary" => binary(argument).map(|bytes| Typed::Send(bytes.into())),
        "send-file" => file(argument).map(|bytes| Typed::Send(text_or_binary(bytes))),
        _ => Err(format!("there is no command /{name}; /help lists them, and //{name} sends it as a message")),
    }
}

/// What `/help` says.
pub(super) fn help() -> String {
    let mut help = String::new();
    for (usage, meaning) in COMMANDS {
        // Writing to a `String` cannot fail.
        let _ = writeln!(help, "  {usage:24}  {meaning}");
    }
    help + "  //TEXT                    Send /TEXT. Several lines are pasted as one message. A space before a line keeps\n\
            \x20                           it out of the history; Ctrl-R searches there.\n"
}

/// The commands by their names, for completion.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(usage, _)| usage.split(' ').next().unwrap_or_default())
}

fn control(text: &str) -> Result<Vec<u8>, String> {
    // RFC 6455 §5.5.
    if text.len() > 125 {
        Err("a ping or pong holds at most 125 bytes".to_owned())
    } else {
        Ok(text.as_bytes().to_vec())
    }
}

fn close(text: &str) -> Result<Close, String> {
    if text.is_empty() {
        return Ok(CloseCode::NORMAL.into());
    }
    let (code, reason) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let number = code.parse().map_err(|_| "write /close CODE REASON, as in /close 4000 bye")?;
    let code = CloseCode::new(number);
    if !code.is_sendable() {
        return Err(format!("close code {number} must not be sent (RFC 6455 §7.4); use 1000 or one of 3000 to 4999"));
    }
    Ok(Close::new(code, reason.trim()))
}

fn binary(text: &str) -> Result<Vec<u8>, String> {
    if let Some(path) = text.strip_prefix('@') {
        return file(path);
    }
    match text.strip_prefix("base64:") {
        Some(text) => bytes_of_base64(text),
        None if text.is_empty() => Err("write /binary HEX, /binary base64:TEXT or /binary @FILE".to_owned()),
        None => hex::decode(text),
    }
}

/// Reads a file whose name is written as Tab completes it: `my\ file`.
fn file(path: &str) -> Result<Vec<u8>, String> {
    if path.is_empty() {
        return Err("which file?".to_owned());
    }
    let escape = cfg!(unix).then_some('\\');
    let path = unescape(path, escape);
    fs::read(&*path).map_err(|error| format!("{path} cannot be read: {error}"))
}

fn text_or_binary(bytes: Vec<u8>) -> Message<'static> {
    String::from_utf8(bytes).map_or_else(|error| error.into_bytes().into(), Message::from)
}

const COMMANDS: &[(&str, &str)] = &[
    ("/help", "List the commands"),
    ("/ping [TEXT]", "Send a ping, and show how long its pong takes"),
    ("/pong [TEXT]", "Send an unsolicited pong"),
    ("/send-file PATH", "Send a file: as text if it is UTF-8, else as binary"),
    ("/binary HEX", "Send bytes; also base64:TEXT or @FILE"),
    ("/json", "Turn indentation of JSON on or off"),
    ("/close [CODE [REASON]]", "Close the connection, with 1000 by default"),
    ("/quit", "Close the connection"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_begins_a_command_and_two_a_message() {
        for (line, typed) in [
            ("hello", Typed::Send("hello".into())),
            ("two\nlines", Typed::Send("two\nlines".into())),
            ("//path", Typed::Send("/path".into())),
            ("", Typed::Nothing),
            ("/ping are you there?", Typed::Ping(b"are you there?".to_vec())),
            ("/pong", Typed::Pong(Vec::new())),
            ("/close", Typed::Close(CloseCode::NORMAL.into())),
            ("/close 4001 token expired", Typed::Close(Close::new(CloseCode::new(4001), "token expired"))),
            ("/quit", Typed::Close(CloseCode::NORMAL.into())),
            ("/binary de ad", Typed::Send(Message::from(vec![0xde, 0xad]))),
            ("/binary base64:3q0=", Typed::Send(Message::from(vec![0xde, 0xad]))),
            ("/json", Typed::ToggleJson),
            ("/help", Typed::Help),
        ] {
            assert_eq!(parse(line), Ok(typed), "{line}");
        }
        for (line, word) in [
            ("/nothing", "//nothing"),
            ("/close 1006", "must not be sent"),
            ("/close soon", "CODE"),
            ("/binary xyz", "hexadecimal"),
            ("/binary", "HEX"),
            ("/send-file /nowhere/file", "/nowhere/file"),
            ("/send-file", "which"),
        ] {
            assert!(parse(line).unwrap_err().contains(word), "{line}");
        }
        // RFC 6455 §5.5.
        assert_eq!(parse(&format!("/ping {}", "x".repeat(125))), Ok(Typed::Ping(vec![b'x'; 125])));
        assert!(parse(&format!("/ping {}", "x".repeat(126))).unwrap_err().contains("125"));
    }

    #[test]
    fn a_file_is_text_if_it_can_be() {
        let path = std::env::temp_dir().join(format!("taut commands-{}", std::process::id()));
        fs::write(&path, "grüß dich").unwrap();
        // As Tab completes it.
        let typed = path.display().to_string().replace(' ', "\\ ");
        let line = format!("/send-file {typed}");
        assert_eq!(parse(&line), Ok(Typed::Send("grüß dich".into())));
        assert_eq!(parse(&format!("/binary @{typed}")), Ok(Typed::Send("grüß dich".as_bytes().into())));
        fs::write(&path, [0xff, 0]).unwrap();
        assert_eq!(parse(&line), Ok(Typed::Send(Message::from(vec![0xff, 0]))));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_help_and_the_page_list_every_command_that_is_understood() {
        let page = include_str!("../../../../docs/terminal.md");
        for (usage, _) in COMMANDS {
            assert!(page.contains(&format!("`{usage}`")), "docs/terminal.md: {usage}");
        }
        for name in names() {
            assert!(help().contains(name));
            assert!(parse(name).map_or_else(|error| !error.contains("no command"), |_| true), "{name}");
        }
        let completed: Vec<_> = names().filter(|name| name.starts_with("/p")).collect();
        assert_eq!(completed, ["/ping", "/pong"]);
    }
}
