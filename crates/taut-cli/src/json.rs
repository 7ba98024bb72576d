//! JSON as text: its fields keep their order and its numbers their digits.

use std::fmt::Write as _;

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
    let mut out = String::with_capacity(json.len());
    let (mut is_text, mut is_escaped) = (false, false);
    for character in json.chars() {
        if is_text {
            is_text = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            is_text = character == '"';
        }
        out.push(character);
    }
    out
}

/// Valid JSON on lines of at most this width, as far as its parts allow: an object or a list that fits is one line.
pub(crate) fn pretty(json: &str, width: usize) -> String {
    let mut out = String::new();
    write(&mut out, &compact(json), 0, 0, width);
    out
}

/// Writes compact JSON, of which something that takes so many columns is on the line already.
fn write(out: &mut String, json: &str, depth: usize, taken: usize, width: usize) {
    let inside = json.strip_prefix(['{', '[']).map(|rest| &rest[..rest.len() - 1]);
    let (Some(inside), true) = (inside, depth < DEEPEST && taken + json.chars().count() > width) else {
        return out.push_str(json);
    };
    out.push_str(&json[..1]);
    let indent = INDENT.repeat(depth + 1);
    let mut rest = inside;
    while !rest.is_empty() {
        let end = end_of_item(rest);
        let (item, after) = rest.split_at(end);
        rest = after.strip_prefix(',').unwrap_or(after);
        let _ = write!(out, "\n{indent}");
        let name_end = if json.starts_with('{') { end_of_text(item) + 1 } else { 0 };
        let (name, value) = item.split_at(name_end);
        let name = name.strip_suffix(':').map(|name| format!("{name}: ")).unwrap_or_default();
        out.push_str(&name);
        // A comma may follow.
        write(out, value, depth + 1, indent.len() + name.chars().count() + 1, width);
        out.push_str(if rest.is_empty() { "" } else { "," });
    }
    let _ = write!(out, "\n{}{}", INDENT.repeat(depth), &json[json.len() - 1..]);
}

/// Where the text ends with which this begins.
fn end_of_text(json: &str) -> usize {
    let mut is_escaped = false;
    let quote = json.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    quote.map_or(json.len(), |at| at + 2)
}

/// Where the comma is behind the item with which this begins.
fn end_of_item(json: &str) -> usize {
    let (mut at, mut open) = (0, 0usize);
    while let Some(byte) = json.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += end_of_text(&json[at..]);
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            b',' if open == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    json.len()
}

const INDENT: &str = "  ";

/// Objects and lists within each other that have lines of their own.
const DEEPEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_on_a_line_and_nothing_but_space_changes() {
        let json = r#" {"b" : [1.50, 2e9, "a, b: {c}\" d"], "a":{"é" : {}, "n":null},"z":"0123456789"} "#;
        let dense = r#"{"b":[1.50,2e9,"a, b: {c}\" d"],"a":{"é":{},"n":null},"z":"0123456789"}"#;
        assert_eq!(compact(json), dense);
        assert_eq!(pretty(json, 80), dense);
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
        assert_eq!(pretty(json, 27), lines.join("\n"));
        assert_eq!(compact(&pretty(json, 1)), dense);
    }

    #[test]
    fn values_without_items_and_very_deep_ones_are_written() {
        for json in ["{}", "[]", "1", "\"a\\\\\"", "[[]]"] {
            assert_eq!(compact(&pretty(json, 0)), json);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(compact(&pretty(&deep, 80)), deep);
    }

    #[test]
    fn an_object_is_a_line_of_json() {
        let line = Object::new("note").field("text", &quoted("a\"\n")).field("list", &list(["1".to_owned()])).line();
        assert_eq!(line, "{\"kind\":\"note\",\"text\":\"a\\\"\\n\",\"list\":[1]}\n");
    }
}
