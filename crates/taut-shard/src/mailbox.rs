//! How other threads speak to a shard: a bounded queue and one wake for a burst.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;

/// A handle for sending mail to a shard; clones go to the same one.
///
/// Nobody waits: a mailbox that holds its bytes refuses more.
pub struct Mailbox<Mail>(Arc<Shared<Mail>>);

/// The mailbox or the [`Intake`](crate::Intake) is full, or its shard has stopped. What it did not take comes back.
#[derive(Debug)]
pub struct Refused<Mail>(pub Mail);

struct Shared<Mail> {
    queue: SegQueue<(Mail, usize)>,
    bytes: AtomicUsize,
    capacity: usize,
    /// A wake is under way: the rest of a burst needs none.
    woken: AtomicBool,
    closed: AtomicBool,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl<Mail> Mailbox<Mail> {
    pub(crate) fn new(capacity: usize, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self(Arc::new(Shared {
            queue: SegQueue::new(),
            bytes: AtomicUsize::new(0),
            capacity,
            woken: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake,
        }))
    }

    /// Sends mail that counts as `bytes`, if there is room.
    pub fn push(&self, mail: Mail, bytes: usize) -> Result<(), Refused<Mail>> {
        self.push_quietly(mail, bytes).inspect(|()| self.wake())
    }

    /// The same for a shard's handler that writes to its own shard, from within a call: the shard looks when the call is
    /// over, in this tick or the next, and needs no wake. From anywhere else the mail would lie until something happens.
    pub fn push_to_self(&self, mail: Mail, bytes: usize) -> Result<(), Refused<Mail>> {
        self.push_quietly(mail, bytes)
    }

    fn push_quietly(&self, mail: Mail, bytes: usize) -> Result<(), Refused<Mail>> {
        let bytes = bytes + size_of::<Mail>();
        let held = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        if held + bytes > self.0.capacity && held > 0 {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused(mail));
        }
        self.put(mail, bytes)
    }

    /// Sends mail that must not be lost, full or not. The sender sees to it that there is little of it.
    pub fn push_always(&self, mail: Mail) -> Result<(), Refused<Mail>> {
        let bytes = size_of::<Mail>();
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.put(mail, bytes).inspect(|()| self.wake())
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn put(&self, mail: Mail, bytes: usize) -> Result<(), Refused<Mail>> {
        if self.0.closed.load(Ordering::Acquire) {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused(mail));
        }
        self.0.queue.push((mail, bytes));
        // The shard stopped meanwhile, and may have looked for the last time: nobody but us would end what waits.
        if self.0.closed.load(Ordering::SeqCst) {
            self.discard();
        }
        Ok(())
    }

    fn wake(&self) {
        if !self.0.woken.swap(true, Ordering::AcqRel) {
            (self.0.wake)();
        }
    }

    /// For the shard, before it looks: mail that comes from now on wakes it again.
    pub(crate) fn rearm(&self) {
        // Most ticks find no mark. One that is set just now comes with a wake of its own, and so with another tick.
        if self.0.woken.load(Ordering::Relaxed) {
            // A read-modify-write, so that either it sees the sender's mark and with it the mail, or the sender sees
            // this one and wakes.
            self.0.woken.swap(false, Ordering::AcqRel);
        }
    }

    pub(crate) fn pop(&self) -> Option<Mail> {
        // To find the queue empty is the common case, and cheaper than to pop nothing.
        if self.0.queue.is_empty() {
            return None;
        }
        let (mail, bytes) = self.0.queue.pop()?;
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(mail)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.queue.is_empty()
    }

    /// Takes no more, and ends what waits: nobody will read it, and whoever waits for an answer to it learns so as it is dropped.
    pub(crate) fn close(&self) {
        // In one order with the queue's own operations: whoever pushes then either sees it or is seen.
        self.0.closed.store(true, Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        while self.pop().is_some() {}
    }
}

impl<Mail> Clone for Mailbox<Mail> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Mail> fmt::Debug for Mailbox<Mail> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc::{self, TryRecvError};
    use std::thread;

    use super::*;

    fn mailbox(capacity: usize) -> (Mailbox<u64>, Arc<AtomicU32>) {
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&wakes);
        (
            Mailbox::new(
                capacity,
                Arc::new(move || {
                    counter.fetch_add(1, Ordering::Relaxed);
                }),
            ),
            wakes,
        )
    }

    #[test]
    fn a_burst_wakes_once() {
        let (mailbox, wakes) = mailbox(1 << 20);
        for n in 0..100 {
            mailbox.push(n, 0).unwrap();
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        mailbox.rearm();
        assert_eq!(std::iter::from_fn(|| mailbox.pop()).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        mailbox.push(0, 0).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_a_shard_tells_itself_wakes_nobody_and_is_bounded_all_the_same() {
        let (mailbox, wakes) = mailbox(1000);
        mailbox.push_to_self(1, 900).unwrap();
        assert!(matches!(mailbox.push_to_self(2, 900), Err(Refused(2))));
        assert_eq!((wakes.load(Ordering::Relaxed), mailbox.pop()), (0, Some(1)));
        mailbox.push(3, 0).unwrap();
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_full_mailbox_gives_the_mail_back_and_has_room_again_when_read() {
        let (mailbox, _) = mailbox(1000);
        mailbox.push(1, 900).unwrap();
        assert!(matches!(mailbox.push(2, 900), Err(Refused(2))));
        assert!(mailbox.push_always(3).is_ok());
        assert_eq!((mailbox.pop(), mailbox.pop(), mailbox.waiting()), (Some(1), Some(3), 0));
        assert!(mailbox.push(2, 5000).is_ok(), "one of any size, when it is empty");
    }

    #[test]
    fn what_waits_is_ended_by_a_close() {
        let mailbox = Mailbox::new(1000, Arc::new(|| {}));
        let (mail, answered) = mpsc::channel::<()>();
        mailbox.push(mail.clone(), 900).unwrap();
        mailbox.push_always(mail).unwrap();
        mailbox.close();
        assert_eq!(answered.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(mailbox.waiting(), 0);
    }

    #[test]
    fn what_comes_while_it_closes_is_refused_or_ended() {
        for _ in 0..200 {
            let mailbox = Mailbox::new(1 << 20, Arc::new(|| {}));
            let (mail, answered) = mpsc::channel::<()>();
            let start = Barrier::new(3);
            thread::scope(|scope| {
                for _ in 0..2 {
                    let mail = mail.clone();
                    scope.spawn(|| {
                        let mail = mail;
                        start.wait();
                        while mailbox.push_always(mail.clone()).is_ok() {}
                    });
                }
                start.wait();
                mailbox.close();
            });
            drop(mail);
            assert_eq!(answered.try_recv(), Err(TryRecvError::Disconnected));
            assert_eq!(mailbox.waiting(), 0);
        }
    }
}
