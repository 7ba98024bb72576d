//! Runs a handler, closes the connections it leaves open, and ends it when the server drains.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use taut_proto::CloseCode;

use crate::native::drain::DrainStage;
use crate::native::shared::cork::Cork;

/// The error of a handler.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A handler's future, whatever its error, which is converted into an `E`.
pub(crate) type BoxHandler<E> = Pin<Box<dyn HandlerFuture<E>>>;

pub(crate) trait HandlerFuture<E>: Send {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), E>>;
}

impl<F, E, O> HandlerFuture<O> for F
where
    F: Future<Output = Result<(), E>> + Send,
    E: Into<O>,
{
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), O>> {
        Future::poll(self, cx).map_err(Into::into)
    }
}

/// How a handler failed.
#[derive(Debug)]
pub(crate) enum HandlerFailure<E> {
    /// It returned an error.
    Failed(E),
    /// It panicked, with this text.
    Panicked(String),
}

/// Runs a handler inside a cork, then closes what it has left open: with code 1000, or 1011 if it failed or panicked. A
/// panic is resumed once the connections are closed.
pub(crate) struct HandlerTask<E> {
    cork: Cork,
    state: State<E>,
}

enum State<E> {
    Running(BoxHandler<E>),
    /// The handler was dropped, so that it holds nothing open. Its connections are closed with this code.
    Closing(CloseCode),
    Panicked(Panic),
}

/// What a panic carries.
pub(crate) type Panic = Box<dyn Any + Send>;

impl<E> HandlerTask<E> {
    pub(crate) fn new(handler: BoxHandler<E>) -> Self {
        Self { cork: Cork::new(), state: State::Running(handler) }
    }

    /// Ready when everything is closed, or when `stage` is over. Calls `report` if the handler fails or panics.
    ///
    /// # Panics
    /// If the handler panicked, once everything is closed.
    pub(crate) fn poll(
        &mut self,
        stage: DrainStage,
        report: impl FnOnce(HandlerFailure<E>),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if stage != DrainStage::Over {
            ready!(self.poll_closed(stage, report, cx));
        }
        match std::mem::replace(&mut self.state, State::Closing(CloseCode::INTERNAL_ERROR)) {
            // Not swallowed: whoever awaits the task sees it, as always. The panic hook was called when it began.
            State::Panicked(panic) => resume_unwind(panic),
            _ => Poll::Ready(()),
        }
    }

    fn poll_closed(
        &mut self,
        stage: DrainStage,
        report: impl FnOnce(HandlerFailure<E>),
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if let State::Running(handler) = &mut self.state {
            let is_draining = stage == DrainStage::Draining;
            // Before the handler is polled: if it waits for a message, it then waits for the close's deadline too.
            if is_draining {
                self.cork.begin_close(CloseCode::GOING_AWAY);
            }
            // After a panic nothing of the handler is used: it is only dropped.
            let outcome = self.cork.poll_task(cx, |cx| {
                catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx)))
                    .map_or_else(|panic| Poll::Ready(Err(panic)), |polled| polled.map(Ok))
            });
            // What it has accepted only now.
            if is_draining && outcome.is_pending() && self.cork.begin_close(CloseCode::GOING_AWAY) {
                cx.waker().wake_by_ref();
            }
            self.state = match ready!(outcome) {
                Ok(Ok(())) => State::Closing(CloseCode::NORMAL),
                Ok(Err(error)) => {
                    report(HandlerFailure::Failed(error));
                    State::Closing(CloseCode::INTERNAL_ERROR)
                }
                Err(panic) => {
                    report(HandlerFailure::Panicked(panic_text(&panic)));
                    State::Panicked(panic)
                }
            };
        }
        let code = if let State::Closing(code) = self.state { code } else { CloseCode::INTERNAL_ERROR };
        self.cork.poll_close(code, cx)
    }
}

/// The text of a panic, if it has one.
pub(crate) fn panic_text(panic: &Panic) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a text").to_owned()
}
