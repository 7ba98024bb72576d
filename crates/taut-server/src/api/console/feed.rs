//! The events, live, as [Server-Sent Events](https://html.spec.whatwg.org/multipage/server-sent-events.html).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::super::Context;
use super::access::Admission;
use super::views::preview;
use crate::events::{Entry, Event, Watch};
use crate::http::answer::ApiError;
use crate::pusher::channel::Kind;

/// `GET /console/api/events`: everything from here on, until the server goes or the viewer's session is over.
///
/// # Cancel safety
/// Nothing is begun that would have to be undone.
pub(crate) async fn watch(
    State(context): State<Arc<Context>>,
    Extension(admission): Extension<Admission>,
) -> Result<Response, ApiError> {
    let place = Arc::clone(&context.console.viewers).try_acquire_owned().map_err(|_| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} consoles are open, which are the most: close one of them.", super::MOST_VIEWERS),
        )
        .retry_after(Duration::from_secs(5))
    })?;
    let watch = context.node().events().watch();
    let (sender, receiver) = mpsc::channel(1);
    let written = write(watch, sender, context.draining.clone(), place);
    tokio::spawn(async move {
        let mut admission = admission;
        tokio::select! {
            () = written => {}
            () = admission.over() => {}
        }
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // nginx would collect the events before it passes them on.
        (http::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(Feed(receiver))).into_response())
}

/// Writes what happens until the viewer or the server goes. A viewer that does not read keeps one chunk waiting, and misses the rest.
///
/// # Cancel safety
/// Dropped, it ends the viewer's stream.
async fn write(
    mut watch: Watch,
    sender: mpsc::Sender<Bytes>,
    mut draining: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut out = String::new();
        tokio::select! {
            () = sender.closed() => return,
            _ = async { draining.wait_for(|draining| *draining).await.map(drop) } => return,
            // The first comes at once, so that the viewer knows that it is connected.
            _ = heartbeat.tick() => out.push_str(": heartbeat\n\n"),
            heard = watch.entries.recv() => match heard {
                Ok(entry) => write_entry(&mut out, &entry),
                Err(RecvError::Lagged(missed)) => write_missed(&mut out, missed),
                Err(RecvError::Closed) => return,
            },
        }
        // What waits goes with it: a busy server would otherwise cost a write for each.
        while out.len() < LARGEST_CHUNK {
            match watch.entries.try_recv() {
                Ok(entry) => write_entry(&mut out, &entry),
                Err(TryRecvError::Lagged(missed)) => write_missed(&mut out, missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        tokio::select! {
            sent = sender.send(out.into()) => if sent.is_err() { return },
            _ = async { draining.wait_for(|draining| *draining).await.map(drop) } => return,
        }
    }
}

fn write_entry(out: &mut String, entry: &Entry) {
    out.push_str("data: ");
    // Strings and numbers: there is nothing that could fail. A line end within a string is escaped, so it is one line.
    out.push_str(&serde_json::to_string(&Row::new(entry)).unwrap_or_default());
    out.push_str("\n\n");
}

fn write_missed(out: &mut String, missed: u64) {
    out.push_str("event: missed\ndata: ");
    out.push_str(&missed.to_string());
    out.push_str("\n\n");
}

/// An entry as the page gets it.
#[derive(Debug, Default, Serialize)]
struct Row<'a> {
    /// Milliseconds since 1970.
    at: u64,
    app: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    /// Bytes of the whole data.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    /// Whether the data cannot be read here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn new(entry: &'a Entry) -> Self {
        let milliseconds = entry.at.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let mut row = Self {
            at: u64::try_from(milliseconds).unwrap_or(u64::MAX),
            app: entry.app.id(),
            channel: entry.event.channel().map(|channel| &**channel),
            ..Self::default()
        };
        match &entry.event {
            Event::ChannelOccupied { .. } => row.kind = "occupied",
            Event::ChannelVacated { .. } => row.kind = "vacated",
            Event::CacheMiss { .. } => row.kind = "cache_miss",
            Event::MemberAdded { user_id, .. } => (row.kind, row.user_id) = ("member_added", Some(&**user_id)),
            Event::MemberRemoved { user_id, .. } => (row.kind, row.user_id) = ("member_removed", Some(&**user_id)),
            Event::ClientEvent { event, data, socket_id, user_id, .. } => {
                row.kind = "client_event";
                row.socket_id = Some(socket_id.to_string());
                row.user_id = user_id.as_deref();
                row.show(event, data);
            }
            Event::SubscriptionCount { count, .. } => (row.kind, row.count) = ("count", Some(*count)),
            Event::Connected { socket_id } => row.of("connected", socket_id),
            Event::Disconnected { socket_id, code } => {
                row.of("disconnected", socket_id);
                row.code = Some(*code);
            }
            Event::Subscribed { socket_id, .. } => row.of("subscribed", socket_id),
            Event::Unsubscribed { socket_id, .. } => row.of("unsubscribed", socket_id),
            Event::SignedIn { socket_id, user_id } => {
                row.of("signed_in", socket_id);
                row.user_id = Some(user_id);
            }
            Event::Refused { socket_id, reason } => {
                row.of("refused", socket_id);
                row.reason = Some(preview(reason));
            }
            Event::Published { event, data, .. } => {
                row.kind = "published";
                row.show(event, data);
            }
            Event::Told { socket_id, event, outcome } => {
                row.of("told", socket_id);
                row.show(event, outcome);
            }
        }
        row
    }

    fn of(&mut self, kind: &'static str, socket_id: &impl ToString) {
        self.kind = kind;
        self.socket_id = Some(socket_id.to_string());
    }

    fn show(&mut self, event: &'a str, data: &'a str) {
        self.event = Some(event);
        self.size = Some(data.len());
        self.encrypted = self.channel.is_some_and(|channel| Kind::of(channel).is_encrypted());
        self.data = (!self.encrypted).then(|| preview(data));
    }
}

/// A body that grows as things happen.
struct Feed(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Comments keep proxies from giving the stream up.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Bytes, or one event more.
const LARGEST_CHUNK: usize = 64 * 1024;
