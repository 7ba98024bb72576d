//! What can go wrong with a connection over tokio.

mod proxy;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use taut_proto::handshake::{InvalidHeader, InvalidRequest, Refusal, Rejection};
use taut_proto::{Close, CloseCode, Role, SendError, UnexpectedEnd, Violation};

use super::Error;
use crate::Response;
pub(crate) use proxy::ProxyFailure;

impl Error {
    /// Whether nothing was sent because the connection is closing or was closed, by either side.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, Cause::Closed | Cause::ClosedBy(_) | Cause::Disconnected)
    }

    /// Whether a deadline passed: connecting, the handshake, the heartbeat, the close, a message that the peer began
    /// and did not go on with ([`Limits::message_timeout`](crate::Limits::message_timeout)), or a send that could not
    /// go on because neither side reads.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Cause::Deadline(_))
    }

    /// Whether the peer fell silent: it did not answer a ping of the heartbeat, or began a message and did not go on
    /// with it. Each is a [timeout](Self::is_timeout).
    pub fn is_silent(&self) -> bool {
        matches!(*self.0, Cause::Deadline(Deadline::Heartbeat | Deadline::Message))
    }

    /// Whether the peer broke the WebSocket protocol. It was told by a close frame.
    pub fn is_protocol(&self) -> bool {
        matches!(*self.0, Cause::Violation(_))
    }

    /// Whether the connection was closed in the middle of a message: what was received of it is not the message. The
    /// close handshake itself may have been clean, and [`peer_close`](crate::WebSocket::peer_close) says what the peer
    /// said.
    pub fn is_cut_off(&self) -> bool {
        matches!(*self.0, Cause::CutOff(_))
    }

    /// Whether the connection failed: it could not be made, broke, or ended without a close frame (code 1006).
    pub fn is_io(&self) -> bool {
        matches!(*self.0, Cause::Io { .. } | Cause::Lookup { .. } | Cause::Unreachable { .. } | Cause::UnexpectedEnd(_))
    }

    /// Whether there was no connection to the server: no byte of a request was sent. That includes a name that cannot be
    /// looked up, an address that does not answer, and a TLS handshake that failed or broke.
    pub fn is_connect(&self) -> bool {
        match &*self.0 {
            Cause::Lookup { .. } | Cause::Unreachable { .. } => true,
            Cause::Io { doing, .. } => matches!(doing, Doing::Connecting | Doing::Securing | Doing::Tunnelling),
            _ => self.is_tls(),
        }
    }

    /// Whether the opening handshake failed: the server did not accept ours, or we did not accept the client's.
    pub fn is_handshake(&self) -> bool {
        matches!(*self.0, Cause::Redirect { .. } | Cause::Rejected(..) | Cause::Refused(_))
    }

    /// Whether TLS failed: a certificate was refused, or the two sides have no common version or cipher. Trying again
    /// does not help until something has changed. A connection that broke meanwhile is [`is_io`](Self::is_io).
    pub fn is_tls(&self) -> bool {
        match &*self.0 {
            #[cfg(feature = "tls")]
            Cause::Tls(failure) => !failure.is_setting(),
            _ => false,
        }
    }

    /// Whether the proxy did not do what it was asked to; [`status`](Self::status) is then the proxy's.
    pub fn is_proxy(&self) -> bool {
        matches!(*self.0, Cause::Proxy(_))
    }

    /// Whether the caller asked for something impossible: a malformed URL or header, a ping that is too long.
    pub fn is_invalid(&self) -> bool {
        match &*self.0 {
            Cause::CloseCode(_) | Cause::Header { .. } | Cause::Ping(_) | Cause::ProxySettings(_) => true,
            Cause::MixedParts | Cause::PartsNotUtf8 | Cause::Request(_) | Cause::Setting(_) | Cause::Url(_) => true,
            #[cfg(feature = "tls")]
            Cause::Tls(failure) => failure.is_setting(),
            _ => false,
        }
    }

    /// Whether [`try_send`](crate::WebSocket::try_send) or [`pong`](crate::WebSocket::pong) did nothing because too much is
    /// waiting for the peer to read, or `try_send` because another handle is
    /// [sending a message in parts](crate::Sender::send_stream).
    pub fn is_full(&self) -> bool {
        matches!(*self.0, Cause::Full | Cause::InMessage)
    }

    /// The HTTP status of a handshake that failed, if it was one that HTTP has a status for; the proxy's, if it was the
    /// proxy that failed ([`is_proxy`](Self::is_proxy)).
    pub fn status(&self) -> Option<u16> {
        match &*self.0 {
            Cause::Proxy(failure) => failure.status(),
            Cause::Redirect { response, .. } => Some(response.status()),
            Cause::Rejected(Rejection::Status { status, .. }, _) => Some(*status),
            Cause::Refused(refusal) => Some(refusal.status()),
            _ => None,
        }
    }

    /// What the server has answered to the handshake that it did not accept, or that we did not accept of it: status,
    /// headers such as `www-authenticate`, and a bounded body. The proxy's answer, if it was the proxy that failed
    /// ([`is_proxy`](Self::is_proxy)). `None` if there was no answer that could be read as HTTP, and for every other
    /// failure.
    pub fn response(&self) -> Option<&Response> {
        match &*self.0 {
            Cause::Proxy(failure) => failure.response(),
            Cause::Redirect { response, .. } => Some(response),
            Cause::Rejected(_, response) => response.as_ref(),
            _ => None,
        }
    }

    /// The response and the `Location` of a redirect (RFC 9110 §15.4) that says where to go on.
    pub(crate) fn redirect(&self) -> Option<(&Response, &str)> {
        match &*self.0 {
            Cause::Rejected(rejection, Some(response)) => Some((response, rejection.redirect()?)),
            _ => None,
        }
    }

    /// How long the server asks clients to wait before they try again, if it did not accept the handshake.
    pub fn retry_after(&self) -> Option<Duration> {
        match &*self.0 {
            Cause::Rejected(Rejection::Status { retry_after, .. }, _) => *retry_after,
            _ => None,
        }
    }

    /// The close code of this failure: the one that the peer was sent, or 1006 for a connection that broke (RFC 6455
    /// §7.1.5). `None` if there was no connection, or it goes on.
    pub fn close_code(&self) -> Option<CloseCode> {
        match &*self.0 {
            Cause::ClosedBy(close) | Cause::CutOff(close) => Some(close.code()),
            Cause::Deadline(Deadline::Message) => Some(CloseCode::POLICY),
            Cause::Violation(violation) => Some(violation.close_code()),
            Cause::UnexpectedEnd(_) | Cause::Deadline(Deadline::Close | Deadline::Heartbeat) => {
                Some(CloseCode::ABNORMAL)
            }
            Cause::Io { doing: Doing::Reading | Doing::Writing, .. } => Some(CloseCode::ABNORMAL),
            _ => None,
        }
    }

    /// Whether the same may succeed when a client tries it again on a new connection: the server could not be reached,
    /// the connection broke, a deadline passed, or the server refused for now.
    // One list, but in groups that can be read.
    #[allow(clippy::match_same_arms)]
    pub fn is_transient(&self) -> bool {
        // Each by its name: what is added has to be decided on.
        match &*self.0 {
            Cause::Deadline(_) | Cause::UnexpectedEnd(_) | Cause::Other(_) => true,
            // Of a hook that has found the new connection closed, or has sent too much at once.
            Cause::Closed | Cause::Disconnected | Cause::Full | Cause::InMessage => true,
            // What TLS of the application's own does not accept comes in this form. TCP gives no such error.
            Cause::Io { doing: Doing::Connecting | Doing::Opening, error } => {
                !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
            }
            Cause::Io { doing: Doing::Listening, .. } => false,
            Cause::Io { doing: Doing::Reading | Doing::Securing | Doing::Tunnelling | Doing::Writing, .. } => true,
            // A device that is offline finds no name.
            Cause::Lookup { .. } | Cause::Unreachable { .. } => true,
            Cause::Proxy(failure) => failure.is_transient(),
            Cause::Rejected(rejection, _) => rejection.is_transient(),
            #[cfg(feature = "tls")]
            Cause::Tls(_) => false,
            Cause::ClosedBy(close) | Cause::CutOff(close) => may_come_back(close),
            Cause::Refused(_) | Cause::Violation(_) => false,
            Cause::CloseCode(_) | Cause::Header { .. } | Cause::MixedParts | Cause::Ping(_) => false,
            Cause::Request(_) => false,
            Cause::PartsNotUtf8 | Cause::ProxySettings(_) | Cause::Random(_) | Cause::Redirect { .. } => false,
            Cause::Setting(_) | Cause::Url(_) => false,
        }
    }

    pub(crate) fn io(doing: Doing, error: io::Error) -> Self {
        // What TLS has to say may come behind its handshake: a TLS 1.3 server judges the client's certificate late.
        #[cfg(feature = "tls")]
        if matches!(doing, Doing::Opening | Doing::Tunnelling)
            && let Some(failure) = tls::Failure::of(tls::Peer::Either, &error)
        {
            return Cause::Tls(failure).into();
        }
        Cause::Io { doing, error }.into()
    }
}

/// The server closed the connection: for a hook of a [`Reconnecting`](crate::Reconnecting) that waits for an answer in
/// vain. It is [decided on](crate::Reconnecting::decide) by its code.
impl From<Close> for Error {
    fn from(close: Close) -> Self {
        Cause::ClosedBy(close).into()
    }
}

/// Whether a client may come back after it was closed like this: with another code it would end the same way again.
pub(crate) fn may_come_back(close: &Close) -> bool {
    !matches!(close.code().as_u16(), 1002 | 1003 | 1007..=1010)
}

/// What an [`Error`] is about.
#[derive(Debug)]
pub(crate) enum Cause {
    CloseCode(CloseCode),
    Closed,
    /// By the server: what a reconnecting client has given up after, or a hook has failed with.
    ClosedBy(Close),
    /// In the middle of a message, with this close frame of the peer's.
    CutOff(Close),
    Deadline(Deadline),
    /// A reconnecting client has no connection now.
    Disconnected,
    Full,
    /// Of a request, which is a client's, or of a response.
    Header {
        name: String,
        invalid: InvalidHeader,
        role: Role,
    },
    /// Another handle is sending a message in parts.
    InMessage,
    Io {
        doing: Doing,
        error: io::Error,
    },
    /// The name cannot be looked up.
    Lookup {
        host: String,
        error: io::Error,
    },
    MixedParts,
    PartsNotUtf8,
    Other(Box<dyn std::error::Error + Send + Sync>),
    Ping(SendError),
    Proxy(ProxyFailure),
    /// The proxy's URL, or the variable with it, cannot be used.
    ProxySettings(String),
    Random(getrandom::Error),
    Refused(Refusal),
    /// A redirect that is not followed.
    Redirect {
        response: Response,
        wrong: &'static str,
    },
    /// With what the server has answered, if that could be read.
    Rejected(Rejection, Option<Response>),
    Request(InvalidRequest),
    Setting(&'static str),
    #[cfg(feature = "tls")]
    Tls(tls::Failure),
    UnexpectedEnd(UnexpectedEnd),
    /// No address could be connected to; in the order in which they failed.
    Unreachable {
        attempts: Vec<(SocketAddr, io::Error)>,
    },
    Url(&'static str),
    Violation(Violation),
}

impl Cause {
    /// The error that it is about.
    pub(super) fn inner(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::CloseCode(_)
            | Self::Closed
            | Self::ClosedBy(_)
            | Self::CutOff(_)
            | Self::Deadline(_)
            | Self::Disconnected
            | Self::Full
            | Self::InMessage
            | Self::MixedParts
            | Self::PartsNotUtf8
            | Self::Url(_) => None,
            Self::Header { invalid, .. } => Some(invalid),
            Self::Proxy(_) | Self::ProxySettings(_) | Self::Redirect { .. } | Self::Setting(_) => None,
            Self::Io { error, .. } | Self::Lookup { error, .. } => Some(error),
            Self::Other(problem) => Some(&**problem),
            Self::Ping(error) => Some(error),
            Self::Random(error) => Some(error),
            Self::Refused(refusal) => Some(refusal),
            Self::Rejected(rejection, _) => Some(rejection),
            Self::Request(invalid) => Some(invalid),
            #[cfg(feature = "tls")]
            Self::Tls(failure) => failure.inner(),
            Self::UnexpectedEnd(end) => Some(end),
            Self::Unreachable { attempts } => attempts.last().map(|(_, error)| error as _),
            Self::Violation(violation) => Some(violation),
        }
    }
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    /// The application's part of an attempt to connect, after so long.
    Client(Duration),
    Close,
    /// Connecting and the client's handshake, after so long, at this stage.
    Connect(Duration, ConnectStage),
    /// The server's part of the handshake, after so long.
    Handshake(Duration),
    Heartbeat,
    /// The peer has begun a message and not gone on with it.
    Message,
    /// The peer does not read and the inbox is full, for so long.
    Stall(Duration),
    /// Hyper's part of the handshake, after so long.
    #[cfg(feature = "hyper")]
    Upgrade(Duration),
}

/// What was being done when I/O failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doing {
    Connecting,
    Listening,
    Opening,
    /// TLS.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody does"))]
    Securing,
    Reading,
    /// Asking a proxy for a tunnel.
    Tunnelling,
    Writing,
}

/// How far a client has come on its way to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ConnectStage {
    #[default]
    Lookup,
    Tcp,
    Proxy,
    Tls,
    Upgrade,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseCode(code) => {
                write!(f, "close code {code} must not be sent (RFC 6455 §7.4); use 1000 or one of 3000 to 4999")
            }
            Self::Closed => f.write_str("the connection is closed: nothing can be sent any more"),
            Self::ClosedBy(close) => write!(f, "the server closed the connection: {close}"),
            Self::CutOff(close) => write!(
                f,
                "the connection was closed in the middle of a message, which is incomplete; the peer's close frame: {close}"
            ),
            Self::Deadline(deadline) => deadline.fmt(f),
            Self::Disconnected => f.write_str("there is no connection now; nothing was sent"),
            Self::Header { name, invalid, role } => write_header_fault(f, name, *invalid, *role),
            Self::Full => f.write_str("too much is waiting for the peer to read; nothing was sent"),
            Self::InMessage => f.write_str(
                "another handle is sending a message in parts, and no other may come between; nothing was sent",
            ),
            Self::Io { doing, error } => {
                let doing = match doing {
                    Doing::Connecting => "cannot connect",
                    Doing::Listening => "cannot listen",
                    Doing::Opening => "the connection broke during the opening handshake",
                    Doing::Securing => "the connection broke during the TLS handshake",
                    Doing::Reading => "the connection broke while reading",
                    Doing::Tunnelling => "the connection to the proxy broke before there was a tunnel",
                    Doing::Writing => "the connection broke while writing",
                };
                write!(f, "{doing}: {error}")
            }
            Self::Lookup { host, error } => {
                write!(f, "the address of {host} cannot be found: {error}; is the name right, and the network there?")
            }
            Self::MixedParts => f.write_str("the parts of a message must all be text or all be bytes"),
            Self::PartsNotUtf8 => {
                f.write_str("the parts of a text message must be UTF-8 together; this one was not sent")
            }
            Self::Other(problem) => problem.fmt(f),
            Self::Ping(error) => error.fmt(f),
            Self::Proxy(failure) => failure.fmt(f),
            Self::ProxySettings(wrong) => f.write_str(wrong),
            Self::Random(error) => write!(f, "the operating system gives no random numbers: {error}"),
            Self::Refused(refusal) => {
                write!(f, "the client's handshake was refused with status {}: {refusal}", refusal.status())
            }
            Self::Redirect { response, wrong } => {
                write!(f, "the server redirects us (status {}), but {wrong}", response.status())
            }
            Self::Rejected(rejection, response) => write_rejection(f, rejection, response.as_ref()),
            Self::Request(invalid) => invalid.fmt(f),
            #[cfg(feature = "tls")]
            Self::Tls(failure) => failure.fmt(f),
            Self::UnexpectedEnd(end) => end.fmt(f),
            Self::Unreachable { attempts } => {
                f.write_str("cannot connect; is the server running, and the port right? Tried")?;
                for (index, (address, error)) in attempts.iter().enumerate() {
                    write!(f, "{} {address}: {error}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Setting(wrong) | Self::Url(wrong) => f.write_str(wrong),
            Self::Violation(violation) => violation.fmt(f),
        }
    }
}

/// What a server says itself is better than our guess.
fn write_rejection(f: &mut fmt::Formatter<'_>, rejection: &Rejection, response: Option<&Response>) -> fmt::Result {
    match (rejection, response.and_then(Response::words)) {
        (Rejection::Status { status: status @ 400.., .. }, Some(words)) => {
            write!(f, "The server answered with HTTP status {status} instead of 101: {}", Words(words))
        }
        (Rejection::HeadTooLarge, _) => write!(f, "{rejection} Client::head_limits sets it."),
        _ => fmt::Display::fmt(rejection, f),
    }
}

fn write_header_fault(f: &mut fmt::Formatter<'_>, name: &str, invalid: InvalidHeader, role: Role) -> fmt::Result {
    let side = if role == Role::Client { "request" } else { "response" };
    match invalid {
        InvalidHeader::Reserved(name) => {
            fmt::Display::fmt(&invalid, f)?;
            let method = match (role, name) {
                (Role::Client, "Host") => "Client::host",
                (Role::Client, "Origin") => "Client::origin",
                (Role::Client, "Sec-WebSocket-Extensions") => "Client::deflate",
                (Role::Client, "Sec-WebSocket-Protocol") => "Client::subprotocol",
                (Role::Server, "Sec-WebSocket-Extensions") => "Acceptor::deflate or Incoming::deflate",
                (Role::Server, "Sec-WebSocket-Protocol") => "Acceptor::subprotocols or Incoming::select_subprotocol",
                _ => return Ok(()),
            };
            write!(f, "; use {method}")
        }
        // What is not a name may be a secret in the wrong place.
        InvalidHeader::Name => write!(f, "a header of the {side} must not be sent: {invalid}"),
        _ => write!(f, "the header {name} of the {side} must not be sent: {invalid}"),
    }
}

/// Somebody else's words within one of our lines: short, and without what would end the line or hide it.
struct Words<'a>(&'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        for (index, character) in self.0.chars().enumerate() {
            match character {
                _ if index == WORDS => return f.write_str("…"),
                '"' | '\'' | '\\' => f.write_char(character)?,
                _ => write!(f, "{}", character.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// Characters of a body that an error shows.
const WORDS: usize = 200;

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(after) => write!(
                f,
                "the function given to Reconnecting::new did not make a client within {after:?} \
                 (Reconnecting::client_timeout)"
            ),
            Self::Close => f.write_str("the peer did not answer our close frame in time; the connection was dropped"),
            Self::Connect(after, stage) => {
                let stage = match stage {
                    ConnectStage::Lookup => "the server's name was being looked up",
                    ConnectStage::Tcp => "no address has answered; is the URL right, and the server running?",
                    ConnectStage::Proxy => "the proxy has not answered",
                    ConnectStage::Tls => "the TLS handshake was under way; is it the right port?",
                    ConnectStage::Upgrade => "the server has not answered the handshake; is it a WebSocket server?",
                };
                write!(f, "connecting took longer than {after:?}: {stage}")
            }
            Self::Handshake(after) => write!(f, "the client did not finish its handshake within {after:?}"),
            Self::Heartbeat => f.write_str("the peer fell silent and did not answer a ping; it is taken for gone"),
            Self::Message => f.write_str(
                "the peer began a message and did not go on with it fast enough (Limits::message_timeout); the connection \
                 was closed",
            ),
            Self::Stall(after) => write!(
                f,
                "for {after:?} the peer has read nothing, and what it sent waits to be received here; call recv, or \
                 close"
            ),
            #[cfg(feature = "hyper")]
            Self::Upgrade(after) => write!(
                f,
                "the connection was not handed over within {after:?}; was the response of the upgrade returned, and \
                 is the HTTP connection served with upgrades?"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    type Predicate = fn(&Error) -> bool;

    fn answered(head: &str, body: &str) -> Response {
        Response::new(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body.as_bytes().to_vec(), true)
    }

    /// The text of a handshake that is refused with this.
    fn refused(head: &str, body: &str) -> String {
        let response = answered(head, body);
        let rejection = Rejection::Status { status: response.status(), retry_after: None, location: None };
        Error::from(Cause::Rejected(rejection, Some(response))).to_string()
    }

    #[test]
    fn each_error_answers_to_one_predicate() {
        let predicates: [Predicate; 10] = [
            Error::is_closed,
            Error::is_timeout,
            Error::is_protocol,
            Error::is_io,
            Error::is_handshake,
            Error::is_invalid,
            Error::is_full,
            Error::is_tls,
            Error::is_proxy,
            Error::is_cut_off,
        ];
        let causes = [
            (Cause::Closed, 0),
            (Cause::ClosedBy(CloseCode::POLICY.into()), 0),
            (Cause::Disconnected, 0),
            (Cause::Deadline(Deadline::Heartbeat), 1),
            (Cause::Deadline(Deadline::Message), 1),
            (Cause::Violation(Violation::Unmasked), 2),
            (Cause::UnexpectedEnd(UnexpectedEnd), 3),
            (Cause::Io { doing: Doing::Reading, error: io::ErrorKind::ConnectionReset.into() }, 3),
            (Cause::Rejected(Rejection::Accept, None), 4),
            (Cause::Refused(Refusal::timeout()), 4),
            (Cause::Url("no"), 5),
            (Cause::ProxySettings(String::new()), 5),
            (Cause::CloseCode(CloseCode::ABNORMAL), 5),
            (Cause::Full, 6),
            (Cause::InMessage, 6),
            (Cause::Unreachable { attempts: Vec::new() }, 3),
            (Cause::Redirect { response: answered("302 Found", ""), wrong: "no" }, 4),
            #[cfg(feature = "tls")]
            (Cause::Tls(tls::Failure::Settings(String::new())), 5),
            #[cfg(feature = "tls")]
            (Cause::Tls(tls::Failure::NoRoots(String::new())), 7),
            (Cause::Proxy(ProxyFailure::Status(answered("407 Who?", ""))), 8),
            (Cause::CutOff(CloseCode::NORMAL.into()), 9),
        ];
        for (cause, expected) in causes {
            let error = Error::from(cause);
            let answers: Vec<_> = (0..predicates.len()).filter(|&index| predicates[index](&error)).collect();
            assert_eq!(answers, [expected], "{error:?}");
        }
    }

    #[test]
    fn a_server_that_was_not_reached_is_told_from_one_that_was() {
        let io = |doing| Cause::Io { doing, error: io::ErrorKind::ConnectionReset.into() };
        for (cause, expected) in [
            (Cause::Unreachable { attempts: Vec::new() }, true),
            (io(Doing::Connecting), true),
            (io(Doing::Securing), true),
            (io(Doing::Opening), false),
            (io(Doing::Reading), false),
            (Cause::UnexpectedEnd(UnexpectedEnd), false),
            (Cause::Rejected(Rejection::Accept, None), false),
        ] {
            let error = Error::from(cause);
            assert_eq!(error.is_connect(), expected, "{error:?}");
        }
    }

    #[test]
    fn a_peer_that_fell_silent_is_told_from_other_deadlines() {
        for (deadline, expected) in [
            (Deadline::Heartbeat, true),
            (Deadline::Message, true),
            (Deadline::Close, false),
            (Deadline::Connect(Duration::ZERO, ConnectStage::Tcp), false),
            (Deadline::Stall(Duration::ZERO), false),
        ] {
            let error = Error::from(Cause::Deadline(deadline));
            assert_eq!((error.is_silent(), error.is_timeout()), (expected, true), "{error:?}");
        }
        assert!(!Error::from(Cause::UnexpectedEnd(UnexpectedEnd)).is_silent());
    }

    #[test]
    fn what_an_error_is_about_is_inside_of_it() {
        let error = Error::io(Doing::Writing, io::ErrorKind::BrokenPipe.into());
        let inner = error.inner().and_then(|inner| inner.downcast_ref::<io::Error>());
        assert_eq!(inner.map(io::Error::kind), Some(io::ErrorKind::BrokenPipe));
        assert!(Error::from(Cause::Closed).inner().is_none());
        assert!(Error::other("no token").inner().is_some());
    }

    /// An error with another one below it.
    #[derive(Debug)]
    struct NoToken(io::Error);

    impl fmt::Display for NoToken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("there is no token")
        }
    }

    impl std::error::Error for NoToken {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    fn one_of_each() -> Vec<Error> {
        let io = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let status = Rejection::Status { status: 503, retry_after: None, location: None };
        let causes = [
            Cause::CutOff(CloseCode::NORMAL.into()),
            Cause::Io { doing: Doing::Reading, error: io() },
            Cause::Io { doing: Doing::Opening, error: io::Error::other(NoToken(io())) },
            Cause::Lookup { host: "a.example".to_owned(), error: io() },
            Cause::Other(Box::new(NoToken(io()))),
            Cause::Ping(SendError::PingTooLong),
            Cause::Refused(Refusal::timeout()),
            Cause::Rejected(status, None),
            Cause::UnexpectedEnd(UnexpectedEnd),
            Cause::Unreachable { attempts: vec![(address, io())] },
            Cause::Violation(Violation::Unmasked),
            #[cfg(feature = "tls")]
            Cause::Tls(tls::Failure::Handshake { peer: tls::Peer::Server, error: rustls::Error::DecryptError }),
        ];
        causes.into_iter().map(Error::from).collect()
    }

    #[test]
    fn the_chain_of_sources_repeats_nothing() {
        for error in one_of_each() {
            let mut told = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                let text = error.to_string();
                assert!(!told.contains(&text), "{told:?} and then {text:?}");
                told = text;
                source = error.source();
            }
        }
    }

    // As `fn main() -> Result<(), taut::Error>` prints it.
    #[test]
    fn debug_is_the_text_and_what_is_below_it() {
        for error in one_of_each() {
            let shown = format!("{error:?}");
            assert!(shown.starts_with(&error.to_string()) && !shown.contains("Error("), "{shown}");
        }
        let error = Error::other(NoToken(io::ErrorKind::NotFound.into()));
        assert_eq!(format!("{error:?}"), "there is no token\n  caused by: entity not found");
        assert!(format!("{error:#?}").starts_with("Error(\n"), "{error:#?}");
    }

    #[test]
    fn a_rejected_handshake_tells_its_status_and_when_to_come_back() {
        let retry_after = Some(Duration::from_secs(7));
        let rejection = Rejection::Status { status: 503, retry_after, location: None };
        let error = Error::from(Cause::Rejected(rejection, None));
        assert_eq!((error.status(), error.retry_after()), (Some(503), retry_after));
        assert!(error.to_string().contains("503"));
    }

    #[test]
    fn what_the_server_says_itself_is_part_of_the_text() {
        let said = "The server answered with HTTP status 401 instead of 101: ";
        for (head, body, words) in [
            ("401 x", "\n  say who you are \nnow", "say who you are"),
            ("401 x\r\nContent-Type: text/plain; charset=utf-8", "wer bist du, Jörg?", "wer bist du, Jörg?"),
            ("401 x\r\nContent-Type: application/json", r#"{"error":"expired"}"#, r#"{"error":"expired"}"#),
            ("401 x\r\nContent-Type: application/problem+json", "{}", "{}"),
            ("401 x", "a\x1b[31mb\0c\u{202e}d", r"a\u{1b}[31mb\0c\u{202e}d"),
        ] {
            assert_eq!(refused(head, body), format!("{said}{words}"));
        }
        let long = refused("401 x", &"ä".repeat(1000));
        assert_eq!(long, format!("{said}{}…", "ä".repeat(200)));
        // A page says nothing that fits into a line, and what is empty or encoded says nothing.
        for (head, body) in [
            ("401 x\r\nContent-Type: text/html", "who?"),
            ("401 x", "<html>who?</html>"),
            ("401 x", " \n"),
            ("401 x\r\nContent-Encoding: gzip", "who?"),
        ] {
            assert!(refused(head, body).contains("check the credentials"), "{head} {body}");
        }
        assert!(refused("200 OK", "hello").contains("is this the path of a WebSocket?"));
    }

    #[test]
    fn a_header_that_belongs_to_the_handshake_is_named_with_what_sets_it() {
        for (role, name, method) in [
            (Role::Client, "Host", Some("Client::host")),
            (Role::Client, "Origin", Some("Client::origin")),
            (Role::Client, "Sec-WebSocket-Protocol", Some("Client::subprotocol")),
            (Role::Client, "Sec-WebSocket-Extensions", Some("Client::deflate")),
            (Role::Client, "Upgrade", None),
            (Role::Server, "Sec-WebSocket-Protocol", Some("Incoming::select_subprotocol")),
            (Role::Server, "Sec-WebSocket-Extensions", Some("Incoming::deflate")),
            (Role::Server, "Sec-WebSocket-Accept", None),
        ] {
            let invalid = InvalidHeader::Reserved(name);
            let text = Error::from(Cause::Header { name: String::new(), invalid, role }).to_string();
            assert!(text.contains(name), "{text}");
            assert_eq!(text.contains("; use "), method.is_some(), "{text}");
            assert!(text.contains(method.unwrap_or_default()), "{text}");
        }
    }
}
