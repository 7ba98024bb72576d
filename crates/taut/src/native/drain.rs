//! A graceful end: tells the tasks of all clients that the server drains, and then that it is over.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use slab::Slab;

/// Whether clients are served, told to go, or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DrainStage {
    Open,
    Draining,
    Over,
}

/// The stage of a server. Reading it takes no lock.
#[derive(Debug, Default)]
pub(crate) struct DrainSignal {
    stage: AtomicU8,
    waiting: Mutex<Slab<Waker>>,
}

impl DrainSignal {
    fn stage(&self) -> DrainStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => DrainStage::Open,
            1 => DrainStage::Draining,
            _ => DrainStage::Over,
        }
    }

    /// Enters a later stage and wakes all who watch.
    pub(crate) fn enter(&self, stage: DrainStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        // Woken outside of the lock: a waker may do anything.
        let waiting: Vec<Waker> = self.waiting().iter().map(|(_, waker)| waker.clone()).collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a task when the stage changes.
pub(crate) struct DrainWatch {
    signal: Arc<DrainSignal>,
    key: Option<usize>,
}

impl DrainWatch {
    pub(crate) fn new(signal: Arc<DrainSignal>) -> Self {
        Self { signal, key: None }
    }

    /// The stage; the task is woken when it changes.
    pub(crate) fn stage(&mut self, cx: &Context<'_>) -> DrainStage {
        // Once, since a task's waker stays the same; first, so that no change falls between this and the look.
        self.key.get_or_insert_with(|| self.signal.waiting().insert(cx.waker().clone()));
        self.signal.stage()
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.signal.waiting().remove(key);
        }
    }
}
