//! HTTP/1.1 on a connection that is not a WebSocket, or not yet: bytes in, steps out (RFC 9112).

use taut_proto::handshake::{HeadLimits, HeadScan, Refusal, Request};

/// The requests of one connection, one after the other. It has no socket and no clock, and it decides nothing: whoever
/// drives it says what a request is answered.
///
/// A request's head costs one pass however it is cut, and how it is cut changes nothing. Between two requests the
/// exchange holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// What has come: from the first byte of the current request on, or after an upgrade what follows it.
    bytes: Vec<u8>,
    scan: HeadScan,
    progress: Progress,
    /// It is not the first request of its connection.
    follows: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    /// The head is not whole.
    #[default]
    Head,
    /// So many bytes of content belong to the head.
    Body { content: usize },
    /// The request was an upgrade: what comes belongs to the next protocol.
    Upgraded,
}

/// What an exchange has come to.
pub(crate) enum Step<'e> {
    /// More has to come.
    NeedMore,
    /// The head of a request is here, and behind it this has come.
    Head { request: Request<'e>, behind: &'e [u8] },
    /// The content that was [awaited](Exchange::await_content) is here too.
    Whole { request: Request<'e>, content: &'e [u8] },
    /// It is not HTTP/1.1, or not within the limits.
    Refuse(Refusal),
}

impl Exchange {
    /// An exchange on a connection that has had an answer already.
    pub(crate) fn resumed() -> Self {
        Self { follows: true, ..Self::default() }
    }

    /// Whether nothing has come of a request.
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a head is here whose content is not.
    pub(crate) fn is_awaiting_content(&self) -> bool {
        matches!(self.progress, Progress::Body { .. })
    }

    /// How many bytes may still come before a step is taken: a head and its content are all that anybody may make the
    /// server hold. After an upgrade as much is held as a head may have.
    pub(crate) fn room(&self, limits: &HeadLimits) -> usize {
        let content = match self.progress {
            Progress::Body { content } => content,
            Progress::Head | Progress::Upgraded => 0,
        };
        limits.bytes.saturating_add(content).saturating_sub(self.bytes.len())
    }

    /// Lends an idle exchange memory for what comes.
    pub(crate) fn lend(&mut self, memory: Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = memory;
        }
    }

    /// Takes in what has come.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.follows && self.progress == Progress::Head {
            self.skip_line_ends();
        }
    }

    /// Looks at what has come.
    #[inline]
    pub(crate) fn step(&mut self, limits: &HeadLimits) -> Step<'_> {
        if self.progress == Progress::Upgraded {
            return Step::NeedMore;
        }
        let head = match self.scan.find(&self.bytes, limits) {
            Ok(Some(head)) => head,
            Ok(None) => return Step::NeedMore,
            Err(refusal) => return Step::Refuse(refusal),
        };
        let behind = &self.bytes[head..];
        let content = match self.progress {
            Progress::Body { content } => match behind.get(..content) {
                Some(content) => Some(content),
                None => return Step::NeedMore,
            },
            Progress::Head | Progress::Upgraded => None,
        };
        // Not paired up with the content: a request with its headers is large, and would be moved once more.
        match Request::parse_found(&self.bytes, &self.scan) {
            Ok(request) => match content {
                None => Step::Head { request, behind },
                Some(content) => Step::Whole { request, content },
            },
            Err(refusal) => Step::Refuse(refusal),
        }
    }

    /// After [`Step::Head`]: the next step is the whole request, with so many bytes of content.
    pub(crate) fn await_content(&mut self, content: usize) {
        self.progress = Progress::Body { content };
    }

    /// After a whole request with so many bytes of content: it was answered, and the next one has its turn. Gives back
    /// the memory it was held in, if nothing has come of the next.
    pub(crate) fn finish(&mut self, content: usize) -> Option<Vec<u8>> {
        let whole = self.head().saturating_add(content).min(self.bytes.len());
        self.bytes.drain(..whole);
        (self.scan, self.progress, self.follows) = (HeadScan::new(), Progress::Head, true);
        self.skip_line_ends();
        self.is_idle().then(|| std::mem::take(&mut self.bytes))
    }

    /// After [`Step::Head`] of an upgrade: what follows the head, and what comes from now on, is not HTTP.
    pub(crate) fn upgrade(&mut self) {
        let head = self.head();
        // Right-sized: it may be held for as long as a handshake may take.
        self.bytes = self.bytes[head..].to_vec();
        self.progress = Progress::Upgraded;
    }

    /// What has come, from the first byte of the current request on; after an upgrade, what follows it.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Where the head ends that the scan has found.
    fn head(&mut self) -> usize {
        // It remembers what it has found: no limit counts any more, and no byte is looked at.
        let limits = HeadLimits { bytes: usize::MAX, headers: usize::MAX };
        self.scan.find(&self.bytes, &limits).ok().flatten().unwrap_or_default()
    }

    /// RFC 9112 §2.2: old clients send line ends behind the content of a request.
    fn skip_line_ends(&mut self) {
        let skipped = self.bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        self.bytes.drain(..skipped);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 120, headers: 4 };

    /// What the steps were, in words.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Head(String),
        Whole(String, Vec<u8>),
        Upgraded(String),
        HandedOver(Vec<u8>),
        Refused(u16),
        /// Nothing of a request is left.
        Idle,
        /// So many bytes wait.
        Waiting(usize),
    }

    /// Drives an exchange as a shard does, with what each read brings: a request with `Content-Length` is answered once
    /// it is whole, `/leave` hands it over, an upgrade is accepted.
    fn drive(mut exchange: Exchange, bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let cut = cuts.next().copied().unwrap_or(usize::MAX).clamp(1, rest.len());
            let (now, later) = rest.split_at(cut);
            rest = later;
            exchange.receive(now);
            while let Some(step) = advance(&mut exchange) {
                seen.push(step);
                assert!(seen.len() <= bytes.len(), "there is no end to it: {:?}", seen.last());
                if let Some(Seen::Refused(_)) = seen.last() {
                    return seen;
                }
                if seen.last() == Some(&Seen::Head("/leave".to_owned())) {
                    seen.push(Seen::HandedOver([exchange.into_bytes(), rest.to_vec()].concat()));
                    return seen;
                }
            }
        }
        let waiting = exchange.into_bytes().len();
        seen.push(if waiting == 0 { Seen::Idle } else { Seen::Waiting(waiting) });
        seen
    }

    fn advance(exchange: &mut Exchange) -> Option<Seen> {
        let (path, content, is_upgrade) = match exchange.step(&LIMITS) {
            Step::NeedMore => return None,
            Step::Refuse(refusal) => return Some(Seen::Refused(refusal.status())),
            Step::Whole { request, content } => {
                let seen = Seen::Whole(request.path().to_owned(), content.to_vec());
                let length = content.len();
                exchange.finish(length);
                return Some(seen);
            }
            Step::Head { request, .. } => {
                let content = request.header("content-length").map_or(0, |text| text.parse().unwrap());
                (request.path().to_owned(), content, request.wants_upgrade())
            }
        };
        if is_upgrade {
            exchange.upgrade();
            return Some(Seen::Upgraded(path));
        }
        exchange.await_content(content);
        Some(Seen::Head(path))
    }

    fn post(path: &str, content: &str) -> String {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{content}", content.len())
    }

    const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

    /// Everything that a connection may bring: what it is, and whether an earlier request was answered on it.
    fn conversations() -> Vec<(String, bool)> {
        let one = post("/one", "hello");
        let two = post("/two", "");
        vec![
            (one.clone(), false),
            (format!("{one}{two}{one}"), false),
            (format!("{one}\r\n\r\n\r\n\r\n\r\n\r\n\r\n{two}\r\n"), false),
            (format!("\r\n\r\n{one}"), false),
            ("\r\n\r\n\r\n\r\n\r\n".to_owned() + &one, false),
            ("\r\n\r\n\r\n\r\n\r\n\r\n".to_owned() + &one, true),
            ("\r\n\r\n".to_owned(), true),
            (format!("{one}\r"), false),
            (format!("{one}\rX"), false),
            (format!("{one}{}", &two[..20]), false),
            (one[..one.len() - 2].to_owned(), false),
            (format!("{one}{UPGRADE}\u{81}\r\n\r\nframes {two}"), false),
            (format!("{UPGRADE}\r\n"), true),
            (format!("{one}{}", post("/leave", "with content")), false),
            (format!("{one}{}more", post("/leave", "with content")), true),
            ("this is not HTTP\r\n\r\n".to_owned(), false),
            (format!("{one}GET / HTTP/1.1\r\n\r\n"), false),
            (format!("{one}GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"), false),
            (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200)), false),
            (format!("{one}GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9)), false),
            (post("/long", &"y".repeat(500)), false),
        ]
    }

    fn start(follows: bool) -> Exchange {
        if follows { Exchange::resumed() } else { Exchange::default() }
    }

    #[test]
    fn any_cut_of_any_conversation_gives_the_same_steps() {
        for (text, follows) in conversations() {
            let bytes = text.as_bytes();
            let whole = drive(start(follows), bytes, &[usize::MAX]);
            for cut in 1..bytes.len() {
                assert_eq!(drive(start(follows), bytes, &[cut, usize::MAX]), whole, "{text:?}, cut at {cut}");
            }
            assert_eq!(drive(start(follows), bytes, &[1]), whole, "{text:?}, byte by byte");
        }
    }

    #[test]
    fn requests_come_out_in_order_with_their_content() {
        let whole = |path: &str, content: &str| {
            [Seen::Head(path.to_owned()), Seen::Whole(path.to_owned(), content.as_bytes().to_vec())]
        };
        let bytes = format!("{}{}\r\n", post("/one", "hello"), post("/two", ""));
        let expected = [whole("/one", "hello").to_vec(), whole("/two", "").to_vec(), vec![Seen::Idle]].concat();
        assert_eq!(drive(Exchange::default(), bytes.as_bytes(), &[7]), expected);
    }

    #[test]
    fn what_follows_an_upgrade_is_not_looked_at() {
        let bytes = format!("{UPGRADE}\r\n\r\nNOT HTTP\r\n\r\n");
        let expected = [Seen::Upgraded("/ws".to_owned()), Seen::Waiting(bytes.len() - UPGRADE.len())];
        assert_eq!(drive(Exchange::default(), bytes.as_bytes(), &[usize::MAX]), expected);
    }

    #[test]
    fn a_request_that_leaves_takes_along_all_from_its_first_byte_on() {
        let bytes = format!("{}{}more", post("/one", "hello"), post("/leave", "content"));
        let seen = drive(Exchange::default(), bytes.as_bytes(), &[usize::MAX]);
        let left = format!("{}more", post("/leave", "content")).into_bytes();
        assert_eq!(seen.last(), Some(&Seen::HandedOver(left)));
    }

    // The limit is 4 empty lines before the first request (see `HeadScan`), and none between two.
    #[test]
    fn line_ends_between_requests_are_skipped_also_when_they_come_in_halves() {
        let mut exchange = Exchange::resumed();
        for _ in 0..20 {
            exchange.receive(b"\r");
            assert!(matches!(exchange.step(&LIMITS), Step::NeedMore));
            exchange.receive(b"\n");
            assert!(matches!(exchange.step(&LIMITS), Step::NeedMore) && exchange.is_idle());
        }
        exchange.receive(post("/one", "").as_bytes());
        assert!(matches!(exchange.step(&LIMITS), Step::Head { .. }));
    }

    #[test]
    fn no_more_may_come_than_a_head_and_its_content_have() {
        let mut exchange = Exchange::default();
        assert_eq!((exchange.room(&LIMITS), exchange.is_awaiting_content()), (LIMITS.bytes, false));
        let request = post("/one", "hello");
        exchange.receive(&request.as_bytes()[..request.len() - 5]);
        assert!(matches!(exchange.step(&LIMITS), Step::Head { .. }));
        exchange.await_content(5);
        assert!(exchange.is_awaiting_content());
        assert_eq!(exchange.room(&LIMITS), LIMITS.bytes + 10 - request.len());
        exchange.receive(&[b'x'; 500]);
        assert_eq!(exchange.room(&LIMITS), 0);
        exchange.await_content(usize::MAX);
        assert!(matches!(exchange.step(&LIMITS), Step::NeedMore), "no length makes it panic");
    }

    #[test]
    fn an_exchange_gives_its_memory_back_between_requests() {
        let mut exchange = Exchange::default();
        exchange.lend(Vec::with_capacity(1000));
        exchange.receive(post("/one", "hello").as_bytes());
        assert!(matches!(exchange.step(&LIMITS), Step::Head { .. }));
        exchange.await_content(5);
        assert!(matches!(exchange.step(&LIMITS), Step::Whole { .. }));
        assert_eq!(exchange.finish(5).map(|memory| memory.capacity()), Some(1000));
        assert_eq!(exchange.into_bytes().capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_steps(
            pieces in prop::collection::vec((0..8_usize, any::<u8>()), 0..8),
            cuts in prop::collection::vec(1..40_usize, 1..8),
            follows: bool,
        ) {
            let texts = [&post("/one", "hello"), &post("/leave", "x"), UPGRADE, "\r\n", "\r", "GET / HTTP/1.1\r\n", "Host: a\r\n"];
            let bytes: Vec<u8> = pieces
                .into_iter()
                .flat_map(|(which, byte)| texts.get(which).map_or_else(|| vec![byte], |text| text.as_bytes().to_vec()))
                .collect();
            let whole = drive(start(follows), &bytes, &[usize::MAX]);
            prop_assert_eq!(drive(start(follows), &bytes, &cuts), whole.clone());
            prop_assert_eq!(drive(start(follows), &bytes, &[1]), whole);
        }
    }
}
