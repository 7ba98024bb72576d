//! What a message is made of, and what it is taken apart into.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::Message;

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Message<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Message<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Text(text)
    }
}

impl From<Box<str>> for Message<'_> {
    fn from(text: Box<str>) -> Self {
        Self::Text(Cow::Owned(text.into_string()))
    }
}

/// Copies the text, which others may hold as well. A reference to the `Arc` lends it instead.
impl From<Arc<str>> for Message<'_> {
    fn from(text: Arc<str>) -> Self {
        Self::Text(Cow::Owned(String::from(&*text)))
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(Cow::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Binary(Cow::Borrowed(bytes))
    }
}

impl<const N: usize> From<[u8; N]> for Message<'_> {
    fn from(bytes: [u8; N]) -> Self {
        Self::Binary(Cow::Owned(bytes.into()))
    }
}

impl From<Vec<u8>> for Message<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(Cow::Owned(bytes))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Message<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Box<[u8]>> for Message<'_> {
    fn from(bytes: Box<[u8]>) -> Self {
        Self::Binary(Cow::Owned(bytes.into_vec()))
    }
}

/// Copies the bytes, which others may hold as well. A reference to the `Arc` lends them instead.
impl From<Arc<[u8]>> for Message<'_> {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Binary(Cow::Owned(bytes.to_vec()))
    }
}

/// Takes the memory over if nobody else holds it, else copies the bytes. A reference to the `Bytes` lends them instead.
#[cfg(feature = "bytes")]
impl From<bytes::Bytes> for Message<'_> {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::Binary(Cow::Owned(bytes.into()))
    }
}

/// Lends the payload of another message, which can be sent again.
impl<'a> From<&'a Message<'_>> for Message<'a> {
    fn from(message: &'a Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(Cow::Borrowed(text)),
            Message::Binary(bytes) => Self::Binary(Cow::Borrowed(bytes)),
        }
    }
}

/// References to owners of text or bytes lend them.
macro_rules! lend {
    ($($owner:ty => $kind:ident),+ $(,)?) => {
        $(impl<'a> From<&'a $owner> for Message<'a> {
            fn from(owner: &'a $owner) -> Self {
                Self::$kind(Cow::Borrowed(&**owner))
            }
        })+
    };
}

lend! {
    &str => Text,
    String => Text,
    Cow<'_, str> => Text,
    Box<str> => Text,
    Arc<str> => Text,
    &[u8] => Binary,
    Vec<u8> => Binary,
    Cow<'_, [u8]> => Binary,
    Box<[u8]> => Binary,
    Arc<[u8]> => Binary,
}

#[cfg(feature = "bytes")]
lend!(bytes::Bytes => Binary);

/// The payload, whichever kind it is; copied if it is lent.
impl From<Message<'_>> for Vec<u8> {
    fn from(message: Message<'_>) -> Self {
        message.into_bytes()
    }
}

/// The payload, whichever kind it is; copied if it is lent.
#[cfg(feature = "bytes")]
impl From<Message<'_>> for bytes::Bytes {
    fn from(message: Message<'_>) -> Self {
        message.into_bytes().into()
    }
}

/// A binary message where text was expected: see [`Message::into_text`]. It has the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotText(pub(super) Vec<u8>);

impl NotText {
    /// The message's bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text was expected, but the message is binary ({} bytes)", self.0.len())
    }
}

impl std::error::Error for NotText {}
