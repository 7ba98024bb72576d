//! Reads the JSON of a backend one level at a time, so that an error can name the field and data is passed on as it
//! was written.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A value with what is within still unread.
pub(super) enum Json<'a> {
    Null,
    Text(Box<str>),
    /// As it was written.
    Number(&'a str),
    List(Vec<&'a RawValue>),
    Object(Object<'a>),
    Bool,
}

/// Names and values in their order, and a name perhaps twice.
pub(super) struct Object<'a>(pub(super) Vec<(String, &'a RawValue)>);

/// A name is there twice.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Twice;

impl<'a> Json<'a> {
    /// The value has passed [`check()`].
    pub(super) fn of(raw: &'a RawValue) -> Self {
        let text = raw.get();
        let read = match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str(text).map(Self::Text),
            Some(b'[') => serde_json::from_str(text).map(Self::List),
            Some(b'{') => serde_json::from_str(text).map(Self::Object),
            Some(b'n') => Ok(Self::Null),
            Some(b't' | b'f') => Ok(Self::Bool),
            _ => Ok(Self::Number(text)),
        };
        // It cannot fail after the check; and no field takes a bool.
        read.unwrap_or(Self::Bool)
    }
}

impl<'a> Object<'a> {
    pub(super) fn take(&mut self, name: &str) -> Result<Option<&'a RawValue>, Twice> {
        let mut found = None;
        let before = self.0.len();
        self.0.retain(|(known, value)| {
            let is_other = known != name;
            if !is_other {
                found = Some(*value);
            }
            is_other
        });
        if before - self.0.len() > 1 { Err(Twice) } else { Ok(found) }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(Object)
    }
}

/// Checks that all of it is JSON in UTF-8, not nested too deep, with numbers in the range of a double and without
/// lone surrogates.
pub(super) fn check(json: &[u8], depth: usize) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Check { remaining: depth, depth }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Without the space between the tokens of valid JSON.
pub(super) fn compact(json: &str) -> Box<str> {
    let (mut is_text, mut is_escaped) = (false, false);
    let is_kept = |character: &char| {
        match character {
            '"' if !is_escaped => is_text = !is_text,
            ' ' | '\t' | '\n' | '\r' if !is_text => return false,
            _ => {}
        }
        is_escaped = *character == '\\' && !is_escaped;
        true
    };
    json.chars().filter(is_kept).collect()
}

/// A number without fraction and exponent.
pub(super) fn integer(number: &str) -> Option<i128> {
    number.parse().ok()
}

#[derive(Clone, Copy)]
struct Check {
    remaining: usize,
    depth: usize,
}

impl Check {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let too_deep = || E::custom(format_args!("nested more than {} levels deep", self.depth));
        Ok(Self { remaining: self.remaining.checked_sub(1).ok_or_else(too_deep)?, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Check {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let within = self.deeper()?;
        while list.next_element_seed(within)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let within = self.deeper()?;
        while map.next_key::<Cow<'_, str>>()?.is_some() {
            map.next_value_seed(within)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn only_space_between_tokens_goes() {
        for (json, expected) in [
            ("{ \"a b\" :\t[ 1.0 ,\r\n 1e2 ] }", r#"{"a b":[1.0,1e2]}"#),
            (r#"[ "a\" b" , "\\" , " \\\" " ]"#, r#"["a\" b","\\"," \\\" "]"#),
            (" 12345678901234567890123 ", "12345678901234567890123"),
            ("\"é\u{2028} \"", "\"é\u{2028} \""),
        ] {
            assert_eq!(&*compact(json), expected);
        }
    }

    #[test]
    fn a_field_is_taken_once() {
        let mut object: Object<'_> = serde_json::from_str(r#"{"a":1,"b":2,"a":3,"c":null}"#).expect("an object");
        assert_eq!(object.take("b").map(|value| value.map(RawValue::get)), Ok(Some("2")));
        assert!(object.take("b").is_ok_and(|value| value.is_none()));
        assert_eq!(object.take("a").err(), Some(Twice));
        assert_eq!(object.take("c").map(|value| value.map(RawValue::get)), Ok(Some("null")));
        assert!(object.0.is_empty());
    }

    #[test]
    fn depth_counts_lists_and_objects() {
        for (json, depth) in [("1", 0), ("[]", 1), ("{}", 1), (r#"{"a":[1]}"#, 2), (r#"[[],{"a":{"b":[]}}]"#, 4)] {
            assert!(check(json.as_bytes(), depth).is_ok(), "{json}");
            assert_eq!(check(json.as_bytes(), depth.wrapping_sub(1)).is_ok(), depth == 0, "{json}");
        }
        let error = check(b"[[1]]", 1).expect_err("too deep").to_string();
        assert_eq!(error, "nested more than 1 levels deep at line 1 column 2");
    }

    #[test]
    fn whole_numbers_are_those_without_fraction_and_exponent() {
        let largest = i128::from(u64::MAX);
        for (number, integer_of) in
            [("0", Some(0)), ("-0", Some(0)), ("-7", Some(-7)), ("18446744073709551615", Some(largest))]
        {
            assert_eq!(integer(number), integer_of);
        }
        for number in ["1.0", "1e2", "-", "", "9999999999999999999999999999999999999999"] {
            assert_eq!(integer(number), None, "{number}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |within| {
            prop_oneof![
                prop::collection::vec(within.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), within, 0..4).prop_map(|fields| json!(fields)),
            ]
        })
    }

    proptest! {
        #[test]
        fn compact_text_is_what_a_compact_writer_writes(value in value()) {
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            prop_assert_eq!(&*compact(&pretty), &*value.to_string());
            prop_assert!(check(pretty.as_bytes(), 32).is_ok());
        }

        #[test]
        fn what_passes_the_check_is_what_a_parser_takes(text in r#"[\[\]{}",:0-9eE.\\untrfals -]{0,12}"#, bytes: Vec<u8>) {
            for json in [text.as_bytes(), &bytes] {
                prop_assert_eq!(check(json, 32).is_ok(), serde_json::from_slice::<Value>(json).is_ok());
            }
        }
    }
}
