//! Gathers what a task sends while it is polled once, to write it once.
//!
//! A write per message is what a WebSocket server spends its time on. So where the task is ours, what its code sends is
//! only queued, and leaves in one write when the poll is over, whatever the code waits for then: nothing is left behind,
//! and nobody has to call `flush`. (`recv` writes before it waits in any case; often nothing is left to do.)

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use taut_proto::Close;

use crate::shared::Shared;

/// One task's cork, and the connections that the task has accepted.
pub(crate) struct Cork {
    id: u64,
    /// What the kernel did not take when the last poll was over.
    unwritten: Vec<Arc<Shared>>,
    adopted: Vec<Arc<Shared>>,
    /// Connections that are being closed.
    closing: Vec<(Arc<Shared>, Close)>,
}

impl Cork {
    pub(crate) fn new() -> Self {
        // Never zero, which means that there is none.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, unwritten: Vec::new(), adopted: Vec::new(), closing: Vec::new() }
    }

    /// Polls the task inside of the cork, then writes what it has sent.
    pub(crate) fn poll<F: Future + ?Sized>(&mut self, task: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let inside = Inside::enter(self.id);
        let output = task.poll(cx);
        let some_dropped = inside.leave(self);
        if some_dropped {
            self.close_dropped();
        }
        self.get_on(cx);
        output
    }

    /// Begins to close what the task has accepted, in order that it comes to an end by itself.
    pub(crate) fn begin_close(&mut self, close: &Close) {
        for shared in &self.adopted {
            shared.begin_close(close);
        }
    }

    /// Closes what the task has left open, and sees it through.
    pub(crate) fn poll_close(&mut self, close: &Close, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.adopted.drain(..).map(|shared| (shared, close.clone()));
        self.closing.extend(left);
        self.get_on(cx);
        if self.closing.is_empty() && self.unwritten.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// A connection that the task has no handle of any more is closed for it.
    fn close_dropped(&mut self) {
        let dropped = self.adopted.extract_if(.., |shared| shared.is_dropped());
        self.closing.extend(dropped.map(|shared| (shared, taut_proto::CloseCode::NORMAL.into())));
    }

    fn get_on(&mut self, cx: &mut Context<'_>) {
        let id = self.id;
        self.unwritten.retain(|shared| shared.poll_corked(id, cx).is_pending());
        // Whether it ended well is nobody's concern any more.
        self.closing.retain(|(shared, close)| shared.poll_close(close, cx).is_pending());
    }
}

/// The cork that the current thread is in; zero outside of any.
pub(crate) fn current() -> u64 {
    THREAD.with_borrow(|thread| thread.cork)
}

/// Something was queued on a connection inside of the current cork.
pub(crate) fn queued(shared: Arc<Shared>) {
    THREAD.with_borrow_mut(|thread| thread.queued.push(shared));
}

/// The current cork's task has accepted a connection; nothing happens outside of any.
pub(crate) fn adopt(shared: &Arc<Shared>) {
    THREAD.with_borrow_mut(|thread| {
        if thread.cork != 0 {
            thread.adopted.push(Arc::clone(shared));
        }
    });
}

/// The last handle of a connection was dropped.
pub(crate) fn dropped() {
    // While a thread ends there may be nothing to tell.
    let _ = THREAD.try_with(|thread| {
        if let Ok(mut thread) = thread.try_borrow_mut() {
            thread.some_dropped = true;
        }
    });
}

/// What the thread knows of the cork it is in. The vectors are the thread's, so that a poll allocates nothing.
#[derive(Default)]
struct Thread {
    cork: u64,
    queued: Vec<Arc<Shared>>,
    adopted: Vec<Arc<Shared>>,
    some_dropped: bool,
}

thread_local! {
    static THREAD: RefCell<Thread> = RefCell::default();
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// While a task is polled. Corks may be nested: each takes out what came after it was entered.
struct Inside {
    outer: u64,
    queued: usize,
    adopted: usize,
}

impl Inside {
    fn enter(id: u64) -> Self {
        THREAD.with_borrow_mut(|thread| {
            let outer = std::mem::replace(&mut thread.cork, id);
            Self { outer, queued: thread.queued.len(), adopted: thread.adopted.len() }
        })
    }

    /// Hands over to `cork` what came; whether a handle was dropped meanwhile.
    fn leave(self, cork: &mut Cork) -> bool {
        THREAD.with_borrow_mut(|thread| {
            cork.unwritten.extend(thread.queued.drain(self.queued..));
            if thread.adopted.len() > self.adopted {
                cork.adopted.reserve_exact(thread.adopted.len() - self.adopted);
                cork.adopted.extend(thread.adopted.drain(self.adopted..));
            }
            std::mem::take(&mut thread.some_dropped)
        })
    }
}

impl Drop for Inside {
    // Also when the task has panicked.
    fn drop(&mut self) {
        THREAD.with_borrow_mut(|thread| {
            thread.cork = self.outer;
            thread.queued.truncate(self.queued);
            thread.adopted.truncate(self.adopted);
        });
    }
}
