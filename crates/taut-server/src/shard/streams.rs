//! Streams of routes: connections that the HTTP side has opened for clients that only listen.

use std::net::SocketAddr;

use taut_proto::handshake::{HeadLimits, Refusal, Request, Upgrade};
use taut_shard::{ConnectionId, Connections, HandshakeId, Verdict};

use super::frames::{Encoding, Forms};
use super::visit::Stream;
use super::{Client, PusherHandler, subscriber};
use crate::gateway::event::{Acceptance, Response};
use crate::gateway::seen::{Mark, Seen};
use crate::gateway::sse;
use crate::gateway::stream::{Beginning, Begun, Teller};

impl PusherHandler {
    /// The HTTP side has begun a stream: it is let in as any client of its route is.
    pub(super) fn connect_stream<'r>(
        &mut self,
        upgrade: Upgrade<'r>,
        peer: SocketAddr,
        handshake: HandshakeId,
        begun: Begun,
    ) -> Verdict<'r, Client> {
        let Begun { head, teller } = begun;
        // It was within the limits, and written anew it is longer by some spaces.
        let limits = HeadLimits { bytes: 2 * HeadLimits::default().bytes, ..HeadLimits::default() };
        let request = match Request::parse(&head, &limits) {
            Ok(request) => request,
            Err(refusal) => return refuse(teller, refusal),
        };
        let Some(found) = self.gateway.find(request.path()) else {
            return refuse(teller, Refusal::with_status(404, "There is nothing at this path."));
        };
        let stream = Stream { teller, seen: seen_before(&request) };
        self.connect_to_route(&request, upgrade, peer, handshake, found, Some(stream))
    }
}

fn refuse<'r>(teller: Teller, refusal: Refusal) -> Verdict<'r, Client> {
    teller.tell(Beginning::Refused(refusal.clone()));
    Verdict::Refuse(refusal)
}

/// What the client of a stream has seen before, by its request. A page cannot set the header, so the query will do.
fn seen_before(request: &Request<'_>) -> Seen {
    let header = request.header("last-event-id");
    header
        .map_or_else(|| request.query_value("lastEventId").map_or_else(Seen::default, |id| Seen::read(&id)), Seen::read)
}

/// The backend accepts: gives the headers of the response to an upgrade. A stream's response is told to the HTTP side.
pub(super) fn accept(teller: Option<Teller>, acceptance: Acceptance) -> Vec<(Box<str>, Box<str>)> {
    let Acceptance { mut headers, subprotocol, response, .. } = acceptance;
    let Some(teller) = teller else {
        headers.extend(subprotocol.map(|name| ("Sec-WebSocket-Protocol".into(), name)));
        return headers;
    };
    let plain = || Response { status: 200, headers, body: Box::default() };
    teller.tell(Beginning::Stream(response.map_or_else(plain, |response| *response)));
    Vec::new()
}

/// Sends an event that a channel keeps to a stream, with an id that says so; whether this has been done.
pub(super) fn send_kept(
    connections: &mut Connections<Client>,
    id: ConnectionId,
    channel: &str,
    encoding: Option<Encoding>,
    forms: &mut Forms<'_>,
) -> bool {
    if !matches!(encoding, Some(Encoding::Events(_))) {
        return false;
    }
    let (Some(mark), Some(seen)) = (forms.mark(), seen(connections, id)) else { return false };
    let Some(event) = forms.of(encoding).and_then(|event| str::from_utf8(event.payload()).ok()) else { return false };
    seen.note(Mark::of(channel.as_bytes()), mark);
    let text = sse::with_id(&*seen, event);
    // A reader that is too slow is closed by the shard, and counted there.
    let _ = connections.send(id, text.as_bytes());
    true
}

/// Whether the client of a stream has seen this event of the channel last.
pub(super) fn has_seen(
    connections: &mut Connections<Client>,
    id: ConnectionId,
    channel: &str,
    forms: &mut Forms<'_>,
) -> bool {
    let Some(seen) = seen(connections, id) else { return false };
    forms.mark().is_some_and(|mark| seen.contains(Mark::of(channel.as_bytes()), mark))
}

fn seen(connections: &mut Connections<Client>, id: ConnectionId) -> Option<&mut Seen> {
    subscriber(connections, id)?.extras.as_mut()?.routed.as_mut()?.seen.as_deref_mut()
}
