//! What a shard answers to backends itself: a publish that only says that it is on its way.
//!
//! Whatever is more, or goes wrong, leaves the shard as it came, and the HTTP side answers it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use taut_proto::handshake::Request;

use super::{Backends, events};
use crate::session::Clerk;

/// Answers a shard's share of publishes.
#[derive(Debug)]
pub(crate) struct PublishClerk {
    backends: Arc<Backends>,
    shard: usize,
    /// The last answer, head and content.
    answer: Vec<u8>,
    /// Until when it says the time.
    current: SystemTime,
}

impl Clerk for PublishClerk {
    fn content(&self, request: &Request<'_>) -> Option<usize> {
        events::content_at_once(&self.backends, request)
    }

    fn answer(&mut self, request: &Request<'_>, content: &[u8], response: &mut Vec<u8>) -> Option<()> {
        let now = SystemTime::now();
        events::publish_at_once(&self.backends, self.shard, request, content, now)?;
        response.extend_from_slice(self.answer_at(now));
        Some(())
    }
}

impl PublishClerk {
    /// The one of this shard.
    pub(crate) fn new(backends: Arc<Backends>, shard: usize) -> Self {
        Self { backends, shard, answer: Vec::new(), current: SystemTime::UNIX_EPOCH }
    }

    /// RFC 9110 §6.6.1: an answer says when it was made. All else is the same in all of them.
    fn answer_at(&mut self, now: SystemTime) -> &[u8] {
        // A clock that was set back counts as well.
        if now >= self.current || now + Duration::from_secs(1) < self.current {
            let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            self.current = SystemTime::UNIX_EPOCH + Duration::from_secs(second + 1);
            let date = HttpDate::from(now);
            self.answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\ndate: {date}\r\n\r\n{{}}"
            )
            .into_bytes();
        }
        &self.answer
    }
}
