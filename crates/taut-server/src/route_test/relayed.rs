//! Backends that have WebSockets of their own: what is sent to one, and what comes back.

use std::time::Duration;

use taut::{Close, CloseCode, Error, Heartbeat, Message, WebSocket};
use tokio::time::{Instant, timeout};

use super::{Body, Exchange, Happening, Reply, Request, RouteTest, State, VANISHED, Verdict, closes, let_in, sends};
use crate::gateway::event::{self, Answer};
use crate::gateway::{Dialled, Failure, Opened, RelaySettings};

impl RouteTest {
    /// Connects to the backend.
    pub(super) async fn dial(&mut self) -> Option<Exchange> {
        let job = self.job()?;
        let began = Instant::now();
        let until = began + self.route.timeout();
        let Dialled { reply, opened } = job.dial(&RelaySettings::new(Heartbeat::standard()), until).await;
        let took = began.elapsed();
        let shown = job.show_relay();
        let request = Request {
            method: "GET",
            address: shown.address,
            script: None,
            headers: shown.headers,
            body: Body::Text(String::new()),
        };
        let mut exchange =
            Exchange { reply: reply.map(|reply| Reply::of(&reply, false)), took, ..exchange("open", request) };
        match opened {
            Ok(Opened { socket, acceptance }) => {
                self.state = State::Open;
                exchange.does = let_in(&Answer { acceptance, ..Answer::default() });
                self.socket = Some(socket);
                self.collect(&mut exchange, GREETING).await;
            }
            Err(judged) => self.conclude(&mut exchange, judged),
        }
        Some(exchange)
    }

    /// Passes a message on to the backend, and takes what comes back.
    pub(super) async fn pass_on(&mut self, happening: Happening) -> Option<Exchange> {
        let (event, body, message): (_, _, Message<'_>) = match happening {
            Happening::Text(text) => ("text", Body::Text(text.clone()), text.into()),
            Happening::Binary(bytes) => ("binary", Body::Binary(bytes.clone()), bytes.into()),
            Happening::Timer => {
                let mut exchange = exchange("timer", bare(Body::Text(String::new())));
                exchange.left_out.push("the timer event: a backend with ws:// gets messages alone".to_owned());
                return Some(exchange);
            }
        };
        let began = Instant::now();
        let mut exchange = exchange(event, bare(body));
        match self.socket.as_mut()?.send(message).await {
            Ok(()) => self.collect(&mut exchange, ANSWER).await,
            Err(error) => self.fail(&mut exchange, &error),
        }
        exchange.took = began.elapsed();
        if exchange.does.is_empty() {
            exchange.does.push(format!("sends nothing: nothing came within {} s", ANSWER.as_secs()));
        }
        Some(exchange)
    }

    /// Ends the backend's connection as the client does, unless that is over.
    pub(super) async fn hang_up(&mut self, code: u16, reason: &str) -> Option<Exchange> {
        let mut socket = self.socket.take()?;
        let mut exchange = exchange("close", bare(Body::Text(reason.to_owned())));
        if code == VANISHED {
            exchange.does.push("drops the backend's connection without a Close frame".to_owned());
            return Some(exchange);
        }
        match socket.close(Close::new(CloseCode::new(code), reason)).await {
            Ok(()) => exchange.does.push(format!("closes the backend's connection with {code}")),
            Err(error) => (exchange.verdict, exchange.why) = (Verdict::Failed, Some(error.to_string())),
        }
        Some(exchange)
    }

    /// Takes what comes until the backend is silent.
    async fn collect(&mut self, exchange: &mut Exchange, first: Duration) {
        let mut patience = first;
        while exchange.does.len() < MOST_MESSAGES
            && let Some(socket) = &mut self.socket
            && let Ok(received) = timeout(patience, socket.recv()).await
        {
            patience = SILENCE;
            match received {
                Ok(Some(Message::Text(text))) => {
                    exchange.does.push(sends(&event::Message::Text(text.into())));
                }
                Ok(Some(Message::Binary(bytes))) => {
                    exchange.does.push(sends(&event::Message::Binary(bytes.into())));
                }
                Ok(None) => {
                    let close = socket.peer_close();
                    self.over(exchange, close.as_ref());
                }
                Err(error) => self.fail(exchange, &error),
            }
        }
    }

    fn over(&mut self, exchange: &mut Exchange, close: Option<&Close>) {
        let close = close.cloned().unwrap_or_else(|| CloseCode::NO_STATUS.into());
        exchange.does.push(closes(close.code().as_u16(), close.reason()));
        (self.state, self.socket) = (State::Over, None::<WebSocket>);
    }

    fn fail(&mut self, exchange: &mut Exchange, error: &Error) {
        (exchange.verdict, exchange.why) = (Verdict::Failed, Some(error.to_string()));
        self.over(exchange, Some(&Failure::Broken.close()));
    }
}

fn exchange(event: &'static str, request: Request) -> Exchange {
    Exchange {
        event,
        request,
        reply: None,
        took: Duration::ZERO,
        stderr: String::new(),
        verdict: Verdict::CarriedOut,
        does: Vec::new(),
        left_out: Vec::new(),
        why: None,
        again: None,
    }
}

/// A message, which is passed on as it is.
fn bare(body: Body) -> Request {
    Request { method: "", address: String::new(), script: None, headers: Vec::new(), body }
}

/// How long a backend may take to greet, and to answer, and how long it is silent before what it says is taken for all.
const GREETING: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_millis(200);

/// Lines of one exchange.
const MOST_MESSAGES: usize = 100;
