//! Streams of a route: responses without an end, for clients that only listen.
//!
//! The HTTP side begins one and opens a connection of a shard for it. To the shard that is a connection like any other,
//! whose messages are pieces of the response. The request itself waits here under a name that only the HTTP side knows,
//! so that no client from outside can pass for one; and the shard tells here how the response begins.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taut_proto::handshake::{Refusal, Request};
use tokio::sync::oneshot;

use super::event::Response;

/// The streams that no shard has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<Box<str>, Begun>>);

/// A stream, for the shard that takes it.
#[derive(Debug)]
pub(crate) struct Begun {
    /// The head of the client's request.
    pub(crate) head: Box<[u8]>,
    pub(crate) teller: Teller,
}

/// Tells the HTTP side how the response of a stream begins.
#[derive(Debug)]
pub(crate) struct Teller(oneshot::Sender<Beginning>);

impl Teller {
    pub(crate) fn tell(self, beginning: Beginning) {
        // The client may have gone by now.
        let _ = self.0.send(beginning);
    }
}

/// How a response begins.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// What follows comes by the connection.
    Stream(Response),
    /// Nothing follows.
    Complete(Response),
    Refused(Refusal),
}

/// A stream that waits for a shard until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    streams: Arc<Streams>,
    name: Box<str>,
    told: oneshot::Receiver<Beginning>,
}

impl Streams {
    /// A stream for the client whose request has this head; `None` if the system has no random name for it.
    pub(crate) fn begin(self: &Arc<Self>, head: Box<[u8]>) -> Option<Waiting> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let name: Box<str> = random
            .iter()
            .fold(String::new(), |mut name, byte| {
                let _ = write!(name, "{byte:02x}");
                name
            })
            .into();
        let (tell, told) = oneshot::channel();
        self.waiting().insert(name.clone(), Begun { head, teller: Teller(tell) });
        Some(Waiting { streams: Arc::clone(self), name, told })
    }

    /// The stream that a handshake is for, once.
    pub(crate) fn take(&self, handshake: &Request<'_>) -> Option<Begun> {
        let name = handshake.header(HEADER)?;
        self.waiting().remove(name)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Box<str>, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// What the handshake says in the header [`HEADER`].
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What the shard has told, if it has.
    pub(crate) fn beginning(&mut self) -> Option<Beginning> {
        self.told.try_recv().ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.streams.waiting().remove(&self.name);
    }
}

/// The header of a handshake that names a stream.
pub(crate) const HEADER: &str = "Taut-Stream";

#[cfg(test)]
mod tests {
    use taut_proto::handshake::{HeadLimits, HeadScan};

    use super::*;

    fn take(streams: &Streams, name: &str) -> Option<Begun> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\ntaut-stream: {name}\r\n\r\n");
        let mut scan = HeadScan::new();
        scan.find(head.as_bytes(), &HeadLimits::default()).expect("a head").expect("a whole one");
        streams.take(&Request::parse_found(head.as_bytes(), &scan).expect("a request"))
    }

    #[test]
    fn a_stream_is_taken_once_by_the_name_that_only_its_server_knows() {
        let streams = Arc::new(Streams::default());
        let mut first = streams.begin(b"1".as_slice().into()).expect("a name");
        let second = streams.begin(b"2".as_slice().into()).expect("a name");
        assert_ne!(first.name(), second.name());
        assert_eq!(first.name().len(), 32);
        assert!(take(&streams, "").is_none() && take(&streams, &first.name()[1..]).is_none());
        let begun = take(&streams, first.name()).expect("it waits");
        assert_eq!(&*begun.head, b"1");
        assert!(take(&streams, first.name()).is_none(), "it has been taken");
        assert!(first.beginning().is_none());
        begun.teller.tell(Beginning::Refused(Refusal::forbidden("no")));
        assert!(matches!(first.beginning(), Some(Beginning::Refused(refusal)) if refusal.status() == 403));
        let name = second.name().to_owned();
        drop(second);
        assert!(take(&streams, &name).is_none(), "nobody waits for it");
        assert!(streams.waiting().is_empty());
    }
}
