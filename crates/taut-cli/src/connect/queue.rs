//! A queue between tasks and threads that holds so many bytes and no more: whoever adds to a full one waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// A queue that holds about a megabyte, and at least one item, however large.
pub(super) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM as usize));
    (Sender { items: sender, room: Arc::clone(&room) }, Receiver { items: receiver, room })
}

#[derive(Clone)]
pub(super) struct Sender<T> {
    items: mpsc::UnboundedSender<(T, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl<T> Sender<T> {
    /// Adds an item of so many bytes, as soon as there is room; false if nobody receives any more.
    pub(super) async fn send(&self, item: T, bytes: usize) -> bool {
        let cost = u32::try_from(bytes.saturating_add(ITEM)).unwrap_or(ROOM).min(ROOM);
        match Arc::clone(&self.room).acquire_many_owned(cost).await {
            Ok(permit) => self.items.send((item, permit)).is_ok(),
            Err(_) => false,
        }
    }
}

pub(super) struct Receiver<T> {
    items: mpsc::UnboundedReceiver<(T, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl<T> Receiver<T> {
    /// The next item; `None` once all senders are gone. Dropping the future loses nothing.
    pub(super) async fn recv(&mut self) -> Option<T> {
        self.items.recv().await.map(|(item, _)| item)
    }

    /// The same for a thread that has no runtime.
    pub(super) fn blocking_recv(&mut self) -> Option<T> {
        self.items.blocking_recv().map(|(item, _)| item)
    }

    /// An item, if one is there.
    pub(super) fn try_recv(&mut self) -> Option<T> {
        self.items.try_recv().ok().map(|(item, _)| item)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Whoever waits for room waits in vain.
        self.room.close();
    }
}

const ROOM: u32 = 1 << 20;

/// What an item costs beside its bytes.
const ITEM: usize = 64;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::thread;

    use super::*;

    fn is_pending(future: impl Future) -> bool {
        // Not for tokio's reason, which is that a task has done much.
        pin!(tokio::task::unconstrained(future)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn a_full_queue_makes_its_sender_wait_and_one_item_always_fits() {
        let (sender, mut receiver) = queue();
        assert!(sender.send("large", usize::MAX).await);
        assert!(is_pending(sender.send("more", 1)));
        assert_eq!(receiver.recv().await, Some("large"));
        assert!(sender.send("more", 1).await);
        assert_eq!(receiver.try_recv(), Some("more"));
        assert!(sender.send("for a thread", 1).await);
        let (item, receiver) = thread::spawn(move || (receiver.blocking_recv(), receiver)).join().unwrap();
        assert_eq!(item, Some("for a thread"));
        drop(receiver);
        assert!(!sender.send("nobody", 1).await);
    }

    #[tokio::test]
    async fn many_small_items_count_as_well() {
        let (sender, _receiver) = queue();
        let mut count = 0;
        while !is_pending(sender.send((), 0)) {
            count += 1;
        }
        assert_eq!(count, ROOM as usize / ITEM);
    }
}
