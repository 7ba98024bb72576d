//! Reads the body of a response that refuses.

use std::time::Duration;

use taut_proto::handshake::{ClientResponse, ResponseBody};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::Response;

/// Reads the body of a response, as far as it comes `within` this time and [`WAIT`], and keeps it with its head.
/// `begun` came behind the head.
///
/// It cannot fail: that the server has refused is what counts, and a body that does not come changes nothing about it.
pub(crate) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    head: &[u8],
    parsed: &ClientResponse<'_>,
    begun: &[u8],
    within: Duration,
) -> Response {
    let mut body = ResponseBody::new(parsed, Response::MAX_BODY);
    body.receive(begun);
    let reading = async {
        let mut room = Vec::with_capacity(ROOM);
        while !body.is_done() {
            room.clear();
            match stream.read_buf(&mut room).await {
                Ok(0) => body.receive_eof(),
                Ok(_) => body.receive(&room),
                Err(_) => break,
            }
        }
    };
    let _ = timeout(within.min(WAIT), reading).await;
    let is_complete = body.is_complete();
    Response::new(head, body.into_content(), is_complete)
}

/// How long a body is waited for. Usually it comes with its head; a server that neither says how long it is nor closes
/// the connection would otherwise hold up whoever wants to know that it has refused.
const WAIT: Duration = Duration::from_secs(2);

/// Bytes that are read at once.
const ROOM: usize = 4 << 10;
