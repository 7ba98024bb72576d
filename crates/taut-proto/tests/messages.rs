//! Whatever is text or bytes becomes a message, without a copy where the memory can be taken over or lent.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use taut_proto::testing::{Link, Seen};
use taut_proto::{Message, NotText};

/// As the parameter of every `send`.
fn message<'m>(message: impl Into<Message<'m>>) -> Message<'m> {
    message.into()
}

#[test]
fn whatever_is_text_becomes_text() {
    let text = String::from("grüße");
    let shared: Arc<str> = Arc::from("grüße");
    let list = ["grüße"];
    let (cow, other) = (Cow::Borrowed("grüße"), message("grüße"));
    let messages = [
        message("grüße"),
        message(&text),
        message(text.as_str()),
        message(text.clone()),
        message(text.clone().into_boxed_str()),
        message(Cow::Borrowed("grüße")),
        message(Cow::<'static, str>::Owned(text.clone())),
        message(&cow),
        message(&shared),
        message(Arc::clone(&shared)),
        message(list.first().unwrap()),
        message(&other),
    ];
    for (index, message) in messages.into_iter().enumerate() {
        assert!(message.is_text() && !message.is_binary(), "{index}");
        assert_eq!((message.len(), message.is_empty()), (7, false), "{index}");
        assert_eq!(message.into_text().as_deref(), Ok("grüße"), "{index}");
    }
}

#[test]
fn whatever_is_bytes_becomes_binary() {
    let bytes = vec![1, 2, 3];
    let shared: Arc<[u8]> = Arc::from([1, 2, 3]);
    let counted = Bytes::from_static(b"\x01\x02\x03");
    let list = [&bytes[..]];
    let (cow, other) = (Cow::Borrowed(&bytes[..]), message(&bytes));
    let messages = [
        message(b"\x01\x02\x03"),
        message(&bytes),
        message(&bytes[..]),
        message(bytes.clone()),
        message([1, 2, 3]),
        message([1, 2, 3].as_slice()),
        message(bytes.clone().into_boxed_slice()),
        message(Cow::Borrowed(&bytes[..])),
        message(&cow),
        message(&shared),
        message(Arc::clone(&shared)),
        message(&counted),
        message(counted.clone()),
        message(list.first().unwrap()),
        message(&other),
    ];
    for (index, message) in messages.into_iter().enumerate() {
        assert!(message.is_binary() && !message.is_text(), "{index}");
        assert_eq!(message.as_text(), None, "{index}");
        assert_eq!(Bytes::from(message.clone()), counted, "{index}");
        assert_eq!(Vec::from(message), bytes, "{index}");
    }
}

#[test]
fn what_is_given_is_taken_over_and_what_is_lent_is_not_copied() {
    let text = String::from("a text that is taken over");
    let at = text.as_ptr();
    let taken = message(text).into_text().unwrap();
    assert_eq!(taken.as_ptr(), at);
    let text = String::from("another one").into_boxed_str();
    let at = text.as_ptr();
    let taken = message(text).into_bytes();
    assert_eq!(taken.as_ptr(), at);
    let bytes = Bytes::from(vec![7; 100]);
    let at = bytes.as_ptr();
    let taken = message(bytes).into_bytes();
    assert_eq!(taken.as_ptr(), at);

    let lenders: (String, Arc<[u8]>, Bytes) = ("text".into(), Arc::from([1, 2]), Bytes::from(vec![3]));
    assert_eq!(message(&lenders.0).as_bytes().as_ptr(), lenders.0.as_ptr());
    assert_eq!(message(&lenders.1).as_bytes().as_ptr(), lenders.1.as_ptr());
    assert_eq!(message(&lenders.2).as_bytes().as_ptr(), lenders.2.as_ptr());
    let first = message(&lenders.0);
    assert_eq!(message(&first).as_bytes().as_ptr(), lenders.0.as_ptr());
}

#[test]
fn a_binary_message_is_no_text_and_the_error_keeps_its_bytes() {
    let error: NotText = message(b"text in bytes").into_text().unwrap_err();
    assert_eq!(error.to_string(), "text was expected, but the message is binary (13 bytes)");
    assert_eq!(error.into_bytes(), b"text in bytes");
}

#[test]
fn what_was_received_can_be_sent_on_without_being_given_away() {
    let mut link = Link::new();
    let received = Message::from("to all");
    for _ in 0..2 {
        assert!(link.server.send(&received));
    }
    link.settle(usize::MAX);
    assert_eq!(link.client.events, [Seen::Message(received.clone()), Seen::Message(received)]);
}
