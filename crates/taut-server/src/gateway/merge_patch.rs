//! JSON merge patch (RFC 7396) for the `meta` of a connection, within bounds.

use std::{fmt, io};

use serde_json::{Map, Value};

/// How much `meta` one connection may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of its JSON text, braces included.
    pub(crate) bytes: usize,
    /// Objects and lists within each other, the outermost included.
    pub(crate) depth: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 4 << 10, depth: 16 }
    }
}

/// The result would be too large. The patch was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutOfBounds {
    Bytes(usize),
    Depth(usize),
}

/// Applies a patch, all of it or nothing.
pub(crate) fn apply(
    target: &mut Map<String, Value>,
    patch: Map<String, Value>,
    bounds: &Bounds,
) -> Result<(), OutOfBounds> {
    let mut merged = target.clone();
    merge(&mut merged, patch);
    if merged.values().any(|value| is_deeper(value, bounds.depth.saturating_sub(1))) {
        return Err(OutOfBounds::Depth(bounds.depth));
    }
    if is_longer(&merged, bounds.bytes) {
        return Err(OutOfBounds::Bytes(bounds.bytes));
    }
    *target = merged;
    Ok(())
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(&name);
            }
            Value::Object(patch) => {
                // A patch of a missing field is merged, too: its nulls must not stay.
                let kept = target.entry(name).or_insert(Value::Null);
                if !kept.is_object() {
                    *kept = Value::Object(Map::new());
                }
                if let Value::Object(kept) = kept {
                    merge(kept, patch);
                }
            }
            value => {
                target.insert(name, value);
            }
        }
    }
}

fn is_deeper(value: &Value, depth: usize) -> bool {
    let mut within: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => return false,
    };
    depth == 0 || within.any(|value| is_deeper(value, depth - 1))
}

fn is_longer(object: &Map<String, Value>, bytes: usize) -> bool {
    serde_json::to_writer(Remaining(bytes), object).is_err()
}

/// Counts bytes down to zero, then fails.
struct Remaining(usize);

impl io::Write for Remaining {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(formatter, "meta would have more than {bytes} bytes of JSON"),
            Self::Depth(depth) => write!(formatter, "meta would be nested more than {depth} levels deep"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const WIDE: Bounds = Bounds { bytes: 1 << 20, depth: 64 };

    fn object(value: Value) -> Map<String, Value> {
        if let Value::Object(fields) = value { fields } else { panic!("{value}") }
    }

    fn applied(target: Value, patch: Value, bounds: &Bounds) -> (Result<(), OutOfBounds>, Value) {
        let mut target = object(target);
        let outcome = apply(&mut target, object(patch), bounds);
        (outcome, Value::Object(target))
    }

    #[test]
    fn the_examples_of_the_rfc_that_are_objects_come_out() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
            (json!({"a":1}), json!({"a":{"b":[null]}}), json!({"a":{"b":[null]}})),
        ] {
            assert_eq!(applied(target, patch, &WIDE), (Ok(()), result));
        }
    }

    #[test]
    fn what_would_be_too_much_changes_nothing() {
        let before = json!({"a":"x"});
        let bounds = Bounds { bytes: 17, depth: 2 };
        for (patch, outcome, after) in [
            (json!({"b":"x"}), Ok(()), json!({"a":"x","b":"x"})),
            (json!({"b":"xx"}), Err(OutOfBounds::Bytes(17)), before.clone()),
            (json!({"a":null,"b":"123456789"}), Ok(()), json!({"b":"123456789"})),
            (json!({"a":[]}), Ok(()), json!({"a":[]})),
            (json!({"a":[1]}), Ok(()), json!({"a":[1]})),
            (json!({"a":[[]]}), Err(OutOfBounds::Depth(2)), before.clone()),
            (json!({"a":{"b":{}}}), Err(OutOfBounds::Depth(2)), before.clone()),
            (json!({"a":null,"b":[{}]}), Err(OutOfBounds::Depth(2)), before.clone()),
        ] {
            assert_eq!(applied(before.clone(), patch.clone(), &bounds), (outcome, after), "{patch}");
        }
        assert_eq!(OutOfBounds::Bytes(17).to_string(), "meta would have more than 17 bytes of JSON");
        assert_eq!(OutOfBounds::Depth(2).to_string(), "meta would be nested more than 2 levels deep");
    }

    #[test]
    fn by_default_a_connection_keeps_4_kib_in_16_levels() {
        let text = |length| json!({"a": "x".repeat(length)});
        let bounds = Bounds::default();
        assert_eq!(applied(json!({}), text(4096 - 8), &bounds).0, Ok(()));
        assert_eq!(applied(json!({}), text(4096 - 7), &bounds).0, Err(OutOfBounds::Bytes(4096)));
        let nested = |levels| (1..levels).fold(json!({}), |within, _| json!({ "a": within }));
        assert_eq!(applied(json!({}), nested(16), &bounds).0, Ok(()));
        assert_eq!(applied(json!({}), nested(17), &bounds).0, Err(OutOfBounds::Depth(16)));
    }

    #[test]
    fn counting_needs_no_flush() {
        use io::Write as _;
        let mut left = Remaining(3);
        assert!(left.write(b"ab").is_ok_and(|written| written == 2) && left.flush().is_ok() && left.0 == 1);
        assert!(left.write(b"ab").is_err());
    }

    /// The RFC's pseudocode as it stands.
    fn model(target: &Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = target.as_object().cloned().unwrap_or_default();
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let merged = model(target.get(name).unwrap_or(&Value::Null), value);
                target.insert(name.clone(), merged);
            }
        }
        Value::Object(target)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\"é\n]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |within| {
            prop_oneof![
                prop::collection::vec(within.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map("[a-c]", within, 0..4).prop_map(|fields| fields.into_iter().collect()),
            ]
        })
    }

    fn any_object() -> impl Strategy<Value = Value> {
        prop::collection::hash_map("[a-c]", value(), 0..4).prop_map(|fields| fields.into_iter().collect())
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn a_patch_does_what_the_rfc_says_or_nothing(
            target in any_object(), patch in any_object(), bytes in 2usize..80, limit in 1usize..6,
        ) {
            let expected = model(&target, &patch);
            prop_assert_eq!(applied(target.clone(), patch.clone(), &WIDE), (Ok(()), expected.clone()));
            let bounds = Bounds { bytes, depth: limit };
            let (outcome, after) = applied(target.clone(), patch, &bounds);
            let fits = expected.to_string().len() <= bytes && depth(&expected) <= limit;
            prop_assert_eq!(outcome.is_ok(), fits);
            prop_assert_eq!(after, if fits { expected } else { target });
        }
    }
}
