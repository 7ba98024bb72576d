//! JSON, indented as it is: numbers, the order of members and escapes stay as the peer wrote them.

use serde_json::value::RawValue;

/// Colours for the parts of JSON; empty texts for none.
#[derive(Clone, Copy)]
pub(super) struct Palette {
    pub(super) name: &'static str,
    pub(super) string: &'static str,
    pub(super) number: &'static str,
    pub(super) word: &'static str,
    pub(super) reset: &'static str,
}

impl Palette {
    pub(super) const NONE: Self = Self { name: "", string: "", number: "", word: "", reset: "" };
    pub(super) const COLORED: Self =
        Self { name: "\u{1b}[34m", string: "\u{1b}[32m", number: "\u{1b}[33m", word: "\u{1b}[35m", reset: "\u{1b}[0m" };
}

/// The text indented, if it is a JSON object or array.
pub(super) fn pretty(text: &str, palette: Palette) -> Option<String> {
    let text = text.trim();
    if !text.starts_with(['{', '[']) {
        return None;
    }
    serde_json::from_str::<&RawValue>(text).ok()?;
    Some(Printer { text, at: 0, depth: 0, out: String::with_capacity(text.len() * 2), palette }.print())
}

/// Prints what is known to be JSON.
struct Printer<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    out: String,
    palette: Palette,
}

impl Printer<'_> {
    fn print(mut self) -> String {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'{' | b'[' => self.open(),
                b'}' | b']' => {
                    self.depth -= 1;
                    self.line();
                    self.copy(1);
                }
                b',' => {
                    self.copy(1);
                    self.line();
                }
                b':' => {
                    self.copy(1);
                    self.out.push(' ');
                }
                b'"' => self.string(),
                _ => self.scalar(),
            }
        }
        self.out
    }

    fn open(&mut self) {
        self.copy(1);
        self.skip_space();
        if matches!(self.peek(), Some(b'}' | b']')) {
            return self.copy(1);
        }
        self.depth += 1;
        self.line();
    }

    fn string(&mut self) {
        let bytes = self.text.as_bytes();
        let mut end = self.at + 1;
        while bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let is_name = self.text[end + 1..].trim_start().starts_with(':');
        self.colored(if is_name { self.palette.name } else { self.palette.string }, end + 1 - self.at);
    }

    fn scalar(&mut self) {
        let rest = &self.text[self.at..];
        let length = rest.find([',', '}', ']', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        let is_word = rest.starts_with(['t', 'f', 'n']);
        self.colored(if is_word { self.palette.word } else { self.palette.number }, length);
    }

    fn colored(&mut self, color: &str, length: usize) {
        self.out.push_str(color);
        self.copy(length);
        self.out.push_str(self.palette.reset);
    }

    fn copy(&mut self, length: usize) {
        self.out.push_str(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n("  ", self.depth));
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_and_otherwise_stays_as_it_is() {
        let text = r#" {"b": 1.50e+01, "a" : [true,null,"x\"}, y"],"e":{ },"f":[ ]} "#;
        let shown = "{\n  \"b\": 1.50e+01,\n  \"a\": [\n    true,\n    null,\n    \"x\\\"}, y\"\n  ],\n  \"e\": {},\n  \"f\": []\n}";
        assert_eq!(pretty(text, Palette::NONE).as_deref(), Some(shown));
        let colored = pretty(r#"{"a":[1,null]}"#, Palette::COLORED).unwrap();
        assert!(colored.contains("\u{1b}[34m\"a\"\u{1b}[0m: [") && colored.contains("\u{1b}[35mnull"), "{colored}");
    }

    #[test]
    fn what_is_not_an_object_or_array_stays_text() {
        for text in ["", "hello", "12", "\"x\"", "{", "{\"a\":}", "[1,]", "{} {}"] {
            assert_eq!(pretty(text, Palette::NONE), None, "{text}");
        }
    }
}
