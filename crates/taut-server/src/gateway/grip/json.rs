//! Reads fields of JSON objects from publishers and backends. The errors are sentences, in Pushpin's words.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

/// An object's fields. A field that is `null` counts as missing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'v> {
    /// The object's name in errors.
    what: &'static str,
    map: &'v Map<String, Value>,
}

/// The bytes of a field such as `content`, or of its base64 form `content-bin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// It was base64.
    pub(crate) is_binary: bool,
}

impl<'v> Fields<'v> {
    pub(crate) fn of(what: &'static str, value: &'v Value) -> Result<Self, String> {
        let map = value.as_object().ok_or_else(|| format!("{what} is not an object"))?;
        Ok(Self { what, map })
    }

    pub(crate) fn value(&self, name: &str) -> Option<&'v Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<&'v str>, String> {
        self.value(name).map(|value| value.as_str().ok_or_else(|| self.wrong_type(name))).transpose()
    }

    pub(crate) fn required_text(&self, name: &str) -> Result<&'v str, String> {
        match self.text(name)? {
            None => Err(self.missing(name)),
            Some("") => Err(self.invalid(name)),
            Some(text) => Ok(text),
        }
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<&'v [Value]>, String> {
        let list = |value: &'v Value| value.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong_type(name));
        self.value(name).map(list).transpose()
    }

    /// A list of texts; empty if it is missing.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<&'v str>, String> {
        let texts = self.list(name)?.unwrap_or_default().iter();
        texts.map(|text| text.as_str().ok_or_else(|| format!("{name} contains value with wrong type"))).collect()
    }

    pub(crate) fn flag(&self, name: &str) -> Result<bool, String> {
        self.value(name).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| self.wrong_type(name)))
    }

    /// A whole number. Strings are read as numbers and fractions are cut off, as in Pushpin.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, String> {
        let integer = |value: &Value| match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_f64().map(|number| number as i64)),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.value(name).map(|value| integer(value).ok_or_else(|| self.wrong_type(name))).transpose()
    }

    /// Seconds, saturating.
    pub(crate) fn seconds(&self, name: &str) -> Result<Option<u32>, String> {
        let seconds = |number: i64| {
            if number < 0 { Err(self.invalid(name)) } else { Ok(u32::try_from(number).unwrap_or(u32::MAX)) }
        };
        self.integer(name)?.map(seconds).transpose()
    }

    /// An object whose values are texts, in the order of their names; empty if it is missing.
    pub(crate) fn dictionary(&self, name: &str) -> Result<Vec<(String, String)>, String> {
        let Some(value) = self.value(name) else { return Ok(Vec::new()) };
        let map = value.as_object().ok_or_else(|| self.wrong_type(name))?;
        let text = |(key, value): (&String, &Value)| match value.as_str() {
            Some(value) => Ok((key.clone(), value.to_owned())),
            None => Err(format!("'{name}' contains '{key}' with wrong type")),
        };
        map.iter().map(text).collect()
    }

    /// A dictionary or a list of pairs, for HTTP headers.
    pub(crate) fn pairs(&self, name: &str) -> Result<Vec<(String, String)>, String> {
        if !self.value(name).is_some_and(Value::is_array) {
            return self.dictionary(name);
        }
        let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
            Some([Value::String(key), Value::String(value)]) => Ok((key.clone(), value.clone())),
            _ => Err(format!("{name} contains element with wrong type")),
        };
        self.list(name)?.unwrap_or_default().iter().map(pair).collect()
    }

    /// The bytes of a text field `NAME`, or of a base64 field `NAME-bin`, which wins.
    pub(crate) fn content(&self, name: &str) -> Result<Option<Content>, String> {
        let base64 = format!("{name}-bin");
        if let Some(text) = self.text(&base64)? {
            let bytes = decode_base64(text).ok_or_else(|| self.invalid(&base64))?;
            return Ok(Some(Content { bytes, is_binary: true }));
        }
        Ok(self.text(name)?.map(|text| Content { bytes: text.as_bytes().to_vec(), is_binary: false }))
    }

    pub(crate) fn missing(&self, name: &str) -> String {
        format!("{} does not contain '{name}'", self.what)
    }

    pub(crate) fn wrong_type(&self, name: &str) -> String {
        format!("{} contains '{name}' with wrong type", self.what)
    }

    pub(crate) fn invalid(&self, name: &str) -> String {
        format!("{} contains '{name}' with invalid value", self.what)
    }

    pub(crate) fn unknown(&self, name: &str) -> String {
        format!("{} contains '{name}' with unknown value", self.what)
    }
}

/// Reads base64, with or without padding.
pub(crate) fn decode_base64(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_come_in_three_forms() {
        let object = json!({ "a": 5, "b": 5.9, "c": "5", "d": "x", "e": -1, "f": 1e300, "g": null });
        let fields = Fields::of("object", &object).expect("an object");
        assert_eq!(["a", "b", "c"].map(|name| fields.seconds(name)), [Ok(Some(5)), Ok(Some(5)), Ok(Some(5))]);
        assert_eq!(fields.seconds("d"), Err("object contains 'd' with wrong type".into()));
        assert_eq!(fields.seconds("e"), Err("object contains 'e' with invalid value".into()));
        assert_eq!(fields.seconds("f"), Ok(Some(u32::MAX)));
        assert_eq!(fields.seconds("g"), Ok(None));
        assert_eq!(fields.seconds("h"), Ok(None));
    }

    #[test]
    fn base64_needs_no_padding_and_takes_nothing_else() {
        assert_eq!(decode_base64("//4="), Some(vec![0xff, 0xfe]));
        assert_eq!(decode_base64("//4"), Some(vec![0xff, 0xfe]));
        assert_eq!(decode_base64("AP+A"), Some(vec![0x00, 0xff, 0x80]));
        assert_eq!(decode_base64("A P"), None);
    }
}

/// JSON that looks like what the readers want, for their tests: random bytes would never get past the first brace.
#[cfg(test)]
pub(crate) mod arbitrary {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    /// Objects and lists with these words as names and texts.
    pub(crate) fn any_json(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
        let word = move || prop::sample::select(words);
        let leaf = prop_oneof![
            3 => word().prop_map(Value::from),
            1 => any::<i64>().prop_map(Value::from),
            1 => any::<String>().prop_map(Value::from),
            1 => prop::sample::select(vec![json!(null), json!(true), json!(1e300), json!("QQ=="), json!(4000)]),
        ];
        leaf.prop_recursive(5, 32, 6, move |inner| {
            let entries = prop::collection::vec((word(), inner.clone()), 0..8);
            let object = |entries: Vec<(&str, Value)>| {
                Value::Object(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
            };
            prop_oneof![3 => entries.prop_map(object), 1 => prop::collection::vec(inner, 0..4).prop_map(Value::Array)]
        })
    }
}
