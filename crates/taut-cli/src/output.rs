//! What the program prints. No print may panic: the reader of a pipe may be gone, and a disk may be full.

use std::fmt::{Display, Write as _};
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

/// Text of a stranger for a terminal: control characters, which could move the cursor, change the window or paste, and
/// those that change the direction of reading are shown and not obeyed. Line ends and tabs stay.
pub(crate) fn escaped(text: &str) -> String {
    escape(text, |character| is_obeyed(character) && !matches!(character, '\n' | '\t'))
}

/// The same on one line.
pub(crate) fn printable(text: &str) -> String {
    escape(text, is_obeyed)
}

/// As [`printable`], or for a pipe, where marks of direction are part of Arabic and Hebrew text.
pub(crate) fn printable_to(text: &str, is_terminal: bool) -> String {
    if is_terminal { printable(text) } else { escape(text, char::is_control) }
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if !is_escaped(character) => safe.push(character),
            '\u{1b}' => safe.push_str("\\e"),
            '\0' => safe.push_str("\\0"),
            // Writing to a `String` cannot fail. `\n`, `\r` and `\t` have names, as in Rust.
            _ => drop(write!(safe, "{}", character.escape_default())),
        }
    }
    safe
}

fn is_obeyed(character: char) -> bool {
    character.is_control() || is_directional(character)
}

/// Unicode Standard Annex 9: marks, embeddings, overrides and isolates. See CVE-2021-42574.
fn is_directional(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
    fn nothing_that_a_terminal_would_obey_is_left() {
        for (text, shown) in [
            ("\u{1b}]0;title\u{7}", "\\e]0;title\\u{7}"),
            ("a\u{9b}31mb", "a\\u{9b}31mb"),
            ("one\rtwo\u{8}\0", "one\\rtwo\\u{8}\\0"),
            ("a\u{202e}b\u{2066}c\u{200e}\u{200f}\u{61c}", "a\\u{202e}b\\u{2066}c\\u{200e}\\u{200f}\\u{61c}"),
            ("two\n\tlines, Jörg 👋", "two\n\tlines, Jörg 👋"),
        ] {
            assert_eq!(escaped(text), shown);
            assert_eq!(printable(text), shown.replace('\n', "\\n").replace('\t', "\\t"));
        }
    }

    #[test]
    fn a_pipe_gets_marks_of_direction_and_no_control_characters() {
        assert_eq!(printable_to("a\n\u{1b}[m\u{200f}\u{202e}", false), "a\\n\\e[m\u{200f}\u{202e}");
        assert_eq!(printable_to("\u{200f}", true), "\\u{200f}");
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
