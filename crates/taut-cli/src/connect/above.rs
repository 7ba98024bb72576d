//! Prints above the prompt while somebody types.
//!
//! rustyline has a printer for that, but the version for the Rust that we promise stops reading when several characters
//! come at once while it is in use (rustyline issue 976). So the editor tells us of each change, and we print: what
//! it has drawn is wiped, the text is written, and the same is drawn again, with the cursor where it was.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthChar as _;

/// What the editor has drawn. Clones are handles.
#[derive(Clone, Default)]
pub(super) struct Above(Arc<Mutex<Drawn>>);

#[derive(Default)]
struct Drawn {
    is_active: bool,
    prompt: String,
    line: String,
    /// Where in the line the cursor is.
    at: usize,
    changed: Option<Instant>,
}

impl Above {
    /// The editor draws this prompt.
    pub(super) fn prompt(&self, prompt: &str) {
        let mut drawn = self.lock();
        prompt.clone_into(&mut drawn.prompt);
        drawn.is_active = true;
        drawn.changed = Some(Instant::now());
    }

    /// The editor draws this line, with the cursor there.
    pub(super) fn line(&self, line: &str, at: usize) {
        let mut drawn = self.lock();
        line.clone_into(&mut drawn.line);
        drawn.at = at;
        drawn.changed = Some(Instant::now());
    }

    /// The editor has ended, and what it has drawn stays.
    pub(super) fn end(&self) {
        let mut drawn = self.lock();
        drawn.is_active = false;
        drawn.line.clear();
        drawn.at = 0;
    }

    /// Prints whole lines above what the editor has drawn.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        // The editor draws right after it has told us: not in between.
        let begun = Instant::now();
        let drawn = loop {
            let drawn = self.lock();
            let is_idle = !drawn.is_active || drawn.changed.is_none_or(|changed| changed.elapsed() >= IDLE);
            if is_idle || begun.elapsed() >= PATIENCE {
                break drawn;
            }
            drop(drawn);
            thread::sleep(IDLE);
        };
        let columns = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
        let mut stdout = io::stdout().lock();
        stdout.write_all(drawn.around(text, columns).as_bytes())?;
        stdout.flush()
    }

    fn lock(&self) -> MutexGuard<'_, Drawn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drawn {
    /// What prints the text, and draws the rest again below it.
    fn around(&self, text: &str, columns: usize) -> String {
        if !self.is_active {
            return text.to_owned();
        }
        let start = position(&self.prompt, (0, 0), columns);
        let (row, column) = position(&self.line[..self.at], start, columns);
        let (last_row, last_column) = position(&self.line, start, columns);
        let mut out = "\r".to_owned();
        move_cursor(&mut out, 'A', row);
        // Writing to a `String` cannot fail.
        let _ = write!(out, "\x1b[J{text}{}{}", self.prompt, self.line);
        // At the right edge the terminal waits with the line break for the next character.
        if last_column == 0 && last_row > 0 && !self.line.ends_with('\n') {
            out.push('\n');
        }
        move_cursor(&mut out, 'A', last_row - row);
        out.push('\r');
        move_cursor(&mut out, 'C', column);
        out
    }
}

fn move_cursor(out: &mut String, direction: char, count: usize) {
    if count > 0 {
        let _ = write!(out, "\x1b[{count}{direction}");
    }
}

/// Row and column behind a text that begins there, by the rules of rustyline.
fn position(text: &str, (mut row, mut column): (usize, usize), columns: usize) -> (usize, usize) {
    for character in text.chars() {
        if character == '\n' {
            (row, column) = (row + 1, 0);
            continue;
        }
        let width = if character == '\t' { TAB - column % TAB } else { character.width().unwrap_or(0) };
        column += width;
        if column > columns {
            (row, column) = (row + 1, width);
        }
    }
    if column == columns { (row + 1, 0) } else { (row, column) }
}

/// How long the editor has been still when it is not drawing.
const IDLE: Duration = Duration::from_millis(4);

/// How long somebody who types without a pause may hold up the output.
const PATIENCE: Duration = Duration::from_millis(200);

const TAB: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(line: &str, at: usize) -> Drawn {
        Drawn { is_active: true, prompt: "> ".to_owned(), line: line.to_owned(), at, changed: None }
    }

    #[test]
    fn what_was_drawn_is_wiped_and_drawn_again() {
        assert_eq!(drawn("half", 4).around("new\n", 80), "\r\x1b[Jnew\n> half\r\x1b[6C");
        // The cursor in the first of three rows.
        assert_eq!(drawn("123456789012", 1).around("new\n", 6), "\r\x1b[Jnew\n> 123456789012\x1b[2A\r\x1b[3C");
        // In the second of two lines.
        assert_eq!(drawn("one\ntwo", 7).around("new\n", 80), "\r\x1b[1A\x1b[Jnew\n> one\ntwo\r\x1b[3C");
        // At the right edge.
        assert_eq!(drawn("1234", 4).around("new\n", 6), "\r\x1b[1A\x1b[Jnew\n> 1234\n\r");
        assert_eq!(Drawn::default().around("new\n", 80), "new\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(position("日本", (0, 2), 80), (0, 6));
        assert_eq!(position("日本", (0, 0), 3), (1, 2));
        assert_eq!(position("e\u{301}\t", (0, 0), 80), (0, 8));
    }
}
