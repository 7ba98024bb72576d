//! What a published event carries.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::without_lone_surrogates;
use crate::json::write_json_string;

/// What a published event carries: a text, which need not be JSON and is delivered unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a>(Form<'a>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form<'a> {
    Text(Cow<'a, str>),
    /// The JSON string that stands for it, as somebody else wrote it.
    Written(&'a str),
}

impl<'a> Payload<'a> {
    /// What a publisher means who sends this: the text of a string, or the JSON text of anything else. Half of a
    /// surrogate pair is delivered as U+FFFD.
    pub fn of(value: &'a RawValue) -> Self {
        let json = value.get();
        if !has_numbered_escape(json) {
            // All else was checked when the value was read: it is a good string wherever it stands.
            return Self(if json.starts_with('"') { Form::Written(json) } else { Form::Text(json.into()) });
        }
        let json = without_lone_surrogates(json);
        // Everything that could be wrong with a string is mended, so this fails for other values alone.
        Self(Form::Text(serde_json::from_str(&json).map_or(json, Cow::<str>::Owned)))
    }

    /// What [`write`](Self::write) has written.
    pub fn written(json: &'a str) -> Self {
        Self(Form::Written(json))
    }

    /// The text.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Text(text) => text.as_ref().into(),
            Form::Written(json) => serde_json::from_str(json).map_or_else(|_| Cow::Borrowed(""), Cow::Owned),
        }
    }

    /// Whether the text has more bytes.
    pub fn is_longer_than(&self, most: usize) -> bool {
        match &self.0 {
            Form::Text(text) => text.len() > most,
            // An escape is longer than what it stands for.
            Form::Written(json) => json.len() - QUOTES > most && self.text().len() > most,
        }
    }

    /// Bytes that it takes in a message, or somewhat less.
    pub fn written_size(&self) -> usize {
        match &self.0 {
            Form::Text(text) => text.len() + text.len() / 4 + QUOTES,
            Form::Written(json) => json.len(),
        }
    }

    /// Appends it as a JSON string.
    pub fn write(&self, out: &mut String) {
        match &self.0 {
            Form::Text(text) => write_json_string(out, text),
            Form::Written(json) => out.push_str(json),
        }
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self(Form::Text(text.into()))
    }
}

/// Whether a JSON string has an escape of the form `\u0000`.
fn has_numbered_escape(json: &str) -> bool {
    // Most hold nothing that looks so; in what does, the backslash may be the second half of another escape.
    if !json.contains("\\u") {
        return false;
    }
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && bytes.next() == Some(b'u') {
            return true;
        }
    }
    false
}

/// Bytes of the two quotes of a string.
const QUOTES: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is sent of a payload that came so, and its text.
    fn passed_on(json: &str) -> Result<(String, String), String> {
        let value: &RawValue = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let payload = Payload::of(value);
        let mut sent = String::new();
        payload.write(&mut sent);
        Ok((sent, payload.text().into_owned()))
    }

    #[test]
    fn a_string_of_a_publisher_is_passed_on_as_it_was_written() {
        for (json, text) in [
            (r#""""#, ""),
            (r#""text""#, "text"),
            (r#""{\"a\":\"b\"}""#, r#"{"a":"b"}"#),
            (r#""\" \\ \/ \b \f \n \r \t""#, "\" \\ / \u{8} \u{c} \n \r \t"),
            (r#""\\u00e9 \\\\u""#, r"\u00e9 \\u"),
            ("\"é\u{2028}\u{7f}😀\"", "é\u{2028}\u{7f}😀"),
        ] {
            assert_eq!(passed_on(json), Ok((json.to_owned(), text.to_owned())), "{json}");
        }
    }

    #[test]
    fn escapes_by_number_are_resolved_and_half_a_pair_is_the_replacement_character() {
        for (json, sent, text) in [
            (r#""caf\u00e9""#, r#""café""#, "café"),
            (r#""\ud83d\ude00""#, r#""😀""#, "😀"),
            (r#""\\\u0041""#, r#""\\A""#, "\\A"),
            (r#""\u0000\u0022\u005c\n""#, r#""\u0000\"\\\n""#, "\0\"\\\n"),
            (r#""Great \ud83d""#, "\"Great \u{fffd}\"", "Great \u{fffd}"),
            (r#""\ude00\ud83d""#, "\"\u{fffd}\u{fffd}\"", "\u{fffd}\u{fffd}"),
            (r#""\ud83d \ude00""#, "\"\u{fffd} \u{fffd}\"", "\u{fffd} \u{fffd}"),
            (r#""\ud83d\u0041""#, "\"\u{fffd}A\"", "\u{fffd}A"),
        ] {
            assert_eq!(passed_on(json), Ok((sent.to_owned(), text.to_owned())), "{json}");
        }
    }

    #[test]
    fn anything_else_of_a_publisher_is_passed_on_as_its_json_text() {
        for (json, sent) in
            [("7", r#""7""#), ("null", r#""null""#), (r#"{"a": "\u0041\n"}"#, r#""{\"a\": \"\\u0041\\n\"}""#)]
        {
            assert_eq!(passed_on(json), Ok((sent.to_owned(), json.to_owned())), "{json}");
        }
        let (sent, text) = passed_on(r#"["\ud83d"]"#).expect("JSON");
        assert_eq!((sent.as_str(), text.as_str()), (r#""[\"\\ufffd\"]""#, r#"["\ufffd"]"#));
    }

    #[test]
    fn the_size_of_a_payload_is_that_of_its_text() {
        let is_longer = |json: &str, most| Payload::of(serde_json::from_str(json).expect("JSON")).is_longer_than(most);
        for (json, size) in
            [(r#""""#, 0), (r#""é""#, 2), (r#""\n\"\\""#, 3), (r#""\u00e9""#, 2), ("null", 4), (r#"["\n"]"#, 6)]
        {
            assert!(!is_longer(json, size), "{json}");
            assert!(size == 0 || is_longer(json, size - 1), "{json}");
        }
    }

    /// What may, or may not, stand within a JSON string.
    fn json_string_part() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<char>().prop_map(String::from),
            prop::sample::select(
                &["\\", "\"", "\\\"", "\\\\", "\\u", "\\n", "\\/", "\\x", "\\ud83d", "\\ude00", "\n"][..]
            )
            .prop_map(str::to_owned),
            (0..0x1_0000_u32).prop_map(|unit| format!("\\u{unit:04x}")),
        ]
    }

    proptest! {
        #[test]
        fn what_a_publisher_wrote_reads_back_as_what_serde_reads(parts in prop::collection::vec(json_string_part(), 0..9)) {
            let json = format!("\"{}\"", parts.concat());
            // All that serde refuses beside what is no JSON at all is half of a pair.
            let read = serde_json::from_str::<String>(&json).or_else(|_| serde_json::from_str(&without_lone_surrogates(&json)));
            let passed_on = passed_on(&json).ok();
            prop_assert_eq!(passed_on.as_ref().map(|(_, text)| text), read.as_ref().ok());
            if let Some((sent, text)) = passed_on {
                prop_assert_eq!(serde_json::from_str::<String>(&sent).expect("JSON"), text);
            }
        }
    }
}
