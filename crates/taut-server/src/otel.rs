//! For programs that send the server's spans to a collector, with the exporters of `opentelemetry-otlp`.
//!
//! Spans go to the tracer provider of `opentelemetry::global`, and its propagator reads the callers' trace context. Set
//! both before the server starts.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::{self, Runtime};

use crate::http::client::Client;

/// What exporters send by: the client that the server has for its own requests, with the roots of the system for TLS.
///
/// It blocks the thread that exports, as that of a `BatchSpanProcessor` may be; it is not for the threads of a runtime. When a collector begins not to
/// take what it is sent, the log says so once, and once when that is over.
#[derive(Debug)]
pub struct CollectorClient {
    runtime: Runtime,
    client: Client,
    within: Duration,
    /// What was sent last was not taken.
    failing: AtomicBool,
}

impl CollectorClient {
    /// One that gives a collector so much time for each request.
    ///
    /// # Errors
    /// When the operating system refuses what a runtime needs.
    pub fn new(within: Duration) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, client: Client::new(), within, failing: AtomicBool::new(false) })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let answer = self.runtime.block_on(self.client.send(request.map(Full::new), self.within, LARGEST_ANSWER))?;
        // The status says it all.
        let mut response = Response::new(answer.body.unwrap_or_default());
        *response.status_mut() = answer.status;
        Ok(response)
    }

    fn note(&self, sent: &Result<Response<Bytes>, String>) {
        let reason = match sent {
            Ok(response) if response.status().is_success() => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes traces again");
                }
                return;
            }
            Ok(response) => format!("the answer was {}", response.status()),
            Err(reason) => reason.clone(),
        };
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "the collector does not take traces: they are lost until it does; all else goes on");
        }
    }
}

impl HttpClient for CollectorClient {
    // As the trait's own macro writes it.
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let sent = self.send(request);
            self.note(&sent);
            Ok(sent?)
        })
    }
}

/// Bytes of an answer, which says no more than what was refused.
const LARGEST_ANSWER: usize = 64 * 1024;
