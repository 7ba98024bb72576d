//! What a shard answers itself: a publish that only says that it is on its way, and load balancers.
//!
//! Whatever is more, or goes wrong, leaves the shard as it came, and the HTTP side answers it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use httpdate::HttpDate;
use taut_proto::handshake::Request;
use taut_shard::Responded;
use tokio::sync::watch;

use super::health::{Check, Readiness};
use super::{ApiAuth, events};
use crate::place::ShardIndex;
use crate::shard::InlineHttp;

/// Answers what a shard can answer at once.
#[derive(Debug)]
pub(crate) struct InlineResponder {
    auth: Arc<ApiAuth>,
    readiness: Arc<Readiness>,
    draining: watch::Receiver<bool>,
    shard: ShardIndex,
    /// The last answer to a publish, head and content.
    answer: Vec<u8>,
    /// Until when it says the time.
    current: SystemTime,
}

impl InlineHttp for InlineResponder {
    fn content(&self, request: &Request<'_>) -> Option<usize> {
        let publish = events::content_at_once(&self.auth, request);
        publish.or_else(|| Check::of(request, self.auth.path_prefix()).map(|_| 0))
    }

    fn answer(&mut self, request: &Request<'_>, content: &[u8], response: &mut Vec<u8>) -> Responded {
        let now = SystemTime::now();
        if let Some(check) = Check::of(request, self.auth.path_prefix()) {
            return self.answer_check(check, request, now, response);
        }
        if events::publish_at_once(&self.auth, self.shard, request, content, now).is_none() {
            return Responded::HandOver;
        }
        response.extend_from_slice(self.answer_at(now));
        Responded::Answered
    }
}

impl InlineResponder {
    /// The one of this shard.
    pub(crate) fn new(
        auth: Arc<ApiAuth>,
        readiness: Arc<Readiness>,
        draining: watch::Receiver<bool>,
        shard: ShardIndex,
    ) -> Self {
        Self { auth, readiness, draining, shard, answer: Vec::new(), current: SystemTime::UNIX_EPOCH }
    }

    fn answer_check(
        &self,
        check: Check<'_>,
        request: &Request<'_>,
        now: SystemTime,
        response: &mut Vec<u8>,
    ) -> Responded {
        let began = Instant::now();
        let result = check.result(&self.readiness, self.auth.node(), *self.draining.borrow());
        let mut options = request.header_values("connection").flat_map(|value| value.split(',')).map(str::trim);
        // RFC 9112 §9.3.
        let is_last = if request.is_http_1_1() {
            options.any(|option| option.eq_ignore_ascii_case("close"))
        } else {
            !options.any(|option| option.eq_ignore_ascii_case("keep-alive"))
        };
        let status = check.answer(request, result, is_last, now, response);
        self.auth.traffic().record(check.route(), status, began.elapsed(), "", None::<&str>);
        if is_last { Responded::Last } else { Responded::Answered }
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
