//! JSON as text: its members keep their order, its numbers their digits, its strings their escapes.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use crate::output::escaped;

/// An object that is written on a line.
pub(crate) struct Object(String);

impl Object {
    /// One whose first field says what it is.
    pub(crate) fn new(kind: &str) -> Self {
        Self(format!("{{\"kind\":{}", quoted(kind)))
    }

    /// Adds a field with a value that is JSON.
    #[must_use]
    pub(crate) fn field(mut self, name: &str, json: &str) -> Self {
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, ",{}:{json}", quoted(name));
        self
    }

    pub(crate) fn line(self) -> String {
        self.0 + "}\n"
    }
}

pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A list of values that are JSON.
pub(crate) fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// Valid JSON without the space between its parts.
pub(crate) fn compact(json: &str) -> String {
    let mut printer = Printer::new(json, Layout::default());
    printer.flat = 1;
    printer.print()
}

/// Indents an object or a list. Returns `None` for other JSON, and for text that is not JSON.
pub(crate) fn pretty(text: &str, layout: Layout) -> Option<String> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<&RawValue>(text).ok()?;
    Some(Printer::new(text, layout).print())
}

/// How [`pretty`] lays JSON out.
#[derive(Clone, Copy, Default)]
pub(crate) struct Layout {
    /// An object or list that fits into this many columns stays on one line. `None`: each member has its own line.
    pub(crate) width: Option<usize>,
    pub(crate) palette: Palette,
    /// Escapes what a terminal would obey; only strings can hold that.
    pub(crate) is_for_terminal: bool,
}

/// Colors for the parts of JSON; empty texts for none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Palette {
    name: &'static str,
    string: &'static str,
    number: &'static str,
    word: &'static str,
    reset: &'static str,
}

impl Palette {
    pub(crate) const COLORED: Self =
        Self { name: "\u{1b}[34m", string: "\u{1b}[32m", number: "\u{1b}[33m", word: "\u{1b}[35m", reset: "\u{1b}[0m" };
}

/// Prints what is known to be JSON. It goes through the text once and does not recurse: a peer decides how deep it is.
struct Printer<'t> {
    text: &'t str,
    at: usize,
    layout: Layout,
    out: String,
    /// Columns that are taken on the line.
    column: usize,
    /// Objects and lists around this place that have lines of their own.
    depth: usize,
    /// Those within them that stay on a line.
    flat: usize,
    /// Bytes that may still be spent on indentation.
    indentation: usize,
}

impl<'t> Printer<'t> {
    fn new(text: &'t str, layout: Layout) -> Self {
        let indentation = INDENTATION + INDENTATION_PER_BYTE * text.len();
        Self { text, at: 0, layout, out: String::with_capacity(text.len()), column: 0, depth: 0, flat: 0, indentation }
    }

    fn print(mut self) -> String {
        while let Some(byte) = self.peek() {
            match byte {
                _ if is_space(byte) => self.at += 1,
                b'{' | b'[' => self.open(),
                b'}' | b']' => self.close(),
                b',' => {
                    self.copy(1);
                    self.line();
                }
                b':' => {
                    self.copy(1);
                    if self.flat == 0 {
                        self.out.push(' ');
                        self.column += 1;
                    }
                }
                b'"' => self.string(),
                _ => self.scalar(),
            }
        }
        self.out
    }

    fn open(&mut self) {
        let is_flat = self.flat > 0 || self.depth == DEEPEST || self.fits();
        self.copy(1);
        while self.peek().is_some_and(is_space) {
            self.at += 1;
        }
        if matches!(self.peek(), Some(b'}' | b']')) {
            self.copy(1);
        } else if is_flat {
            self.flat += 1;
        } else {
            self.depth += 1;
            self.line();
        }
    }

    fn close(&mut self) {
        if self.flat > 0 {
            self.flat -= 1;
        } else {
            self.depth = self.depth.saturating_sub(1);
            self.line();
        }
        self.copy(1);
    }

    fn string(&mut self) {
        let end = string_end(self.text, self.at);
        let is_name = self.text[end..].trim_start().starts_with(':');
        let Palette { name, string, .. } = self.layout.palette;
        self.colored(if is_name { name } else { string }, end - self.at);
    }

    fn scalar(&mut self) {
        let rest = &self.text[self.at..];
        let length = rest.find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        let is_word = rest.starts_with(['t', 'f', 'n']);
        let Palette { word, number, .. } = self.layout.palette;
        self.colored(if is_word { word } else { number }, length);
    }

    fn colored(&mut self, color: &str, length: usize) {
        self.out.push_str(color);
        self.copy(length);
        self.out.push_str(self.layout.palette.reset);
    }

    fn copy(&mut self, length: usize) {
        let part = &self.text[self.at..self.at + length];
        if self.layout.is_for_terminal {
            self.out.push_str(&escaped(part));
        } else {
            self.out.push_str(part);
        }
        self.column += part.chars().count();
        self.at += length;
    }

    fn line(&mut self) {
        if self.flat > 0 {
            return;
        }
        self.out.push('\n');
        // None once it is spent, so that no text becomes many times as long.
        let indent = (INDENT * self.depth).min(self.indentation);
        self.indentation -= indent;
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    /// Whether the object or list that begins here fits on the line.
    fn fits(&self) -> bool {
        let Some(width) = self.layout.width else { return false };
        // A comma may follow.
        let room = width.saturating_sub(self.column + usize::from(self.depth > 0));
        let (mut columns, mut open, mut at) = (0, 0_usize, self.at);
        while let Some(&byte) = self.text.as_bytes().get(at)
            && columns <= room
        {
            let end = if byte == b'"' { string_end(self.text, at) } else { at + 1 };
            if !is_space(byte) {
                columns += self.text[at..end].chars().count();
            }
            match byte {
                b'{' | b'[' => open += 1,
                b'}' | b']' if open == 1 => break,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            at = end;
        }
        columns <= room
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// Where the string ends that begins there.
fn string_end(json: &str, start: usize) -> usize {
    let mut is_escaped = false;
    let quote = json.bytes().skip(start + 1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    quote.map_or(json.len(), |length| start + length + 2)
}

/// RFC 8259 §2.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Columns for each level.
const INDENT: usize = 2;

/// Objects and lists within each other that have lines of their own.
const DEEPEST: usize = 32;

/// Bytes of indentation that any text may have, and more for each of its bytes.
const INDENTATION: usize = 64 << 10;
const INDENTATION_PER_BYTE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn within(width: usize) -> Layout {
        Layout { width: Some(width), ..Layout::default() }
    }

    #[test]
    fn what_fits_stays_on_a_line_and_nothing_but_space_changes() {
        let json = r#" {"b" : [1.50, 2e9, "a, b: {c}\" d"], "a":{"é" : {}, "n":null},"z":"0123456789"} "#;
        let dense = r#"{"b":[1.50,2e9,"a, b: {c}\" d"],"a":{"é":{},"n":null},"z":"0123456789"}"#;
        assert_eq!(compact(json), dense);
        assert_eq!(pretty(json, within(80)).as_deref(), Some(dense));
        let lines = [
            "{",
            "  \"b\": [",
            "    1.50,",
            "    2e9,",
            "    \"a, b: {c}\\\" d\"",
            "  ],",
            "  \"a\": {\"é\":{},\"n\":null},",
            "  \"z\": \"0123456789\"",
            "}",
        ];
        // The line of "a" has 25 columns with its comma.
        assert_eq!(pretty(json, within(25)), Some(lines.join("\n")));
        assert_ne!(pretty(json, within(24)), Some(lines.join("\n")));
        assert_eq!(compact(&pretty(json, within(1)).unwrap()), dense);
    }

    #[test]
    fn without_a_width_each_member_has_a_line() {
        let text = r#" {"b": 1.50e+01, "a" : [true,null,"x\"}, y"],"e":{ },"f":[ ]} "#;
        let list = "[\n    true,\n    null,\n    \"x\\\"}, y\"\n  ]";
        let shown = format!("{{\n  \"b\": 1.50e+01,\n  \"a\": {list},\n  \"e\": {{}},\n  \"f\": []\n}}");
        assert_eq!(pretty(text, Layout::default()), Some(shown));
        assert_eq!(pretty("[[],{}]", within(0)).as_deref(), Some("[\n  [],\n  {}\n]"));
        let colored = pretty(r#"{"a":[1,null]}"#, Layout { palette: Palette::COLORED, ..Layout::default() }).unwrap();
        assert!(colored.contains("\u{1b}[34m\"a\"\u{1b}[0m: [") && colored.contains("\u{1b}[35mnull"), "{colored}");
    }

    #[test]
    fn for_a_terminal_strings_are_escaped_and_line_ends_of_another_kind_are_space() {
        let layout = Layout { palette: Palette::COLORED, is_for_terminal: true, ..Layout::default() };
        let shown = pretty("{\r\n\"a\": \"\u{9b}\u{202e}\u{200f}\"\r\n}", layout).unwrap();
        let string = "\"\\u{9b}\\u{202e}\\u{200f}\"";
        assert_eq!(shown, format!("{{\n  \u{1b}[34m\"a\"\u{1b}[0m: \u{1b}[32m{string}\u{1b}[0m\n}}"));
    }

    #[test]
    fn what_is_not_an_object_or_list_stays_text() {
        for text in ["", "hello", "12", "\"x\"", "{", "{\"a\":}", "[1,]", "{} {}"] {
            assert_eq!(pretty(text, Layout::default()), None, "{text}");
        }
        for text in ["{}", "[]", "1", "\"a\\\\\"", "[[]]"] {
            assert_eq!(compact(text), text);
        }
    }

    #[test]
    fn no_text_becomes_many_times_as_long() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let wide = format!("{}{}1{}", "[".repeat(DEEPEST), "1,".repeat(500_000), "]".repeat(DEEPEST));
        for text in [deep, wide] {
            for layout in [Layout::default(), within(80)] {
                let shown = pretty(&text, layout).unwrap();
                assert!(shown.len() < (INDENTATION_PER_BYTE + 2) * text.len() + INDENTATION, "{}", shown.len());
                assert!(compact(&shown) == text, "it is another text");
            }
        }
    }

    #[test]
    fn an_object_is_a_line_of_json() {
        let line = Object::new("note").field("text", &quoted("a\"\n")).field("list", &list(["1".to_owned()])).line();
        assert_eq!(line, "{\"kind\":\"note\",\"text\":\"a\\\"\\n\",\"list\":[1]}\n");
    }
}
