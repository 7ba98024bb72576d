//! Gathers what a task sends while it is polled once, to write it once.
//!
//! A write per message is what a WebSocket server spends its time on. So where the task is ours, what its code sends is
//! only queued, and leaves in one write when the poll is over, whatever the code waits for then: nothing is left
//! behind, and nobody has to call `flush`. (`recv` writes before it waits in any case; often nothing is left to do.)

use std::cell::{Cell, RefCell};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use taut_proto::CloseCode;

use super::Shared;

/// One task's cork, and the connections that it is responsible for.
pub(crate) struct Cork {
    id: CorkId,
    connections: Vec<Corked>,
}

/// Tells corks apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CorkId(NonZeroU64);

impl CorkId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).expect("nobody counts to 2^64"))
    }

    /// Whether both are the same cork, or none: one comparison, where that of two `Option`s takes several.
    #[inline]
    pub(crate) fn is_same(one: Option<Self>, other: Option<Self>) -> bool {
        let number = |id: Option<Self>| id.map_or(0, |id| id.0.get());
        number(one) == number(other)
    }
}

/// A connection that a cork is responsible for, and why.
struct Corked(Arc<Shared>, Reason);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The task has accepted it, and must not leave it open.
    Accepted,
    /// The stream did not take all that was sent.
    Unwritten,
    /// It is being closed.
    Closing(CloseCode),
}

impl Cork {
    pub(crate) fn new() -> Self {
        Self { id: CorkId::next(), connections: Vec::new() }
    }

    /// Polls the task inside the cork, then writes what it has sent.
    pub(crate) fn poll_task<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let corked = CorkedPoll::enter(self.id);
        let output = poll(cx);
        // What is dropped as the task ends is left to `poll_close`, which knows how it has ended.
        if corked.leave(self, cx) && output.is_pending() {
            self.close_dropped();
        }
        self.poll_connections(cx);
        output
    }

    /// Starts to close what the task has accepted, so that the task ends by itself. Returns whether there was anything
    /// to close.
    pub(crate) fn begin_close(&mut self, code: CloseCode) -> bool {
        let accepted = self.connections.iter().filter(|Corked(_, reason)| *reason == Reason::Accepted);
        // All of them, not only up to the first.
        accepted.fold(false, |begun, Corked(shared, _)| shared.begin_close(&code.into()) | begun)
    }

    /// Closes what the task has left open; ready when all is closed.
    pub(crate) fn poll_close(&mut self, code: CloseCode, cx: &mut Context<'_>) -> Poll<()> {
        for Corked(_, reason) in self.connections.iter_mut().filter(|Corked(_, reason)| *reason == Reason::Accepted) {
            *reason = Reason::Closing(code);
        }
        self.poll_connections(cx);
        if self.connections.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Closes connections whose handles the task has dropped.
    fn close_dropped(&mut self) {
        for Corked(shared, reason) in &mut self.connections {
            if *reason == Reason::Accepted && shared.is_dropped() {
                *reason = Reason::Closing(CloseCode::NORMAL);
            }
        }
    }

    fn poll_connections(&mut self, cx: &mut Context<'_>) {
        let id = self.id;
        self.connections.retain(|Corked(shared, reason)| match *reason {
            Reason::Accepted => true,
            Reason::Unwritten => shared.poll_corked(id, cx).is_pending(),
            // Nobody is left to be told how it ends.
            Reason::Closing(code) => shared.poll_close(&code.into(), cx).is_pending(),
        });
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        for Corked(shared, _) in self.connections.iter().filter(|Corked(_, reason)| *reason == Reason::Unwritten) {
            shared.release(self.id);
        }
    }
}

/// The cork that the current thread is inside of.
#[inline]
pub(crate) fn current() -> Option<CorkId> {
    CURRENT.get()
}

/// Something was queued on a connection inside the current cork.
pub(crate) fn queued(shared: Arc<Shared>) {
    THREAD.with_borrow_mut(|thread| thread.queued.push(shared));
}

/// The current cork's task has accepted a connection. Does nothing outside of any cork.
pub(crate) fn accepted(shared: &Arc<Shared>) {
    if current().is_some() {
        THREAD.with_borrow_mut(|thread| thread.accepted.push(Arc::clone(shared)));
    }
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

/// What was done inside the current cork. The vectors are the thread's, so that a poll allocates nothing.
#[derive(Default)]
struct Thread {
    queued: Vec<Arc<Shared>>,
    accepted: Vec<Arc<Shared>>,
    some_dropped: bool,
}

impl Thread {
    /// The last that was queued since there were `count`.
    fn pop(&mut self, count: usize) -> Option<Arc<Shared>> {
        if self.queued.len() > count { self.queued.pop() } else { None }
    }
}

thread_local! {
    static CURRENT: Cell<Option<CorkId>> = const { Cell::new(None) };
    static THREAD: RefCell<Thread> = RefCell::default();
}

/// One poll of a task inside its cork. Corks may be nested: each handles what was queued after it was entered.
struct CorkedPoll {
    outer: Option<CorkId>,
    queued: usize,
    accepted: usize,
}

impl CorkedPoll {
    fn enter(id: CorkId) -> Self {
        THREAD.with_borrow(|thread| {
            let outer = CURRENT.replace(Some(id));
            Self { outer, queued: thread.queued.len(), accepted: thread.accepted.len() }
        })
    }

    /// Writes what was queued and leaves the rest to `cork`. Returns whether a handle was dropped meanwhile.
    fn leave(self, cork: &mut Cork, cx: &mut Context<'_>) -> bool {
        // One by one: to write may run any code, which must not find the thread's state in use.
        while let Some(shared) = THREAD.with_borrow_mut(|thread| thread.pop(self.queued)) {
            if shared.poll_corked(cork.id, cx).is_pending() && shared.claim(cork.id) {
                cork.connections.push(Corked(shared, Reason::Unwritten));
            }
        }
        THREAD.with_borrow_mut(|thread| {
            let accepted = thread.accepted.drain(self.accepted..);
            cork.connections.reserve_exact(accepted.len());
            cork.connections.extend(accepted.map(|shared| Corked(shared, Reason::Accepted)));
            std::mem::take(&mut thread.some_dropped)
        })
    }
}

impl Drop for CorkedPoll {
    // Also when the task has panicked.
    fn drop(&mut self) {
        CURRENT.set(self.outer);
        THREAD.with_borrow_mut(|thread| {
            thread.queued.truncate(self.queued);
            thread.accepted.truncate(self.accepted);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use taut_proto::{Message, Role, Settings};
    use tokio::io::duplex;

    use super::*;
    use crate::Transport;
    use crate::native::driver::Driver;
    use crate::native::shared::Handle;

    fn handle() -> (Handle, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(64);
        let settings = Arc::new(Settings::server());
        (
            Handle::new(Driver::new(Transport::new(ours), Role::Server, settings, None, 0, Vec::new()), None, None),
            theirs,
        )
    }

    fn send(cork: &mut Cork, handle: &Handle) {
        let cx = &mut Context::from_waker(Waker::noop());
        let sent = cork.poll_task(cx, |_| Poll::Ready(handle.try_send(&mut Message::from(vec![0; 100]))));
        assert!(matches!(sent, Poll::Ready(Ok(()))));
    }

    #[tokio::test]
    async fn a_blocked_connection_is_kept_once_however_often_it_is_sent_to() {
        let (handle, _peer) = handle();
        let mut cork = Cork::new();
        for _ in 0..100 {
            send(&mut cork, &handle);
        }
        assert_eq!(cork.connections.len(), 1);
    }

    #[tokio::test]
    async fn of_the_corks_that_send_to_a_split_connection_one_writes_and_hands_on() {
        let (handle, peer) = handle();
        let sender = handle.share();
        let (mut first, mut second) = (Cork::new(), Cork::new());
        for _ in 0..100 {
            send(&mut first, &handle);
            send(&mut second, &sender);
        }
        assert_eq!((first.connections.len(), second.connections.len()), (1, 0));
        drop(first);
        send(&mut second, &sender);
        assert_eq!(second.connections.len(), 1, "somebody has to");
        drop(peer);
    }
}
