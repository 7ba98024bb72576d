//! Runs a handler, closes what it has left open, and ends it when it is told to.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use slab::Slab;
use taut_proto::CloseCode;

use crate::shared::cork::Cork;

/// A handler's future, whatever its error, which becomes a `P`.
pub(crate) type Task<P> = Pin<Box<dyn Handling<P>>>;

/// What a handler may fail with.
pub(crate) type Problem = Box<dyn std::error::Error + Send + Sync>;

/// What a handler's future is to its task.
pub(crate) trait Handling<P>: Send {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), P>>;
}

impl<F, E, P> Handling<P> for F
where
    F: Future<Output = Result<(), E>> + Send,
    E: Into<P>,
{
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), P>> {
        Future::poll(self, cx).map_err(Into::into)
    }
}

/// How a handler went wrong.
#[derive(Debug)]
pub(crate) enum Fault<P> {
    /// It returned an error.
    Failed(P),
    /// It panicked, with this text.
    Panicked(String),
}

/// Runs a handler inside of a cork, then closes what it has left open: with code 1000, or 1011 when it failed or
/// panicked. A panic goes on once the connections are closed.
pub(crate) struct Attendant<P> {
    cork: Cork,
    work: Work<P>,
}

enum Work<P> {
    Running(Task<P>),
    /// The handler was dropped, or it would keep what it holds open; its connections are closed with this code.
    Over(CloseCode),
    Panicked(Panic),
}

/// What a panic carries.
pub(crate) type Panic = Box<dyn Any + Send>;

impl<P> Attendant<P> {
    pub(crate) fn new(task: Task<P>) -> Self {
        Self { cork: Cork::new(), work: Work::Running(task) }
    }

    /// Ready when everything is closed, or all is over. `report` is told when the handler fails or panics.
    ///
    /// # Panics
    /// As the handler did, when it would be ready.
    pub(crate) fn poll(&mut self, stage: Stage, report: impl FnOnce(Fault<P>), cx: &mut Context<'_>) -> Poll<()> {
        if stage != Stage::Over {
            ready!(self.poll_closed(stage, report, cx));
        }
        match std::mem::replace(&mut self.work, Work::Over(CloseCode::INTERNAL_ERROR)) {
            // Not swallowed: whoever awaits the task is told as ever. The panic hook was called when it began.
            Work::Panicked(panic) => resume_unwind(panic),
            _ => Poll::Ready(()),
        }
    }

    fn poll_closed(&mut self, stage: Stage, report: impl FnOnce(Fault<P>), cx: &mut Context<'_>) -> Poll<()> {
        if let Work::Running(task) = &mut self.work {
            let is_draining = stage == Stage::Draining;
            // First, so that whoever waits for a message now also waits for the deadline of the close.
            if is_draining {
                self.cork.begin_close(CloseCode::GOING_AWAY);
            }
            // Nothing of it is looked at after a panic: it is only dropped.
            let outcome = self.cork.poll_task(cx, |cx| {
                catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)))
                    .map_or_else(|panic| Poll::Ready(Err(panic)), |polled| polled.map(Ok))
            });
            // What it has accepted only now.
            if is_draining && outcome.is_pending() && self.cork.begin_close(CloseCode::GOING_AWAY) {
                cx.waker().wake_by_ref();
            }
            self.work = match ready!(outcome) {
                Ok(Ok(())) => Work::Over(CloseCode::NORMAL),
                Ok(Err(problem)) => {
                    report(Fault::Failed(problem));
                    Work::Over(CloseCode::INTERNAL_ERROR)
                }
                Err(panic) => {
                    report(Fault::Panicked(text(&panic)));
                    Work::Panicked(panic)
                }
            };
        }
        let code = if let Work::Over(code) = self.work { code } else { CloseCode::INTERNAL_ERROR };
        self.cork.poll_close(code, cx)
    }
}

/// The text that a panic carries, if it has one.
pub(crate) fn text(panic: &Panic) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a text").to_owned()
}

/// Whether clients are served, told to go, or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Open,
    Draining,
    Over,
}

/// Which stage a server is in. To look takes no lock.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    stage: AtomicU8,
    waiting: Mutex<Slab<Waker>>,
}

impl Progress {
    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Open,
            1 => Stage::Draining,
            _ => Stage::Over,
        }
    }

    /// Enters a later stage and wakes everybody.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        // Woken outside of the lock: a waker may do anything.
        let waiting: Vec<Waker> = self.waiting().iter().map(|(_, waker)| waker.clone()).collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that is woken when the stage changes.
pub(crate) struct Watch {
    progress: Arc<Progress>,
    key: Option<usize>,
}

impl Watch {
    pub(crate) fn new(progress: Arc<Progress>) -> Self {
        Self { progress, key: None }
    }

    /// The stage; the task is woken when it changes.
    pub(crate) fn stage(&mut self, cx: &Context<'_>) -> Stage {
        // Once, since a task's waker stays the same; first, so that no change falls between this and the look.
        self.key.get_or_insert_with(|| self.progress.waiting().insert(cx.waker().clone()));
        self.progress.stage()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.progress.waiting().remove(key);
        }
    }
}
