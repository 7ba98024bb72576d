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
