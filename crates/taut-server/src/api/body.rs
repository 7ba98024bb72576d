//! Reading a request's body, within limits of size and time.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use hyper::body::Body as _;

use super::answer::Problem;

/// The whole body, of at most `most` bytes.
///
/// A larger one is still read, within reason, before it is refused: whoever is answered while he is still sending, and then cut off, sees a broken
/// connection and not the answer.
pub(crate) async fn read(body: Body, most: usize) -> Result<Vec<u8>, Problem> {
    tokio::time::timeout(SLOWEST, collect(body, most)).await.unwrap_or_else(|_| {
        let error = format!("The body did not arrive within {} seconds.", SLOWEST.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, error))
    })
}

/// Reads a body, within reason, that nobody wants, and for the same reason.
pub(crate) async fn discard(body: Body) {
    // That there was more of it than nothing is no news.
    let _ = read(body, 0).await;
}

async fn collect(body: Body, most: usize) -> Result<Vec<u8>, Problem> {
    let too_large =
        || Problem::too_large(format!("The body of the request exceeds the allowed maximum ({most} bytes)."));
    if body.size_hint().lower() > MOST_DISCARDED.max(most as u64) {
        return Err(too_large());
    }
    let mut body = pin!(body);
    // Grows with what has arrived, not with what was announced.
    let mut bytes = Vec::new();
    let mut length = 0;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|_| Problem::bad_request("The body of the request ended too early."))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > MOST_DISCARDED.max(most as u64) {
            return Err(too_large());
        }
        if length > most as u64 {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    if length > most as u64 { Err(too_large()) } else { Ok(bytes) }
}

const SLOWEST: Duration = Duration::from_secs(30);

/// Bytes of a refused body that are read: 8 MiB.
const MOST_DISCARDED: u64 = 8 << 20;
