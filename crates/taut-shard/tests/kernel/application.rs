//! What the tests' clients talk to.

use std::net::SocketAddr;

use taut_proto::handshake::{Refusal, Request};
use taut_proto::{Close, CloseCode, Message, Prepared};
use taut_shard::testing::Stage;
use taut_shard::{
    Answer, Closed, ConnectionId, Connections, Handler, HandshakeId, Outgoing, Reason, Responded, Sent, Session,
    Settings, Verdict,
};

/// Does what a message asks for, and keeps what happened.
#[derive(Default)]
pub(crate) struct Application {
    /// Who asked.
    pub(crate) peers: Vec<SocketAddr>,
    /// Handshakes that wait for their answer.
    pub(crate) pending: Vec<HandshakeId>,
    pub(crate) opened: Vec<ConnectionId>,
    pub(crate) messages: Vec<Message<'static>>,
    pub(crate) closed: Vec<(ConnectionId, Reason)>,
    pub(crate) mails: Vec<String>,
    /// Is sent piece by piece to the connection that opened first, as fast as that reads.
    pub(crate) stream: Vec<String>,
    /// What became of what was sent.
    pub(crate) sent: Vec<Sent>,
    /// Bounds of their own for those that open first.
    pub(crate) outgoing: Vec<Outgoing>,
    /// Is sent to each connection when it opens.
    pub(crate) greeting: Option<&'static str>,
    /// Connections are paused as they open.
    pub(crate) is_paused_at_first: bool,
    /// Is accepted when one closes.
    pub(crate) successor: Option<HandshakeId>,
    /// Whoever is left is told when one closes.
    pub(crate) obituary: bool,
}

impl Handler for Application {
    /// The path of the request.
    type User = String;
    type Mail = String;

    fn request<'r>(&mut self, request: &'r Request<'r>, peer: SocketAddr, id: HandshakeId) -> Verdict<'r, String> {
        self.peers.push(peer);
        match request.path() {
            "/secret" => Verdict::Refuse(Refusal::unauthorized("who are you?")),
            "/page" => Verdict::HandOver,
            "/echo" => {
                Verdict::Respond { content: request.header("content-length").map_or(0, |text| text.parse().unwrap()) }
            }
            "/later" => match request.upgrade() {
                Ok(upgrade) => {
                    self.pending.push(id);
                    Verdict::Pending(upgrade.select_subprotocol(&["later"]))
                }
                Err(refusal) => Verdict::Refuse(refusal),
            },
            path => match request.upgrade() {
                Ok(upgrade) => Verdict::Accept(upgrade, path.to_owned()),
                Err(refusal) => Verdict::Refuse(refusal),
            },
        }
    }

    /// Those of a path have a close of their own.
    fn draining(&mut self, connections: &mut Connections<String>, id: ConnectionId, close: &Close) -> Close {
        let has_own = connections.user(id).is_some_and(|path| path == "/own");
        if has_own { Close::new(CloseCode::GOING_AWAY, "bye") } else { close.clone() }
    }

    /// Gives the content back and tells everybody of it.
    fn respond(
        &mut self,
        connections: &mut Connections<String>,
        request: &Request<'_>,
        content: &[u8],
        response: &mut Vec<u8>,
    ) -> Responded {
        assert_eq!(request.path(), "/echo");
        response.extend_from_slice(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", content.len()).as_bytes());
        response.extend_from_slice(content);
        broadcast(connections, str::from_utf8(content).unwrap(), &mut self.sent);
        if request.header("connection") == Some("close") { Responded::Last } else { Responded::Answered }
    }

    fn opened(&mut self, session: &mut Session<'_, String>) {
        self.opened.push(session.id());
        if let Some(outgoing) = self.outgoing.get(self.opened.len() - 1) {
            session.set_outgoing(*outgoing);
        }
        if self.is_paused_at_first {
            session.pause();
        }
        if let Some(greeting) = self.greeting {
            self.sent.push(session.send(greeting));
        }
    }

    fn message(&mut self, session: &mut Session<'_, String>, message: Message<'_>) {
        match message.as_text() {
            Some("close") => session.close(CloseCode::NORMAL),
            Some("who") => {
                let user = session.user().unwrap().clone();
                self.sent.push(session.send(user));
            }
            Some("quiet") => {}
            Some("pause") => session.pause(),
            Some("blink") => {
                session.pause();
                session.resume();
            }
            Some(text) if text.starts_with("all ") => broadcast(session.connections(), text, &mut self.sent),
            _ => self.sent.push(session.send(message.clone())),
        }
        self.messages.push(message.into_owned());
    }

    fn closed(&mut self, connections: &mut Connections<String>, closed: Closed<String>) {
        if let Some(id) = self.successor.take() {
            connections.answer(id, Answer::Accept("the successor".to_owned()));
        }
        if self.obituary {
            broadcast(connections, "one has gone", &mut self.sent);
        }
        self.closed.push((closed.id, closed.reason));
    }

    fn written(&mut self, connections: &mut Connections<String>, id: ConnectionId) {
        if let Some(piece) = self.stream.pop() {
            self.sent.push(connections.send(id, piece));
            connections.notify_written(id);
        }
    }

    fn mail(&mut self, connections: &mut Connections<String>, mail: String) {
        // "first" goes to the connection that opened first, whether or not it still lives.
        match mail.split_once(' ') {
            Some(("pause", _)) => self.opened.iter().for_each(|id| connections.pause(*id)),
            Some(("resume", _)) => self.opened.iter().for_each(|id| connections.resume(*id)),
            Some(("close", _)) => self.opened.iter().for_each(|id| connections.close(*id, CloseCode::GOING_AWAY)),
            Some(("stream", _)) => connections.notify_written(self.opened[0]),
            Some(("first", text)) => self.sent.push(connections.send(self.opened[0], text)),
            Some(("accept", user)) => {
                self.pending.drain(..).for_each(|id| connections.answer(id, Answer::Accept(user.to_owned())));
            }
            Some(("header", user)) => {
                let headers = || vec![("X-Node".into(), "1".into()), ("Upgrade".into(), "h2c".into())];
                let accept = || Answer::AcceptWith(user.to_owned(), headers());
                self.pending.drain(..).for_each(|id| connections.answer(id, accept()));
            }
            Some(("refuse", text)) => {
                let refusal = || Refusal::forbidden(text.to_owned());
                self.pending.drain(..).for_each(|id| connections.answer(id, Answer::Refuse(refusal())));
            }
            _ => broadcast(connections, &mail, &mut self.sent),
        }
        self.mails.push(mail);
    }
}

fn broadcast(connections: &mut Connections<String>, text: &str, sent: &mut Vec<Sent>) {
    let prepared = Prepared::new(text);
    for id in connections.ids().collect::<Vec<_>>() {
        sent.push(connections.send_prepared(id, &prepared));
    }
}

pub(crate) type TestStage = Stage<Application>;

pub(crate) fn stage() -> Stage<Application> {
    stage_with(|_| {})
}

pub(crate) fn stage_with(change: impl FnOnce(&mut Settings)) -> Stage<Application> {
    let mut settings = Settings::default();
    change(&mut settings);
    Stage::new(Application::default(), settings)
}

/// Why the only connection that has ended did.
pub(crate) fn reason(stage: &mut Stage<Application>) -> &Reason {
    match &stage.handler().closed[..] {
        [(_, reason)] => reason,
        closed => panic!("{} connections have ended", closed.len()),
    }
}
