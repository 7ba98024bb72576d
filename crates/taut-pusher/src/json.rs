//! JSON as text: strings that are written, and what strangers' JSON may hold that others cannot read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::error::Category;

use crate::hex::DIGITS;

/// Appends `text` as a JSON string with its quotes (RFC 8259 §7): only what must be escaped is.
pub fn write_json_string(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut copied = 0;
    for (position, byte) in text.bytes().enumerate() {
        if !IS_ESCAPED[usize::from(byte)] {
            continue;
        }
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            _ => "",
        };
        // Every escaped byte is ASCII, so both ends of the slice are character borders.
        out.push_str(&text[copied..position]);
        copied = position + 1;
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 0x0f)]));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

/// Replaces every escape of half a surrogate pair by the one of U+FFFD, the replacement character.
///
/// A text that was cut within an emoji has such a half, and JavaScript writes it as `\ud83d`. RFC 8259 §8.2 leaves open
/// what becomes of it: browsers take it, other parsers refuse the whole document. So nobody gets one from here. The
/// length stays the same.
pub fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    // Most texts have escapes, of quotes for instance, but none by number: this finds out much faster.
    if !json.contains("\\u") {
        return Cow::Borrowed(json);
    }
    let mut mended = String::new();
    let (mut copied, mut position) = (0, 0);
    while let Some(found) = json[position..].find('\\') {
        let escape = position + found;
        let length = match (unit(json, escape), unit(json, escape + UNIT)) {
            (Some(HIGH_FIRST..=HIGH_LAST), Some(LOW_FIRST..=LOW_LAST)) => 2 * UNIT,
            (Some(HIGH_FIRST..=LOW_LAST), _) => {
                mended.push_str(&json[copied..escape]);
                mended.push_str(REPLACEMENT);
                copied = escape + UNIT;
                UNIT
            }
            (Some(_), _) => UNIT,
            // A backslash and what it escapes, which may be a backslash. What is none of JSON's escapes, its parser
            // refuses.
            (None, _) => 1 + json[escape + 1..].chars().next().map_or(0, char::len_utf8),
        };
        position = escape + length;
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    mended.push_str(&json[copied..]);
    Cow::Owned(mended)
}

/// As [`without_lone_surrogates`], for text that need not be UTF-8: then it stays what it is, for the parser to refuse.
pub fn bytes_without_lone_surrogates(json: &[u8]) -> Cow<'_, [u8]> {
    match str::from_utf8(json).map(without_lone_surrogates) {
        Ok(Cow::Owned(mended)) => Cow::Owned(mended.into_bytes()),
        Ok(Cow::Borrowed(_)) | Err(_) => Cow::Borrowed(json),
    }
}

/// A string lent from the message unless an escape forbids it. (Serde borrows a bare `Cow`, but not one within an
/// `Option`.)
#[derive(Deserialize)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn into_owned<'b>(self) -> Text<'b> {
        Text(owned(self.0))
    }
}

pub(crate) fn owned<'b>(text: Cow<'_, str>) -> Cow<'b, str> {
    Cow::Owned(text.into_owned())
}

/// Where a text is not the object that was wanted.
pub(crate) struct NotObject {
    pub(crate) category: Category,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl From<serde_json::Error> for NotObject {
    fn from(error: serde_json::Error) -> Self {
        Self { category: error.classify(), line: error.line(), column: error.column() }
    }
}

/// Reads an object. (Serde would also fill a struct from an array's elements.)
pub(crate) fn from_object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, NotObject> {
    if text.trim_ascii_start().starts_with('[') {
        return Err(NotObject { category: Category::Data, line: 1, column: 1 });
    }
    Ok(serde_json::from_str(text)?)
}

/// The unit of UTF-16 whose escape (`\uXXXX`) begins here.
fn unit(json: &str, position: usize) -> Option<u16> {
    let digits = json.get(position..position + UNIT)?.strip_prefix("\\u")?;
    // The parser of numbers would take a plus sign, too.
    let is_unit = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_unit { u16::from_str_radix(digits, 16).ok() } else { None }
}

/// Bytes of an escape by number.
const UNIT: usize = 6;

const REPLACEMENT: &str = "\\ufffd";

/// The Unicode Standard §3.8: high surrogates come first in a pair, low ones second.
const HIGH_FIRST: u16 = 0xd800;
const HIGH_LAST: u16 = 0xdbff;
const LOW_FIRST: u16 = 0xdc00;
const LOW_LAST: u16 = 0xdfff;

/// The bytes that a JSON string cannot hold as they are.
const IS_ESCAPED: [bool; 256] = {
    let mut is_escaped = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        is_escaped[byte] = true;
        byte += 1;
    }
    is_escaped[b'"' as usize] = true;
    is_escaped[b'\\' as usize] = true;
    is_escaped
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else_is() {
        let mut out = String::new();
        write_json_string(&mut out, "\u{0}\u{1f}\u{8}\u{c}\t\r\n/é\u{2028}\u{7f}😀");
        assert_eq!(out, "\"\\u0000\\u001f\\b\\f\\t\\r\\n/é\u{2028}\u{7f}😀\"");
    }

    #[test]
    fn half_a_pair_becomes_the_replacement_character_and_a_pair_stays() {
        for (json, mended) in [
            (r#""Great \ud83d""#, r#""Great \ufffd""#),
            (r#""\uDC4D!""#, r#""\ufffd!""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d \ude00""#, r#""\ufffd \ufffd""#),
            (r#""\ud83d\u0041""#, r#""\ufffd\u0041""#),
            (r#""\ud83d\\ude00""#, r#""\ufffd\\ude00""#),
            (r#"{"\ud83d":["\ud83d"]}"#, r#"{"\ufffd":["\ufffd"]}"#),
        ] {
            assert_eq!(without_lone_surrogates(json), mended, "{json}");
            assert_eq!(bytes_without_lone_surrogates(json.as_bytes()), mended.as_bytes());
        }
    }

    #[test]
    fn everything_else_stays_as_it_is_and_is_not_copied() {
        for json in [
            "",
            r#""caf\u00e9 \ud83d\ude00 \n \\ \\ud83d \"""#,
            r#""\\\\ud83d""#,
            // Not JSON: its parser says so.
            "\\",
            r#""\u+123 \ud83 \x\é"#,
            r#"{"a":7}"#,
        ] {
            assert!(matches!(without_lone_surrogates(json), Cow::Borrowed(same) if same == json), "{json}");
        }
        let broken = b"\"\\ud83d\xff\"";
        assert!(matches!(bytes_without_lone_surrogates(broken), Cow::Borrowed(same) if same == broken));
    }

    proptest! {
        #[test]
        fn what_is_left_is_what_serde_reads_and_as_long(parts in prop::collection::vec(prop_oneof![
            "[^\\pC\"\\\\]",
            (0..0x1_0000_u32).prop_map(|unit| format!("\\u{unit:04x}")),
            (0xd800..0xe000_u32).prop_map(|unit| format!("\\u{unit:04X}")),
            prop::sample::select(&["\\\\", "\\\"", "\\n", "u", "d83d"][..]).prop_map(str::to_owned),
        ], 0..9)) {
            let json = format!("\"{}\"", parts.concat());
            let mended = without_lone_surrogates(&json);
            prop_assert_eq!(mended.len(), json.len());
            prop_assert_eq!(&without_lone_surrogates(&mended), &mended);
            match serde_json::from_str::<String>(&json) {
                Ok(text) => prop_assert_eq!(serde_json::from_str::<String>(&mended).ok(), Some(text)),
                Err(_) => prop_assert!(serde_json::from_str::<String>(&mended).is_ok(), "{json} {mended}"),
            }
        }
    }
}
