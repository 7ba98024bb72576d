//! What the program prints. No print may panic: the reader of a pipe may be gone, and a disk may be full.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::log;

/// Prints a command's result to stdout, whole.
///
/// A reader that has gone (`taut serve --check | head -1`) has what it wanted: the command ends well, and without a word.
///
/// # Errors
/// When the result cannot be written for another reason, such as a full disk.
pub(crate) fn print(text: &str) -> Result<(), String> {
    written(io::stdout().lock(), text).map_err(|error| cannot_write(&error))
}

/// Prints a line to stdout for a program that waits for it. If it cannot be written, the command logs that and goes on.
pub(crate) fn announce(line: impl Display) {
    if let Err(error) = print(&format!("{line}\n")) {
        tracing::warn!("{error}");
    }
}

/// Prints a line to stderr for the person who runs the program, or logs it where that is JSON. If it cannot be written, it is lost.
pub(crate) fn tell(line: impl Display) {
    if log::is_json() {
        return tracing::info!(target: log::COMMAND, "{line}");
    }
    write_line(line);
}

/// Does the same with what ends the program.
pub(crate) fn fail(error: impl Display) {
    if log::is_json() {
        return tracing::error!(target: log::COMMAND, "{error}");
    }
    write_line(error);
}

/// Text of a stranger for a terminal: control characters, and those that reverse the direction of reading, are shown
/// and not obeyed.
pub(crate) fn printable(text: &str) -> String {
    // U+202A to U+202E and U+2066 to U+2069: see CVE-2021-42574.
    let is_directional = |character| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escaped = |character: char| {
        let is_shown = character.is_control() || is_directional(character);
        if is_shown { character.escape_default().to_string() } else { character.into() }
    };
    text.chars().map(escaped).collect()
}

fn cannot_write(error: &io::Error) -> String {
    format!("the output cannot be written: {error}")
}

/// Prints a line of a conversation to stderr, as it is. If it cannot be written, it is lost.
pub(crate) fn remark(line: impl Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

fn write_line(line: impl Display) {
    // One write, so that lines of several processes on one terminal stay whole.
    let _ = io::stderr().lock().write_all(format!("taut: {line}\n").as_bytes());
}

fn written(mut output: impl Write, text: &str) -> io::Result<()> {
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that fails.
    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_could_steer_a_terminal_is_shown() {
        assert_eq!(printable("a\u{1b}[2J\r\u{9b}\u{202e}é"), "a\\u{1b}[2J\\r\\u{9b}\\u{202e}é");
    }

    #[test]
    fn a_reader_that_has_gone_is_not_an_error_and_a_full_disk_is() {
        assert!(written(Failing(ErrorKind::BrokenPipe), "text").is_ok());
        assert!(written(Failing(ErrorKind::StorageFull), "text").is_err());
        let mut output = Vec::new();
        written(&mut output, "text").unwrap();
        assert_eq!(output, b"text");
    }
}
