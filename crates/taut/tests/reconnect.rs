//! What a reconnecting client retries, when, and what becomes of calls that are dropped; on a clock that stands still
//! until everybody waits.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taut::reconnect::{Attempt, Decision, Ended, Event, Next, State};
use taut::{Acceptor, Backoff, Client, Close, CloseCode, Error, Message, Reconnecting, Refusal, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, advance, sleep, timeout};

/// What the next attempt meets.
#[derive(Clone, Debug)]
enum Answer {
    /// The server cannot be reached.
    Unreachable,
    /// This is not accepted.
    Certificate,
    Refusal(Refusal),
    /// Something that is no handshake.
    Bytes(&'static str),
    /// Accepted, told these, then closed or dropped.
    Close(&'static [&'static str], Close),
    Drop(&'static [&'static str]),
    /// Accepted, closed at once with this code, in the middle of a message or not, and never ended as a TCP connection.
    Linger(u16, bool),
    /// A message that breaks the protocol.
    Violation,
    /// Never answered.
    Silence,
    /// Accepted; the test has the server's end.
    Open,
}

/// A server in memory that answers as it is told, then lets everybody in.
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    attempts: Mutex<Vec<(Instant, Option<String>)>>,
    attempted: Notify,
    opened: UnboundedSender<WebSocket>,
    silent: Mutex<Vec<DuplexStream>>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> (Arc<Self>, UnboundedReceiver<WebSocket>) {
        let (opened, sockets) = unbounded_channel();
        let script = Self {
            answers: Mutex::new(answers.into_iter().collect()),
            attempts: Mutex::default(),
            attempted: Notify::new(),
            opened,
            silent: Mutex::default(),
        };
        (Arc::new(script), sockets)
    }

    fn dial(self: Arc<Self>) -> io::Result<DuplexStream> {
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Open);
        self.attempts.lock().unwrap().push((Instant::now(), None));
        assert!(self.attempts() < 200, "it would go on for ever");
        self.attempted.notify_one();
        match answer {
            Answer::Unreachable => return Err(io::ErrorKind::ConnectionRefused.into()),
            Answer::Certificate => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
        let (ours, theirs) = duplex(64 << 10);
        tokio::spawn(self.answer(theirs, answer));
        Ok(ours)
    }

    async fn answer(self: Arc<Self>, mut stream: DuplexStream, answer: Answer) {
        match answer {
            Answer::Bytes(bytes) => {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(bytes.as_bytes()).await;
                return;
            }
            Answer::Silence => return self.silent.lock().unwrap().push(stream),
            Answer::Linger(code, in_message) => {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
                let accept = String::from_utf8(taut_proto::handshake::accept_key(key).to_vec()).unwrap();
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
                stream.write_all(format!("{head}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes()).await.unwrap();
                if in_message {
                    stream.write_all(b"\x01\x02ab").await.unwrap();
                }
                let [high, low] = code.to_be_bytes();
                stream.write_all(&[0x88, 2, high, low]).await.unwrap();
                return self.silent.lock().unwrap().push(stream);
            }
            _ => {}
        }
        let Ok(incoming) = Acceptor::new().accept_over(stream).await else { return };
        self.attempts.lock().unwrap().last_mut().unwrap().1 = incoming.bearer().map(str::to_owned);
        if let Answer::Refusal(refusal) = answer {
            return incoming.refuse(refusal).await.unwrap();
        }
        let Ok(mut socket) = incoming.accept().await else { return };
        if let Answer::Close(texts, _) | Answer::Drop(texts) = answer {
            for text in texts {
                socket.send(*text).await.unwrap();
            }
        }
        match answer {
            Answer::Close(_, close) => drop(socket.close(close).await),
            Answer::Violation => {
                // A reply to a message that exceeds what the client takes.
                let _ = socket.send(vec![0; 128]).await;
                let _ = socket.recv().await;
            }
            Answer::Open => drop(self.opened.send(socket)),
            _ => {}
        }
    }

    fn client(self: &Arc<Self>) -> Reconnecting {
        self.reconnecting(|socket| async { Ok(socket) })
    }

    fn reconnecting<H, F>(self: &Arc<Self>, hook: H) -> Reconnecting
    where
        H: FnMut(WebSocket) -> F + Send + 'static,
        F: Future<Output = Result<WebSocket, Error>> + Send + 'static,
    {
        let mut settings = taut::Settings::client();
        settings.limits.message = 64;
        let client = Client::new("ws://server.example/").settings(settings).bearer("old");
        self.serves(client.reconnecting(Backoff::default(), hook))
    }

    /// With another client for each attempt.
    fn fresh<M, F>(self: &Arc<Self>, make_client: M) -> Reconnecting
    where
        M: FnMut(Attempt) -> F + Send + 'static,
        F: Future<Output = Result<Client, Error>> + Send + 'static,
    {
        self.serves(Reconnecting::new(Backoff::default(), make_client))
    }

    fn serves(self: &Arc<Self>, client: Reconnecting) -> Reconnecting {
        let script = Arc::clone(self);
        client.over(move || {
            let script = Arc::clone(&script);
            async { script.dial() }
        })
    }

    /// The tokens that came with the attempts that got so far.
    fn bearers(&self) -> Vec<String> {
        self.attempts.lock().unwrap().iter().filter_map(|(_, bearer)| bearer.clone()).collect()
    }

    fn attempts(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }

    async fn until_attempts(&self, count: usize) {
        let attempted = async {
            while self.attempts() < count {
                self.attempted.notified().await;
            }
        };
        let outcome = timeout(Duration::from_secs(3600), attempted).await;
        outcome.unwrap_or_else(|_| panic!("{} attempts instead of {count}", self.attempts()));
    }

    /// The delays between attempts.
    fn delays(&self) -> Vec<Duration> {
        let attempts = self.attempts.lock().unwrap();
        attempts.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }
}

/// The events of a client, in words.
fn recorded(client: Reconnecting) -> (Reconnecting, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&events);
    let client = client.on_event(move |event| {
        record.lock().unwrap().push(match event {
            Event::Connecting { attempt } => format!("connecting {attempt}"),
            Event::Refreshing => "refreshing".to_owned(),
            Event::Open { attempt } => format!("open {attempt}"),
            Event::Lost(Ended::Closed(close)) => format!("closed {close}"),
            Event::Lost(_) => "lost".to_owned(),
            Event::Failed(_) => "failed".to_owned(),
            Event::Waiting { attempt, .. } => format!("waiting {attempt}"),
            Event::GaveUp(_) => "gave up".to_owned(),
            Event::Closed => "closed by us".to_owned(),
            other => format!("{other:?}"),
        });
    });
    (client, events)
}

fn close(code: u16) -> Answer {
    Answer::Close(&[], CloseCode::new(code).into())
}

fn status(status: u16) -> Answer {
    Answer::Refusal(Refusal::with_status(status, ""))
}

/// Whether the client comes back after this answer: how soon, or with which error it does not.
async fn after(answer: Answer) -> Result<Duration, Error> {
    let (script, _sockets) = Script::new([answer]);
    let mut client = script.client();
    tokio::select! {
        biased;
        ended = client.recv() => Err(ended.expect_err("nothing is sent")),
        () = script.until_attempts(2) => Ok(script.delays()[0]),
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_retried() {
    const SOON: Duration = Duration::from_millis(100);
    let soon = [
        vec![Answer::Unreachable, close(1000), close(1005), close(3000), close(4000), close(4100)],
        [408, 425, 429, 500, 502, 504].map(status).to_vec(),
        vec![Answer::Bytes("")],
    ];
    for answer in soon.concat() {
        let delay = after(answer.clone()).await.unwrap_or_else(|error| panic!("{answer:?}: {error}"));
        assert!((SOON..SOON + Duration::from_millis(510)).contains(&delay), "{answer:?}: {delay:?}");
    }
    let mut lost = vec![Answer::Drop(&[])];
    lost.extend([1001, 1011, 1012, 1013, 1014].map(close));
    for answer in lost {
        let mut longest = Duration::ZERO;
        for _ in 0..16 {
            let delay = after(answer.clone()).await.unwrap_or_else(|error| panic!("{answer:?}: {error}"));
            assert!(delay < Duration::from_millis(5_010), "{answer:?}: {delay:?}");
            longest = longest.max(delay);
        }
        // RFC 6455 §7.2.3: over five seconds. That all of 16 are below 1.25 s has a chance of 1 in 4 billion.
        assert!(longest > Duration::from_millis(1_250), "{answer:?}: {longest:?}");
    }
    let delay = after(Answer::Silence).await.unwrap();
    assert!((Duration::from_millis(10_100)..Duration::from_millis(10_610)).contains(&delay), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn what_would_end_the_same_way_is_not_retried() {
    for code in [1002, 1003, 1007, 1008, 1009, 1010] {
        let error = after(close(code)).await.unwrap_err();
        assert_eq!(error.close_code(), Some(CloseCode::new(code)));
        assert!(error.is_closed(), "{error:?}");
    }
    for code in [400, 401, 403, 404, 405, 410, 426, 501] {
        assert_eq!(after(status(code)).await.unwrap_err().status(), Some(code));
    }
    assert!(after(Answer::Certificate).await.unwrap_err().is_io());
    assert!(after(Answer::Violation).await.unwrap_err().is_protocol());
    assert!(after(Answer::Bytes("HTTP/1.1 101 Yes\r\n\r\n")).await.unwrap_err().is_handshake());
    assert!(after(Answer::Bytes("SSH-2.0\r\n\r\n")).await.unwrap_err().is_handshake());
    let mut client = Client::new("ws://a b/").reconnecting(Backoff::default(), |socket| async { Ok(socket) });
    assert!(client.recv().await.unwrap_err().is_invalid());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_and_the_usual_delay_added() {
    let delay = after(Answer::Refusal(Refusal::busy(Duration::from_secs(7)))).await.unwrap();
    assert!((Duration::from_millis(7_100)..Duration::from_millis(7_610)).contains(&delay), "{delay:?}");
    let delay = after(Answer::Refusal(Refusal::busy(Duration::from_secs(1 << 30)))).await.unwrap();
    assert!((Duration::from_millis(600_100)..Duration::from_millis(600_610)).contains(&delay), "{delay:?}");
}

#[tokio::test(start_paused = true)]
async fn the_application_may_decide_otherwise() {
    let (script, _sockets) = Script::new([close(1000)]);
    let mut client = script.client().decide(|ended| match ended.close_code() {
        Some(CloseCode::NORMAL) => Decision::GiveUp,
        _ => ended.decision(),
    });
    let error = client.recv().await.unwrap_err();
    assert_eq!(error.close_code(), Some(CloseCode::NORMAL));
    assert_eq!(client.recv().await.unwrap_err().close_code(), Some(CloseCode::NORMAL), "the same again");
    assert_eq!((client.state(), script.attempts()), (State::Over, 1));

    // A deployment, during which the server forbids what it allows else.
    let (script, mut sockets) = Script::new([status(403), status(403)]);
    let mut client = script.client().decide(|ended| match ended.status() {
        Some(403) => Decision::Retry,
        _ => ended.decision(),
    });
    client.ready().await.unwrap();
    assert!(sockets.recv().await.is_some());
    assert_eq!(script.attempts(), 3);
    assert!(script.delays().iter().all(|delay| *delay >= Duration::from_millis(100)), "{:?}", script.delays());

    // After a delay of its own, however often, but not without any.
    for (told, expected) in [(Duration::from_secs(7), 7_000), (Duration::ZERO, 100)] {
        let (script, mut sockets) = Script::new(vec![status(503); 5]);
        let mut client = script.client().decide(move |_| Decision::RetryAfter(told));
        client.ready().await.unwrap();
        assert!(sockets.recv().await.is_some());
        // The clock of the tests has milliseconds.
        let expected = Duration::from_millis(expected)..Duration::from_millis(expected + 3);
        let delays = script.delays();
        assert!(delays.len() == 5 && delays.iter().all(|delay| expected.contains(delay)), "{delays:?}");
    }
}

// Pusher's 4200 to 4299 are such codes.
#[tokio::test(start_paused = true)]
async fn an_attempt_may_follow_at_once_but_not_one_after_the_other() {
    let at_once = |ended: &Ended| match ended.close_code() {
        Some(code) if code.as_u16() == 4200 => Decision::RetryNow,
        _ => ended.decision(),
    };
    let (script, mut sockets) = Script::new([close(4200)]);
    let (mut client, events) = recorded(script.client().decide(at_once));
    client.ready().await.unwrap();
    assert!(timeout(Duration::from_secs(1), client.recv()).await.is_err());
    assert!(sockets.recv().await.is_some());
    assert_eq!(script.delays(), [Duration::ZERO]);
    let expected = "connecting 1, open 1, closed 4200, connecting 2, open 2";
    assert_eq!(events.lock().unwrap().join(", "), expected);

    // A server that asks for it always, or in turn with what asks for fresh credentials.
    for codes in [[4200, 4200], [4200, 4001]] {
        let answers = (0..50).flat_map(|_| codes.map(close));
        let (script, _sockets) = Script::new(answers.collect::<Vec<_>>());
        let client = script.fresh(|_| async { Ok(Client::new("ws://server.example/")) });
        let mut client = client.decide(move |ended| match ended.close_code() {
            Some(code) if code.as_u16() == 4001 => Decision::Refresh,
            _ => at_once(ended),
        });
        let _ = timeout(Duration::from_secs(600), client.recv()).await;
        let delays = script.delays();
        assert!(delays.len() > 20, "{delays:?}");
        for pair in delays.windows(2) {
            assert!(pair.iter().any(|delay| *delay >= Duration::from_millis(100)), "{codes:?}: {delays:?}");
        }
        let attempts = script.attempts();
        assert!(attempts < 150, "{codes:?}: {attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_a_fresh_client_that_knows_why() {
    let (script, mut sockets) = Script::new([
        Answer::Unreachable,
        status(503),
        Answer::Close(&["one"], CloseCode::GOING_AWAY.into()),
        Answer::Open,
    ]);
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&attempts);
    let mut client = script.fresh(move |attempt| {
        let mut attempts = record.lock().unwrap();
        let token = format!("token-{}", attempts.len() + 1);
        let why = attempt.after.as_ref().map(|ended| (ended.status(), ended.close_code().map(CloseCode::as_u16)));
        attempts.push((attempt.number, why, attempt.is_refresh));
        async move {
            // As from an authorization server.
            sleep(Duration::from_millis(20)).await;
            Ok(Client::new("ws://server.example/").bearer(&token))
        }
    });
    assert_eq!(client.recv().await.unwrap(), Message::from("one"));
    assert!(timeout(Duration::from_secs(10), client.recv()).await.is_err());
    assert!(sockets.recv().await.is_some());
    let expected = [
        (1, None, false),
        (2, Some((None, None)), false),
        (3, Some((Some(503), None)), false),
        (4, Some((None, Some(1001))), false),
    ];
    assert_eq!(*attempts.lock().unwrap(), expected);
    // Nobody was there to see the first.
    assert_eq!(script.bearers(), ["token-2", "token-3", "token-4"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_made_is_a_failed_attempt() {
    let (script, mut sockets) = Script::new([]);
    let mut calls = 0;
    let client = script.fresh(move |_| {
        calls += 1;
        let call = calls;
        async move {
            match call {
                1 => Err(Error::other("no token")),
                // Nobody answers, and nobody has set a deadline.
                2 => std::future::pending().await,
                _ => Ok(Client::new("ws://server.example/")),
            }
        }
    });
    let (mut client, events) = recorded(client);
    let began = Instant::now();
    client.ready().await.unwrap();
    assert!(sockets.recv().await.is_some());
    let elapsed = began.elapsed();
    assert!((Duration::from_secs(30)..Duration::from_secs(33)).contains(&elapsed), "{elapsed:?}");
    let expected = "connecting 1, failed, waiting 2, connecting 2, failed, waiting 3, connecting 3, open 3";
    assert_eq!(events.lock().unwrap().join(", "), expected);

    // The deadline is a setting, and its error says which.
    let client = script.fresh(|_| std::future::pending()).client_timeout(Duration::from_secs(2)).max_attempts(1);
    let began = Instant::now();
    let error = { client }.recv().await.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("client_timeout"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(3));

    // What is wrong with the client itself is a mistake in the program.
    let mut client = script.fresh(|_| async { Ok(Client::new("http://server.example/")) });
    assert!(client.recv().await.unwrap_err().is_invalid());
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_and_the_hook_runs_on_every_connection() {
    let (script, mut sockets) =
        Script::new([Answer::Unreachable, Answer::Close(&["one"], CloseCode::GOING_AWAY.into())]);
    let client = script.reconnecting(|mut socket| async move {
        socket.send("subscribe").await?;
        Ok(socket)
    });
    let (mut client, events) = recorded(client);
    assert_eq!(client.recv().await.unwrap(), Message::from("one"));
    let serving = tokio::spawn(async move {
        let mut server = sockets.recv().await.unwrap();
        assert_eq!(server.recv().await.unwrap(), Some(Message::from("subscribe")));
        server.send("two").await.unwrap();
        sleep(Duration::from_secs(31)).await;
        server.close(CloseCode::NORMAL).await.unwrap();
        sockets.recv().await.unwrap()
    });
    assert_eq!(client.recv().await.unwrap(), Message::from("two"));
    let silence = timeout(Duration::from_secs(35), client.recv()).await;
    assert!(silence.is_err(), "{silence:?}");
    let mut server = serving.await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("subscribe")));
    let (closed, received) = tokio::join!(client.close(CloseCode::NORMAL), server.recv());
    closed.unwrap();
    assert_eq!(received.unwrap(), None);
    assert!(client.recv().await.unwrap_err().is_closed());
    let expected = "connecting 1, failed, waiting 2, connecting 2, open 2, closed 1001, waiting 3, connecting 3, open 3, \
                    closed 1000, waiting 1, connecting 1, open 1, closed by us";
    assert_eq!(events.lock().unwrap().join(", "), expected);
}

/// A client whose token is kept until it is refused.
fn refreshing(script: &Arc<Script>) -> Reconnecting {
    script.fresh(|attempt: Attempt| async move {
        Ok(Client::new("ws://server.example/").bearer(if attempt.is_refresh { "fresh" } else { "old" }))
    })
}

#[tokio::test(start_paused = true)]
async fn a_401_asks_for_fresh_credentials_once() {
    let (script, mut sockets) = Script::new([status(401)]);
    let (mut client, events) = recorded(refreshing(&script));
    client.ready().await.unwrap();
    assert!(sockets.recv().await.is_some());
    assert_eq!(script.delays(), [Duration::ZERO]);
    assert_eq!(script.bearers(), ["old", "fresh"]);
    assert_eq!(events.lock().unwrap().join(", "), "connecting 1, failed, refreshing, connecting 1, open 1");

    let (script, _sockets) = Script::new([status(401), status(401)]);
    let (mut client, events) = recorded(refreshing(&script));
    assert_eq!(client.recv().await.unwrap_err().status(), Some(401));
    assert_eq!(script.attempts(), 2);
    let expected = "connecting 1, failed, refreshing, connecting 1, failed, gave up";
    assert_eq!(events.lock().unwrap().join(", "), expected);

    // Later they may have expired again, whether they led to a connection before or not.
    for between in [Answer::Drop(&[]), status(502)] {
        let (script, mut sockets) = Script::new([status(401), between, status(401)]);
        let (mut client, events) = recorded(refreshing(&script));
        assert!(timeout(Duration::from_secs(20), client.recv()).await.is_err());
        assert!(sockets.recv().await.is_some());
        let refreshed = events.lock().unwrap().iter().filter(|event| *event == "refreshing").count();
        assert_eq!((refreshed, script.attempts()), (2, 4));
    }

    // Where the client is always the same, nobody is asked; nor does a limit on attempts forbid it where it is not.
    let (script, _sockets) = Script::new([status(401)]);
    assert_eq!(script.client().recv().await.unwrap_err().status(), Some(401));
    let (script, _sockets) = Script::new([status(401)]);
    refreshing(&script).max_attempts(1).ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_code_may_ask_for_fresh_credentials_as_well() {
    const EXPIRED: CloseCode = CloseCode::new(4001);
    let refreshing = |script: &Arc<Script>| {
        recorded(refreshing(script).decide(|ended| match ended.close_code() {
            Some(EXPIRED) => Decision::Refresh,
            _ => ended.decision(),
        }))
    };
    let (script, mut sockets) = Script::new([]);
    let (mut client, events) = refreshing(&script);
    // The token of each connection expires after half an hour.
    for lifetime in 1..=3 {
        client.ready().await.unwrap();
        let mut server = sockets.recv().await.unwrap();
        let serving = async {
            // It reads meanwhile, or the heartbeat would take it for gone.
            let _ = timeout(Duration::from_secs(1800), server.recv()).await;
            server.close(EXPIRED).await.unwrap();
        };
        let before = script.attempts();
        tokio::select! {
            () = async { tokio::join!(serving, script.until_attempts(before + 1)); } => {}
            message = client.recv() => panic!("nothing was sent: {message:?}"),
        }
        let last = script.delays()[lifetime - 1];
        assert!((1800..1802).contains(&last.as_secs()), "{last:?}");
    }
    client.ready().await.unwrap();
    assert_eq!(script.bearers(), ["old", "fresh", "fresh", "fresh"]);
    let expected = "connecting 1, open 1, closed 4001, refreshing, connecting 1, open 1";
    assert!(events.lock().unwrap().join(", ").starts_with(expected), "{events:?}");

    // Fresh ones that are refused in the same way are the end.
    let (script, _sockets) = Script::new([close(4001), close(4001)]);
    let (mut client, events) = refreshing(&script);
    let error = client.recv().await.unwrap_err();
    assert!(error.is_closed() && error.close_code() == Some(EXPIRED), "{error:?}");
    let expected = "connecting 1, open 1, closed 4001, refreshing, connecting 1, open 1, closed 4001, gave up";
    assert_eq!(events.lock().unwrap().join(", "), expected);
}

// The server refuses the token only once it has seen the first message.
#[tokio::test(start_paused = true)]
async fn a_hook_may_fail_with_the_close_that_came_in_place_of_an_answer() {
    let (script, mut sockets) = Script::new([close(4001), close(4003)]);
    let client = refreshing(&script).on_open(|mut socket| async move {
        socket.send("subscribe").await?;
        match (socket.recv().await?, socket.peer_close()) {
            (Some(_), _) => Ok(socket),
            (None, Some(close)) => Err(close.into()),
            (None, None) => Err(Error::other("closed")),
        }
    });
    let mut client = client.decide(|ended| match ended.close_code().map(CloseCode::as_u16) {
        Some(4001) => Decision::Refresh,
        Some(4003) => Decision::GiveUp,
        _ => ended.decision(),
    });
    let error = client.recv().await.unwrap_err();
    assert!(error.is_closed() && error.close_code() == Some(CloseCode::new(4003)), "{error:?}");
    assert_eq!(script.bearers(), ["old", "fresh"]);
    assert!(sockets.try_recv().is_err());

    // By default as well: a code that would come again is not tried again.
    for (code, is_transient) in [(1013, true), (4000, true), (1008, false)] {
        assert_eq!(Error::from(Close::from(CloseCode::new(code))).is_transient(), is_transient, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_a_failed_attempt() {
    let (script, mut sockets) = Script::new([status(401)]);
    let refreshes = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&refreshes);
    let client = script.fresh(move |attempt| {
        let mut refreshes = record.lock().unwrap();
        refreshes.push(attempt.is_refresh);
        let fails = refreshes.len() == 2;
        async move { if fails { Err(Error::other("no token")) } else { Ok(Client::new("ws://server.example/")) } }
    });
    let (mut client, events) = recorded(client);
    client.ready().await.unwrap();
    assert!(sockets.recv().await.is_some());
    let expected = "connecting 1, failed, refreshing, connecting 1, failed, waiting 2, connecting 2, open 2";
    assert_eq!(events.lock().unwrap().join(", "), expected);
    // What was refused stays refused.
    assert_eq!(*refreshes.lock().unwrap(), [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_a_failed_attempt() {
    let (script, mut sockets) = Script::new([]);
    let mut left = 3;
    let client = script.reconnecting(move |mut socket| {
        left -= 1;
        let fails = left > 0;
        async move {
            if fails { Err(Error::other("not subscribed")) } else { socket.send("subscribe").await.map(|()| socket) }
        }
    });
    let (mut client, events) = recorded(client);
    client.ready().await.unwrap();
    assert_eq!(script.attempts(), 3);
    let expected = "connecting 1, failed, waiting 2, connecting 2, failed, waiting 3, connecting 3, open 3";
    assert_eq!(events.lock().unwrap().join(", "), expected);
    drop(sockets.recv().await);

    // RFC 9110 §10.2.3: as a date too.
    let by_date = "HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                   Retry-After: Sun, 06 Nov 1994 08:50:37 GMT\r\n\r\n";
    let delay = after(Answer::Bytes(by_date)).await.unwrap();
    assert!((Duration::from_millis(60_100)..Duration::from_millis(60_610)).contains(&delay), "{delay:?}");
    let (script, _sockets) = Script::new([]);
    let mut client = script.reconnecting(|mut socket| async { socket.ping(&[0; 126]).await.map(|()| socket) });
    assert!(client.ready().await.unwrap_err().is_invalid(), "a mistake in the program is not retried");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_then_drops_is_not_asked_ever_faster() {
    let (script, _sockets) = Script::new(vec![Answer::Drop(&[]); 100]);
    let mut client = script.client();
    let began = Instant::now();
    let _ = timeout(Duration::from_secs(600), client.recv()).await;
    let attempts = script.attempts();
    // Once the window is 30 s, one in 15 s on average; before that, 8 in about as much time.
    assert!((25..75).contains(&attempts), "{attempts} in {:?}", began.elapsed());
    let delays = script.delays();
    let late: Duration = delays[8..].iter().sum();
    assert!(late / (delays.len() as u32 - 8) > Duration::from_secs(7), "{delays:?}");
}

// To wait for the server to end TCP, five seconds, is not to be connected.
#[tokio::test(start_paused = true)]
async fn a_connection_lasts_to_the_first_sign_of_its_end() {
    for in_message in [false, true] {
        let (script, _sockets) = Script::new(vec![Answer::Linger(1013, in_message); 100]);
        let (mut client, events) = recorded(script.client().max_attempts(4));
        let error = timeout(Duration::from_secs(600), client.recv()).await.expect("for ever").unwrap_err();
        assert!(error.is_closed() && error.close_code() == Some(CloseCode::TRY_AGAIN_LATER), "{error:?}");
        assert_eq!(script.attempts(), 4);
        let events = events.lock().unwrap();
        assert!(events.join(", ").ends_with("connecting 4, open 4, closed 1013, gave up"), "{events:?}");
    }
    let (script, _sockets) = Script::new(vec![Answer::Linger(1013, false); 100]);
    let mut client = script.client();
    let _ = timeout(Duration::from_secs(600), client.recv()).await;
    let delays = script.delays();
    let late: Duration = delays[8..].iter().sum();
    assert!(late / (delays.len() as u32 - 8) > Duration::from_secs(12), "not ever longer: {delays:?}");
}

// RFC 6455 §5.4. What was cut off is lost, as it would be on its way; what its close says decides.
#[tokio::test(start_paused = true)]
async fn a_message_that_was_cut_off_is_no_failure_of_its_own() {
    for (code, comes_back) in [(1000, true), (1001, true), (1013, true), (4000, true), (1008, false), (1002, false)] {
        let ended = after(Answer::Linger(code, true)).await;
        assert_eq!(ended.is_ok(), comes_back, "{code}: {ended:?}");
        if let Err(error) = ended {
            assert!(error.is_closed() && error.close_code() == Some(CloseCode::new(code)), "{error:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_lasted_begins_anew() {
    let (script, mut sockets) = Script::new(vec![Answer::Unreachable; 10]);
    let (mut client, events) = recorded(script.client());
    client.ready().await.unwrap();
    let server = sockets.recv().await.unwrap();
    let (_, ()) = tokio::join!(timeout(Duration::from_secs(70), client.recv()), async {
        // Longer than any delay, shorter than the heartbeat's patience with a server that does not read.
        sleep(Duration::from_secs(35)).await;
        drop(server);
    });
    let events = events.lock().unwrap();
    assert!(events.join(", ").ends_with("connecting 11, open 11, lost, waiting 1, connecting 1, open 1"), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn attempts_and_time_may_be_limited() {
    for most in [0, 1, 4] {
        let (script, _sockets) = Script::new(vec![Answer::Unreachable; 10]);
        let (mut client, events) = recorded(script.client().max_attempts(most));
        assert!(client.recv().await.unwrap_err().is_io());
        assert_eq!(script.attempts(), most.max(1) as usize);
        assert_eq!(events.lock().unwrap().last().map(String::as_str), Some("gave up"));
    }
    // One that drops what it has accepted counts as well.
    let (script, _sockets) = Script::new(vec![Answer::Drop(&[]); 10]);
    assert!(script.client().max_attempts(4).recv().await.unwrap_err().is_io());
    assert_eq!(script.attempts(), 4);

    let (script, _sockets) = Script::new(vec![Answer::Unreachable; 1000]);
    let began = Instant::now();
    assert!(script.client().give_up_after(Duration::from_secs(60)).recv().await.unwrap_err().is_io());
    let elapsed = began.elapsed();
    assert!((Duration::from_secs(20)..Duration::from_secs(60)).contains(&elapsed), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_network_change_cancels_the_wait() {
    let (script, mut sockets) = Script::new([Answer::Refusal(Refusal::busy(Duration::from_secs(300)))]);
    let mut client = script.client();
    assert!(timeout(Duration::from_secs(1), client.recv()).await.is_err());
    assert_eq!(client.state(), State::Waiting);
    client.retry_now();
    client.ready().await.unwrap();
    assert!(sockets.recv().await.is_some());
    assert!(script.delays()[0] < Duration::from_secs(2));
    client.retry_now();
    assert_eq!(client.state(), State::Open, "nothing was waited for");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_drops_nothing_that_has_begun() {
    // Each step takes a second: dialing, the hook, making the client. The calls last 10 ms each.
    const STEP: Duration = Duration::from_secs(1);
    let (script, mut sockets) = Script::new([status(401), Answer::Unreachable]);
    let counts = Arc::new(Mutex::new([0; 3]));
    let (dials, hooks, clients) = (Arc::clone(&counts), Arc::clone(&counts), Arc::clone(&counts));
    let server = Arc::clone(&script);
    let client = Reconnecting::new(Backoff::default(), move |_| {
        clients.lock().unwrap()[2] += 1;
        async {
            sleep(STEP).await;
            Ok(Client::new("ws://server.example/"))
        }
    });
    let client = client.on_open(move |mut socket| {
        hooks.lock().unwrap()[1] += 1;
        async move {
            sleep(STEP).await;
            socket.send("subscribe").await?;
            Ok(socket)
        }
    });
    let client = client.over(move || {
        dials.lock().unwrap()[0] += 1;
        let server = Arc::clone(&server);
        async move {
            sleep(STEP).await;
            server.dial()
        }
    });
    let (mut client, events) = recorded(client);
    let mut states = Vec::new();
    let mut polls = 0;
    while client.state() != State::Open {
        assert!(polls < 10_000, "it does not come to be open");
        // Dropped in every state: after one poll, or somewhat later.
        if polls % 2 == 0 {
            let message = timeout(Duration::from_millis(10), client.recv()).await;
            assert!(message.is_err(), "nothing was sent: {message:?}");
        } else {
            assert!(timeout(Duration::ZERO, client.send("early")).await.is_err());
            advance(Duration::from_millis(10)).await;
        }
        polls += 1;
        states.push(client.state());
    }
    states.dedup();
    assert_eq!(states, [State::Connecting, State::Waiting, State::Connecting, State::Open]);
    assert!(polls > 250, "{polls}");
    assert_eq!(*counts.lock().unwrap(), [3, 1, 3]);
    let expected = "connecting 1, failed, refreshing, connecting 1, failed, waiting 2, connecting 2, open 2";
    assert_eq!(events.lock().unwrap().join(", "), expected);
    // Nothing of what was dropped was sent.
    client.send("late").await.unwrap();
    let mut server = sockets.recv().await.unwrap();
    for expected in ["subscribe", "late"] {
        assert_eq!(server.recv().await.unwrap(), Some(Message::from(expected)));
    }
    // And what arrives while nobody asks is there later.
    server.send("one").await.unwrap();
    assert!(timeout(Duration::ZERO, client.recv()).await.is_ok_and(|message| message.unwrap() == Message::from("one")));
}

#[tokio::test(start_paused = true)]
async fn a_send_waits_for_a_connection_and_try_send_does_not() {
    let (script, mut sockets) = Script::new([Answer::Unreachable, Answer::Unreachable]);
    let mut client = script.client();
    assert!(client.try_send("x").unwrap_err().is_closed());
    client.send("one").await.unwrap();
    client.try_send("two").unwrap();
    let mut server = sockets.recv().await.unwrap();
    for expected in ["one", "two"] {
        assert_eq!(server.recv().await.unwrap(), Some(Message::from(expected)));
    }
    assert_eq!(script.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_had_arrived_is_received_though_a_send_has_found_the_connection_lost() {
    let (script, mut sockets) = Script::new([Answer::Drop(&["one", "two"])]);
    let mut client = script.client();
    client.ready().await.unwrap();
    // The server is gone; whichever of these finds out, one of them is sent on the new connection.
    sleep(Duration::from_secs(1)).await;
    let mut sent = 0;
    while script.attempts() == 1 {
        client.send("x").await.unwrap();
        sent += 1;
        assert!(sent < 10);
    }
    for expected in ["one", "two"] {
        assert_eq!(client.recv().await.unwrap(), Message::from(expected));
    }
    let mut server = sockets.recv().await.unwrap();
    assert_eq!(server.recv().await.unwrap(), Some(Message::from("x")));
}

/// What comes next, in words.
async fn next(client: &mut Reconnecting) -> String {
    match client.next().await.unwrap() {
        Next::Opened(_) => "opened".to_owned(),
        Next::Message(message) => message.to_string(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_loop_that_receives_says_on_each_connection_what_it_knows_from_the_last() {
    let (script, mut sockets) = Script::new([]);
    let mut client = script.fresh(|_| async { Ok(Client::new("ws://server.example/")) });
    let feed = tokio::spawn(async move {
        // A variable, and not an `Arc<Mutex<…>>`; and another arm of the same loop sends.
        let mut last = 0;
        let mut ticks = tokio::time::interval(Duration::from_secs(20));
        ticks.tick().await;
        loop {
            tokio::select! {
                next = client.next() => match next? {
                    Next::Opened(socket) => {
                        if let Err(error) = socket.send(format!("since {last}")).await {
                            client.reconnect(error);
                        }
                    }
                    Next::Message(message) => last = message.as_text().unwrap().parse().unwrap(),
                },
                _ = ticks.tick() => client.send(format!("last {last}")).await?,
            }
            if last == 4 {
                return client.close(CloseCode::NORMAL).await;
            }
        }
    });
    for since in [0, 2] {
        let mut server = sockets.recv().await.unwrap();
        assert_eq!(server.recv().await.unwrap(), Some(Message::from(format!("since {since}"))));
        for number in [since + 1, since + 2] {
            server.send(number.to_string()).await.unwrap();
        }
        let said = server.recv().await.unwrap();
        assert_eq!(said, (since == 0).then(|| Message::from("last 2")));
    }
    feed.await.unwrap().unwrap();
    assert_eq!(script.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_new_connection_is_told_of_once() {
    let (script, mut sockets) =
        Script::new([Answer::Unreachable, Answer::Close(&["one"], CloseCode::NORMAL.into()), Answer::Open]);
    let mut client = script.client();
    // Neither dropped calls nor those that only open it take the news away.
    assert!(timeout(Duration::from_millis(1), client.next()).await.is_err());
    client.ready().await.unwrap();
    client.send("early").await.unwrap();
    for expected in ["opened", "one", "opened"] {
        assert_eq!(next(&mut client).await, expected);
    }
    let mut server = sockets.recv().await.unwrap();
    server.send("two").await.unwrap();
    assert_eq!(next(&mut client).await, "two");
    // What is received by `recv` is known.
    drop(server);
    let (message, ()) = tokio::join!(client.recv(), async {
        let mut server = sockets.recv().await.unwrap();
        server.send("three").await.unwrap();
        server.send("four").await.unwrap();
        assert!(sockets.try_recv().is_err());
        // It stays.
        tokio::spawn(async move { server.recv().await });
    });
    assert_eq!(message.unwrap(), Message::from("three"));
    assert_eq!(next(&mut client).await, "four");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_of_no_use_is_replaced() {
    let (script, mut sockets) = Script::new([]);
    let (mut client, events) = recorded(script.client());
    client.reconnect(Error::other("there is none"));
    assert_eq!(client.state(), State::Connecting);
    assert_eq!(next(&mut client).await, "opened");
    let mut server = sockets.recv().await.unwrap();
    server.send("no such channel").await.unwrap();
    assert_eq!(next(&mut client).await, "no such channel");
    client.reconnect(Error::other("not subscribed"));
    assert_eq!(client.state(), State::Waiting);
    assert_eq!(server.recv().await.unwrap(), None);
    assert_eq!(server.peer_close(), Some(CloseCode::NORMAL.into()));
    client.ready().await.unwrap();
    let expected = "connecting 1, open 1, lost, waiting 2, connecting 2, open 2";
    assert_eq!(events.lock().unwrap().join(", "), expected);

    // Of one that the server has closed, the code decides.
    let (script, _sockets) = Script::new([close(4001)]);
    let mut client = script.client().decide(|ended| match ended.close_code().map(CloseCode::as_u16) {
        Some(4001) => Decision::GiveUp,
        _ => ended.decision(),
    });
    let Next::Opened(socket) = client.next().await.unwrap() else { panic!("it was opened") };
    let error = loop {
        tokio::task::yield_now().await;
        match socket.send("since 0").await {
            Ok(()) => assert_eq!(socket.recv().await.unwrap(), None),
            Err(error) => break error,
        }
    };
    assert!(error.is_closed());
    client.reconnect(error);
    assert_eq!(client.next().await.unwrap_err().close_code().map(CloseCode::as_u16), Some(4001));
    assert_eq!(script.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_it_in_every_state() {
    // Never awaited.
    let (script, _sockets) = Script::new([]);
    let mut client = script.client();
    client.close(CloseCode::NORMAL).await.unwrap();
    assert!(client.recv().await.unwrap_err().is_closed());
    assert!(client.send("x").await.unwrap_err().is_closed());
    assert_eq!((client.state(), script.attempts()), (State::Over, 0));

    // While it connects, and while it waits.
    for (answer, state) in [(Answer::Silence, State::Connecting), (status(503), State::Waiting)] {
        let (script, _sockets) = Script::new([answer]);
        let mut client = script.client();
        assert!(timeout(Duration::from_millis(50), client.recv()).await.is_err());
        assert_eq!(client.state(), state);
        assert!(client.close(CloseCode::ABNORMAL).await.unwrap_err().is_invalid());
        assert_eq!(client.state(), state, "that code must not be sent");
        client.close(CloseCode::NORMAL).await.unwrap();
        assert!(timeout(Duration::from_secs(60), client.recv()).await.unwrap().unwrap_err().is_closed());
        assert_eq!(script.attempts(), 1);
    }

    // While it is open: by the book, and what came before is still received.
    let (script, mut sockets) = Script::new([]);
    let mut client = script.client();
    client.ready().await.unwrap();
    let mut server = sockets.recv().await.unwrap();
    server.send("last").await.unwrap();
    let (closed, received) = tokio::join!(client.close(Close::new(CloseCode::NORMAL, "bye")), server.recv());
    closed.unwrap();
    assert_eq!(received.unwrap(), None);
    assert_eq!(server.peer_close(), Some(Close::new(CloseCode::NORMAL, "bye")));
    assert_eq!(client.recv().await.unwrap(), Message::from("last"));
    assert!(client.recv().await.unwrap_err().is_closed());
    assert_eq!(script.attempts(), 1);
}

#[test]
fn it_can_move_to_another_thread_and_be_shared() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn is_sync<T: Sync>(value: T) -> T {
        value
    }
    // With hooks and futures that are not `Sync`.
    let (cell, other) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let client = Reconnecting::new(Backoff::default(), move |_| {
        let cell = cell.take();
        async move {
            let cell = std::cell::Cell::new(cell);
            tokio::task::yield_now().await;
            cell.set(1);
            Ok(Client::new("ws://a.example/"))
        }
    });
    let mut client = is_sync(is_send(client.on_event(move |_| other.set(1))));
    drop(is_sync(is_send(client.recv())));
    drop(is_sync(is_send(client.send("x"))));
    drop(is_sync(is_send(client.close(CloseCode::NORMAL))));
}
