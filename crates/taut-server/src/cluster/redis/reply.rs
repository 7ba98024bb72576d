//! Reads what Redis answers. Anything unexpected is a [`Doubt`]: the engine is not what it should be.

use std::sync::Arc;

use ::redis::Value;

use super::Doubt;

/// The answer, unless it is an error.
pub(super) fn checked(value: Value) -> Result<Value, Doubt> {
    match value {
        Value::ServerError(error) if error.code() == "FENCED" => Err(Doubt::Fenced),
        Value::ServerError(error) => Err(Doubt::Engine(error.into())),
        value => Ok(value),
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, Doubt> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(Doubt::Unexpected),
    }
}

pub(super) fn text(value: Value) -> Result<String, Doubt> {
    String::from_utf8(bytes(value)?).map_err(|_| Doubt::Unexpected)
}

pub(super) fn shared(value: Value) -> Result<Arc<str>, Doubt> {
    text(value).map(Into::into)
}

pub(super) fn number(value: Value) -> Result<u64, Doubt> {
    match value {
        Value::Int(number) => u64::try_from(number).map_err(|_| Doubt::Unexpected),
        value => text(value)?.parse().map_err(|_| Doubt::Unexpected),
    }
}

pub(super) fn number_if_any(value: Value) -> Result<Option<u64>, Doubt> {
    match value {
        Value::Nil => Ok(None),
        value => number(value).map(Some),
    }
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, Doubt> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        _ => Err(Doubt::Unexpected),
    }
}

/// A list of so many.
pub(super) fn tuple<const N: usize>(value: Value) -> Result<[Value; N], Doubt> {
    list(value)?.try_into().map_err(|_| Doubt::Unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Value {
        ::redis::parse_redis_value(bytes).expect("something that Redis sends")
    }

    #[test]
    fn an_error_is_a_doubt_and_that_of_a_lease_another_one_than_that_of_redis() {
        let fenced = checked(parsed(b"-FENCED the lease of this incarnation is over\r\n"));
        assert!(matches!(fenced, Err(Doubt::Fenced)), "{fenced:?}");
        let engine = checked(parsed(b"-NOSCRIPT No matching script\r\n"));
        assert!(matches!(engine, Err(Doubt::Engine(_))), "{engine:?}");
        assert_eq!(checked(Value::Int(3)).expect("no error"), Value::Int(3));
    }

    #[test]
    fn texts_and_numbers_are_read_in_every_form_that_redis_gives_them() {
        for value in [parsed(b"$2\r\n42\r\n"), parsed(b"+42\r\n")] {
            assert_eq!(bytes(value.clone()).expect("bytes"), b"42");
            assert_eq!(text(value.clone()).expect("a text"), "42");
            assert_eq!(&*shared(value.clone()).expect("a text"), "42");
            assert_eq!(number(value).expect("a number"), 42);
        }
        assert_eq!(number(Value::Int(7)).expect("a number"), 7);
        assert_eq!(number_if_any(Value::Int(7)).expect("a number"), Some(7));
        assert_eq!(number_if_any(Value::Nil).expect("none"), None);
        for value in [parsed(b"*2\r\n:1\r\n:2\r\n"), parsed(b"~2\r\n:1\r\n:2\r\n")] {
            assert_eq!(list(value.clone()).expect("a list"), [Value::Int(1), Value::Int(2)]);
            assert_eq!(tuple(value).expect("two"), [Value::Int(1), Value::Int(2)]);
        }
    }

    #[test]
    fn what_no_script_gives_is_a_doubt() {
        let unexpected = |result: Result<(), Doubt>| assert!(matches!(result, Err(Doubt::Unexpected)), "{result:?}");
        unexpected(bytes(Value::Int(1)).map(drop));
        unexpected(text(parsed(b"$1\r\n\xff\r\n")).map(drop));
        unexpected(number(Value::Int(-1)).map(drop));
        unexpected(number(parsed(b"+many\r\n")).map(drop));
        unexpected(list(Value::Nil).map(drop));
        unexpected(tuple::<3>(parsed(b"*2\r\n:1\r\n:2\r\n")).map(drop));
    }
}
