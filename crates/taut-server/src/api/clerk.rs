//! What a shard answers to backends itself: a publish that only says that it is on its way.
//!
//! Whatever is more, or goes wrong, leaves the shard as it came, and the HTTP side answers it.

use std::io::Write as _;
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
    /// The time of the last answer, as RFC 9110 §5.6.7 writes it.
    date: String,
    /// Until when that is the time.
    current: SystemTime,
}

impl Clerk for PublishClerk {
    fn content(&self, request: &Request<'_>) -> Option<usize> {
        events::content_at_once(&self.backends, request)
    }

    fn answer(&mut self, request: &Request<'_>, content: &[u8], response: &mut Vec<u8>) -> Option<()> {
        let body = events::publish_at_once(&self.backends, self.shard, request, content)?;
        let date = self.date();
        // A `Vec` takes all that is written.
        let _ = write!(
            response,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\ndate: {date}\r\n\r\n{body}",
            body.len(),
        );
        Some(())
    }
}

impl PublishClerk {
    /// The one of this shard.
    pub(crate) fn new(backends: Arc<Backends>, shard: usize) -> Self {
        Self { backends, shard, date: String::new(), current: SystemTime::UNIX_EPOCH }
    }

    /// RFC 9110 §6.6.1: an answer says when it was made.
    fn date(&mut self) -> &str {
        let now = SystemTime::now();
        // A clock that was set back counts as well.
        if now >= self.current || now + Duration::from_secs(1) < self.current {
            let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
            self.current = SystemTime::UNIX_EPOCH + Duration::from_secs(second + 1);
            self.date = HttpDate::from(now).to_string();
        }
        &self.date
    }
}
