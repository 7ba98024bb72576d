//! Runs a handler in a task that is not a server's of ours: closes what it has left open, ends it when it is told to.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use taut_proto::CloseCode;
use tokio::sync::Notify;

use crate::cork::Cork;

/// Runs a handler inside of a cork, then closes what it has left open: with code 1000, or 1011 when it has failed,
/// which `report` is told.
///
/// `progress` tells it to go; without one it runs until it ends by itself.
pub(crate) async fn attend<F, E>(task: Pin<Box<F>>, progress: Option<&Progress>, report: impl Fn(E))
where
    F: Future<Output = Result<(), E>> + ?Sized,
{
    let mut task = Some(task);
    let mut cork = Cork::new();
    let mut close = CloseCode::NORMAL;
    let mut stage = Stage::Open;
    let mut left = pin!(None);
    poll_fn(|cx| {
        if let Some(progress) = progress {
            // Registered once a stage and not once a poll: this is always polled by the same task.
            while left.is_none() || progress.stage() != stage {
                stage = progress.stage();
                left.set(Some(progress.leaves(stage)));
                if left.as_mut().as_pin_mut().is_some_and(|left| left.poll(cx).is_ready()) {
                    left.set(None);
                }
            }
        }
        if stage == Stage::Over {
            return Poll::Ready(());
        }
        if let Some(running) = &mut task {
            match cork.poll_task(cx, |cx| running.as_mut().poll(cx)) {
                Poll::Pending => {
                    if stage == Stage::Draining {
                        cork.begin_close(&CloseCode::GOING_AWAY.into());
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(problem)) => {
                    close = CloseCode::INTERNAL_ERROR;
                    report(problem);
                }
            }
            task = None;
        }
        cork.poll_close(close, cx)
    })
    .await;
}

/// Whether clients are served, told to go, or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Open,
    Draining,
    Over,
}

/// Which stage a server is in. Reading it takes no lock.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    stage: AtomicU8,
    changed: Notify,
}

impl Progress {
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Waits for a later stage.
    pub(crate) async fn leaves(&self, stage: Stage) {
        loop {
            // First, so that no change falls between the look and the wait.
            let changed = self.changed.notified();
            if self.stage() > stage {
                return;
            }
            changed.await;
        }
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Open,
            1 => Stage::Draining,
            _ => Stage::Over,
        }
    }
}
