//! Connecting: the way to the server, the handshake, redirects, all under one deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use taut_proto::Role;
use taut_proto::handshake::{Accepted, ClientRequest, ClientResponse, Rejection};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use super::target::Target;
use super::{Client, ProxyChoice};
use crate::error::{Cause, ConnectStage, Deadline, Doing};
use crate::native::body;
use crate::native::head::Head;
use crate::native::trace::Step;
use crate::native::transport::tcp;
use crate::{Error, Proxy, Response, Transport, WebSocket};

impl Client {
    pub(super) async fn within_deadline<T>(
        &self,
        progress: &ConnectProgress,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let late = |_| Cause::Deadline(Deadline::Connect(self.timeout, progress.stage())).into();
        timeout(self.timeout, work).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// Connects, and goes where it is redirected.
    pub(super) async fn follow(&self, first: &Target, progress: &ConnectProgress) -> Result<WebSocket, Error> {
        let mut moved: Option<Target> = None;
        for count in 0.. {
            let target = moved.as_ref().unwrap_or(first);
            let transport = self.dial(target, progress).await?;
            progress.set(ConnectStage::Upgrade);
            let error = match self.open(transport, &target.request, self.redirects > 0, progress).await {
                Ok(socket) => return Ok(socket),
                Err(error) => error,
            };
            let Some((response, location)) = error.redirect().filter(|_| self.redirects > 0) else { return Err(error) };
            let refused = |wrong| Error::from(Cause::Redirect { response: response.clone(), wrong });
            if count == self.redirects {
                return Err(refused(
                    "it has done so too often; is the URL right? Client::redirects says how often it may",
                ));
            }
            moved = Some(target.moved(location).map_err(refused)?);
        }
        unreachable!("it counts further than the redirects that may be followed")
    }

    /// The way to the server, up to where the request can be sent.
    async fn dial(&self, target: &Target, progress: &ConnectProgress) -> Result<Transport, Error> {
        let Target { url, .. } = target;
        let proxy = match &self.proxy {
            ProxyChoice::Direct => None,
            ProxyChoice::Environment => Proxy::from_environment().server(url.is_secure, &url.host, url.port)?,
            ProxyChoice::Through(proxy) => proxy.server(url.is_secure, &url.host, url.port)?,
        };
        let (host, port) = match &proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&url.host, url.port),
        };
        progress.set(ConnectStage::Lookup);
        let addresses = tcp::lookup(host, port).await?;
        self.report(|| Step::Resolved { host, addresses: &addresses });
        progress.set(ConnectStage::Tcp);
        let mut transport = Transport::from(tcp::connect(addresses).await?);
        if let Some(address) = transport.peer_addr() {
            self.report(|| Step::Connected(address));
        }
        if let Some(proxy) = &proxy {
            progress.set(ConnectStage::Proxy);
            transport = proxy.tunnel(transport, &url.host, url.port, self.remaining(progress)).await?;
            let proxy = format!("{proxy:?}");
            self.report(|| Step::Tunnelled { proxy: &proxy });
        }
        #[cfg(feature = "tls")]
        if url.is_secure {
            progress.set(ConnectStage::Tls);
            let secure = if target.is_trusted {
                self.tls.connect(&url.host, transport).await?
            } else {
                self.tls.without_identity().connect(&url.host, transport).await?
            };
            transport = Transport::over_tls(secure);
            if let Some(tls) = transport.tls() {
                self.report(|| Step::Secured(&tls));
            }
        }
        Ok(transport)
    }

    fn report<'s>(&self, step: impl FnOnce() -> Step<'s>) {
        if let Some(reporter) = &self.reporter {
            reporter.report(step());
        }
    }

    /// What is left of the time for connecting.
    fn remaining(&self, progress: &ConnectProgress) -> Duration {
        self.timeout.saturating_sub(progress.begun.elapsed())
    }

    /// The client's side of the handshake (RFC 6455 §4.1). The body of a redirect that is followed is not read.
    pub(super) async fn open(
        &self,
        mut stream: Transport,
        request: &ClientRequest,
        follows: bool,
        progress: &ConnectProgress,
    ) -> Result<WebSocket, Error> {
        let mut nonce = [0; 16];
        // RFC 6455 §4.1 (7): fresh and unpredictable for each connection.
        getrandom::fill(&mut nonce).map_err(|error| Error::from(Cause::Random(error)))?;
        let opening = |error| Error::io(Doing::Opening, error);
        let mut bytes = Vec::with_capacity(1024);
        request.write(nonce, &mut bytes);
        self.report(|| Step::Request(std::str::from_utf8(&bytes).unwrap_or_default()));
        stream.write_all(&bytes).await.map_err(opening)?;
        stream.flush().await.map_err(opening)?;

        let limits = self.head_limits;
        let mut head = Head::default();
        for _ in 0..INTERIM_RESPONSES {
            let end = head.read(&mut stream, &limits).await?.map_err(|refusal| unreadable(refusal.into()))?;
            let (text, rest) = head.bytes.split_at(end);
            let response = ClientResponse::parse(text, &limits).map_err(unreadable)?;
            let rejection = match request.check(&response, nonce) {
                Ok(Accepted { subprotocol, deflate, .. }) => {
                    let kept = Response::new(text, Vec::new(), true);
                    self.report(|| Step::Response(&kept));
                    let (settings, unread) = (Arc::clone(&self.settings), rest.to_vec());
                    let socket =
                        WebSocket::open(stream, Role::Client, settings, deflate, subprotocol, Some(kept), unread)?;
                    if let Some(reporter) = &self.reporter {
                        socket.handle.trace(reporter.clone());
                    }
                    return Ok(socket);
                }
                // RFC 9110 §15.2: the response that counts follows.
                Err(rejection) if rejection.is_interim() => {
                    head = Head::begun(rest.to_vec());
                    continue;
                }
                Err(rejection) => with_date(rejection, &response, SystemTime::now()),
            };
            let kept = if response.status() == 101 || (follows && rejection.redirect().is_some()) {
                Response::new(text, Vec::new(), true)
            } else {
                body::read(&mut stream, text, &response, rest, self.remaining(progress)).await
            };
            self.report(|| Step::Response(&kept));
            return Err(Cause::Rejected(rejection, Some(kept)).into());
        }
        Err(unreadable(Rejection::Interim))
    }
}

/// How far connecting has come, for the error that a deadline gives, and since when.
pub(super) struct ConnectProgress {
    stage: AtomicU8,
    begun: Instant,
}

impl ConnectProgress {
    const STAGES: [ConnectStage; 5] =
        [ConnectStage::Lookup, ConnectStage::Tcp, ConnectStage::Proxy, ConnectStage::Tls, ConnectStage::Upgrade];

    /// At this stage, from now on.
    pub(super) fn new(stage: ConnectStage) -> Self {
        Self { stage: AtomicU8::new(stage as u8), begun: Instant::now() }
    }

    pub(super) fn set(&self, stage: ConnectStage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> ConnectStage {
        Self::STAGES[usize::from(self.stage.load(Ordering::Relaxed))]
    }
}

/// There is no response that could be shown.
fn unreadable(rejection: Rejection) -> Error {
    Cause::Rejected(rejection, None).into()
}

/// RFC 9110 §10.2.3: `Retry-After` may be a date. It is taken by the clock that wrote it, the `Date` of the response,
/// so that it does not matter whether ours is right.
fn with_date(mut rejection: Rejection, response: &ClientResponse<'_>, now: SystemTime) -> Rejection {
    let date = |name| response.header(name).and_then(|date| httpdate::parse_http_date(date).ok());
    if let Rejection::Status { retry_after: retry_after @ None, .. } = &mut rejection
        && let Some(at) = date("retry-after")
    {
        *retry_after = Some(at.duration_since(date("date").unwrap_or(now)).unwrap_or_default());
    }
    rejection
}

/// Interim responses that are read past before a server counts as broken.
const INTERIM_RESPONSES: usize = 8;

#[cfg(test)]
mod tests {
    use taut_proto::handshake::HeadLimits;

    use super::*;

    // RFC 9110 §10.2.3: Retry-After = HTTP-date / delay-seconds; §5.6.7: a date has three forms.
    #[test]
    fn a_server_may_say_by_a_date_when_to_come_back() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let later = "Sun, 06 Nov 1994 08:51:37 GMT";
        for (headers, expected) in [
            (format!("Retry-After: {later}\r\n"), Some(120)),
            ("Retry-After: Sunday, 06-Nov-94 08:49:40 GMT\r\n".to_owned(), Some(3)),
            ("Retry-After: Sun Nov  6 08:50:37 1994\r\n".to_owned(), Some(60)),
            // By the server's clock, where that is told.
            (format!("Date: Sun, 06 Nov 1994 08:51:30 GMT\r\nRetry-After: {later}\r\n"), Some(7)),
            (format!("Date: today\r\nRetry-After: {later}\r\n"), Some(120)),
            // What is past is now.
            ("Retry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\n".to_owned(), Some(0)),
            ("Retry-After: 7\r\n".to_owned(), Some(7)),
            ("Retry-After: soon\r\n".to_owned(), None),
            (String::new(), None),
        ] {
            let head = format!("HTTP/1.1 503 Service Unavailable\r\n{headers}\r\n");
            let limits = HeadLimits::default();
            let response = ClientResponse::parse(head.as_bytes(), &limits).unwrap();
            let Target { request, .. } = Client::new("ws://a.example/").target.unwrap();
            let rejection = with_date(request.check(&response, [0; 16]).unwrap_err(), &response, now);
            let error = Error::from(Cause::Rejected(rejection, None));
            assert_eq!(error.retry_after(), expected.map(Duration::from_secs), "{headers}");
        }
    }
}
