//! Reading a request's body, within limits of size and time.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use http::StatusCode;
use hyper::body::Body as _;

use super::answer::ApiError;

/// The whole body, of at most `most` bytes.
///
/// A larger one is still read, within reason, before it is refused: whoever is answered while he is still sending, and then cut off, sees a broken
/// connection and not the answer. So it is with one that is larger than a common request while too much of others is held already: whose it is
/// shows only when it is there, and until then strangers may send it.
pub(crate) async fn read(body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    tokio::time::timeout(SLOWEST, collect(body, most)).await.unwrap_or_else(|_| {
        let error = format!("The body did not arrive within {} seconds.", SLOWEST.as_secs());
        Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, error))
    })
}

/// Reads a body, within reason, that nobody wants, and for the same reason.
pub(crate) async fn discard(body: Body) {
    // That there was more of it than nothing is no news.
    let _ = read(body, 0).await;
}

async fn collect(body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let too_large =
        || ApiError::too_large(format!("The body of the request exceeds the allowed maximum ({most} bytes)."));
    if body.size_hint().lower() > MOST_DISCARDED.max(most as u64) {
        return Err(too_large());
    }
    let mut body = pin!(body);
    // Grows with what has arrived, not with what was announced.
    let mut bytes = Vec::new();
    let mut length = 0;
    let mut share = Share::default();
    let mut is_crowded = false;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|_| ApiError::bad_request("The body of the request ended too early."))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        if length > MOST_DISCARDED.max(most as u64) {
            return Err(too_large());
        }
        is_crowded = is_crowded || !share.grow(bytes.len() + data.len());
        if length > most as u64 || is_crowded {
            bytes = Vec::new();
            share = Share::default();
        } else {
            bytes.extend_from_slice(&data);
        }
    }
    if length > most as u64 {
        return Err(too_large());
    }
    if is_crowded {
        let error = "The server is busy: too many large requests are on their way. Please try again.";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error).retry_after(Duration::from_secs(1)));
    }
    Ok(bytes)
}

/// What a body that is on its way takes of what all of them may hold; it is given back with this.
#[derive(Default)]
struct Share(usize);

impl Share {
    /// Takes enough for a body of this length; says whether there was so much.
    fn grow(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(COMMON).saturating_sub(self.0);
        self.0 += more;
        more == 0 || HELD.fetch_add(more, Ordering::Relaxed) + more <= MOST_HELD
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Bytes of bodies that are on their way, beyond those of common ones. Of the whole process, whose memory it is.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Bytes that all of them may hold together, beyond those of common ones: 64 MiB.
const MOST_HELD: usize = 64 << 20;

/// Bytes that each body may hold whatever others do, so that common requests are served all the same: 16 KiB.
const COMMON: usize = 16 << 10;

const SLOWEST: Duration = Duration::from_secs(30);

/// Bytes of a refused body that are read: 8 MiB.
const MOST_DISCARDED: u64 = 8 << 20;
