//! What the application gives a [`Reconnecting`](super::Reconnecting) to call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::exclusive::Exclusive;
use super::{Attempt, Decision, Ended, Event};
use crate::{Client, Error, WebSocket};

pub(super) struct Hooks {
    pub(super) client: MakeClient,
    pub(super) dial: Box<dyn FnMut(Arc<Client>) -> Pending<WebSocket> + Send>,
    pub(super) on_open: Option<Box<dyn FnMut(WebSocket) -> Pending<WebSocket> + Send>>,
    pub(super) decide: Box<dyn FnMut(&Ended) -> Decision + Send>,
    pub(super) on_event: Box<dyn FnMut(&Event) + Send>,
}

impl Hooks {
    pub(super) fn new(client: MakeClient) -> Self {
        Self {
            client,
            dial: Box::new(|client| Pending::new(async move { client.connect().await })),
            on_open: None,
            decide: Box::new(Ended::decision),
            on_event: Box::new(|_| {}),
        }
    }
}

/// Where the client of an attempt comes from.
pub(super) enum MakeClient {
    /// Always the same.
    Fixed(Arc<Client>),
    /// Another one for each attempt.
    Fresh(Box<dyn FnMut(Attempt) -> BoxFuture<Client> + Send>),
}

pub(super) type BoxFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// What goes on, kept from call to call: dropping a call drops nothing that has begun.
pub(super) struct Pending<T>(Exclusive<BoxFuture<T>>);

impl<T> Pending<T> {
    pub(super) fn new(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self(Exclusive::new(Box::pin(future)))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        self.0.get_mut().as_mut().poll(cx)
    }
}
