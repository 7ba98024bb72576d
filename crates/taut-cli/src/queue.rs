//! A queue between tasks and threads, bounded by bytes: a sender waits while it is full.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

/// A queue that holds about a megabyte, and at least one item, however large.
pub(crate) fn queue<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM as usize));
    (Sender { items: sender, room: Arc::clone(&room) }, Receiver { items: receiver, room })
}

#[derive(Clone)]
pub(crate) struct Sender<T> {
    items: mpsc::UnboundedSender<(T, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl<T> Sender<T> {
    /// Adds an item of so many bytes, as soon as there is room; false if the receiver is gone.
    pub(crate) async fn send(&self, item: T, bytes: usize) -> bool {
        let room = self.reserve(bytes).await;
        room.is_some_and(|room| room.send(item))
    }

    /// Adds an item if there is room now, or if the receiver is gone: then nobody misses it. Gives it back otherwise.
    pub(crate) fn try_send(&self, item: T, bytes: usize) -> Result<(), T> {
        match Arc::clone(&self.room).try_acquire_many_owned(cost(bytes)) {
            Ok(permit) => {
                let _ = self.items.send((item, permit));
                Ok(())
            }
            Err(TryAcquireError::NoPermits) => Err(item),
            Err(TryAcquireError::Closed) => Ok(()),
        }
    }

    /// Waits for room for an item of so many bytes; `None` if the receiver is gone.
    pub(crate) async fn reserve(&self, bytes: usize) -> Option<Room<'_, T>> {
        let permit = Arc::clone(&self.room).acquire_many_owned(cost(bytes)).await.ok()?;
        Some(Room { items: &self.items, permit })
    }

    /// Waits until the receiver is gone.
    pub(crate) async fn closed(&self) {
        self.items.closed().await;
    }
}

/// Room for one item.
pub(crate) struct Room<'s, T> {
    items: &'s mpsc::UnboundedSender<(T, OwnedSemaphorePermit)>,
    permit: OwnedSemaphorePermit,
}

impl<T> Room<'_, T> {
    /// Adds the item; false if the receiver is gone.
    pub(crate) fn send(self, item: T) -> bool {
        self.items.send((item, self.permit)).is_ok()
    }
}

pub(crate) struct Receiver<T> {
    items: mpsc::UnboundedReceiver<(T, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

impl<T> Receiver<T> {
    /// The next item; `None` once all senders are gone. Dropping the future loses nothing.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        self.items.recv().await.map(|(item, _)| item)
    }

    /// The same for a thread that has no runtime.
    pub(crate) fn blocking_recv(&mut self) -> Option<T> {
        self.items.blocking_recv().map(|(item, _)| item)
    }

    /// An item, if one is there.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        self.items.try_recv().ok().map(|(item, _)| item)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Wakes senders that wait for room.
        self.room.close();
    }
}

/// What an item costs: no more than there is, so that the largest fits alone.
fn cost(bytes: usize) -> u32 {
    u32::try_from(bytes.saturating_add(ITEM)).unwrap_or(ROOM).min(ROOM)
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
        assert_eq!(sender.try_send("large", usize::MAX), Ok(()));
        assert_eq!(sender.try_send("more", 1), Err("more"));
        let (item, receiver) = thread::spawn(move || (receiver.blocking_recv(), receiver)).join().unwrap();
        assert_eq!(item, Some("large"));
        drop(receiver);
        assert!(!sender.send("nobody", 1).await);
        assert_eq!(sender.try_send("nobody", 1), Ok(()));
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
