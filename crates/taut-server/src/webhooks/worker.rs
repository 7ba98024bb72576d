//! The task that moves events from the event bus to their receivers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::events::Entry;
use crate::http::client::Client;

use super::Shared;
use super::delivery;
use super::queue::Verdict;
use super::store::{Group, Store, StoreError};

/// All that the task has.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Receiver<Entry>,
    pub(super) store: Option<Store>,
    pub(super) client: Client,
}

impl Worker {
    /// Works until it is stopped.
    ///
    /// # Cancel safety
    /// Dropped midway, it leaves in the store what is there; attempts under way end.
    pub(super) async fn run(mut self) {
        let mut attempts = Attempts::default();
        let mut saving: Option<Saving> = None;
        let mut inbox = Vec::with_capacity(MOST_AT_ONCE);
        let mut is_open = true;
        loop {
            let next = self.step(&mut attempts, &mut saving);
            if self.shared.is_over(|| saving.is_some() || (is_open && !self.events.is_empty())) {
                return self.finish(saving).await;
            }
            tokio::select! {
                taken = self.events.recv_many(&mut inbox, MOST_AT_ONCE), if is_open => {
                    is_open = taken > 0;
                    let now = self.shared.clock.now();
                    let mut state = self.shared.state();
                    inbox.drain(..).for_each(|entry| state.record(&entry, now));
                }
                Some((id, verdict)) = attempts.next() => {
                    let now = self.shared.clock.now();
                    let mut state = self.shared.state();
                    state.finish(id, verdict, now, random());
                }
                (group, written) = async { saving.as_mut().expect("asked only where it is").ended().await }, if saving.is_some() => {
                    saving = None;
                    self.written(&group, written);
                }
                () = self.shared.woken() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Takes down what has happened up to the end, leaves to the next run what is not delivered, and says what is lost.
    async fn finish(mut self, saving: Option<Saving>) {
        if let Some(mut saving) = saving {
            let (group, written) = saving.ended().await;
            self.written(&group, written);
        }
        let group = {
            let now = self.shared.clock.now();
            let mut state = self.shared.state();
            while let Ok(entry) = self.events.try_recv() {
                state.record(&entry, now);
            }
            state.stop(now);
            state.take_group(now)
        };
        if let Some(store) = self.store.take()
            && let Some(group) = group.filter(|group| !group.is_empty())
        {
            let mut saving = Saving::begin(&store, group);
            let (group, written) = saving.ended().await;
            self.written(&group, written);
        }
        self.shared.state().report_end(self.shared.events.dropped());
        self.shared.ended();
    }

    /// Takes note of whether a group is on the disk.
    fn written(&self, group: &Group, written: Written) {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        match written {
            Ok(Ok(())) => state.saved(group, now),
            Ok(Err(error)) => state.not_saved(group, &error, now),
            Err(panicked) => state.not_saved(group, &panicked, now),
        }
    }

    /// Does all that can be done now, and says when to come back.
    fn step(&mut self, attempts: &mut Attempts, saving: &mut Option<Saving>) -> Instant {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        state.advance(now);
        if saving.is_none()
            && let Some(group) = state.take_group(now)
        {
            match &self.store {
                Some(store) if !group.is_empty() => *saving = Some(Saving::begin(store, group)),
                _ => state.saved(&group, now),
            }
        }
        while let Some(attempt) = state.next_attempt(now) {
            attempts.start(self.client.clone(), attempt);
        }
        self.shared.progress(state.recorded(saving.is_some()));
        let next = state.next_due(saving.is_some());
        let deadline = self.shared.deadline();
        let next = next.map(|next| self.shared.clock.instant(next)).into_iter().chain(deadline).min();
        next.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP)
    }
}

/// Whether a group was written.
type Written = Result<Result<(), StoreError>, JoinError>;

/// A group on its way to the disk.
struct Saving {
    group: Arc<Group>,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Saving {
    fn begin(store: &Store, group: Group) -> Self {
        let (store, group) = (store.clone(), Arc::new(group));
        let written = Arc::clone(&group);
        Self { group, task: spawn_blocking(move || store.write(&written)) }
    }

    /// Waits until it is written, or is not.
    ///
    /// # Cancel safety
    /// It can be asked again, until it has answered.
    async fn ended(&mut self) -> (Arc<Group>, Written) {
        let written = (&mut self.task).await;
        (Arc::clone(&self.group), written)
    }
}

/// The attempts under way. All of them end when this is dropped.
#[derive(Default)]
struct Attempts {
    tasks: JoinSet<(u64, Verdict)>,
    /// What each task is about, for one that panics.
    ids: HashMap<Id, u64>,
}

impl Attempts {
    fn start(&mut self, client: Client, attempt: super::queue::Attempt) {
        let id = attempt.id;
        let task = self.tasks.spawn(async move { (attempt.id, delivery::make(&client, &attempt).await) });
        self.ids.insert(task.id(), id);
    }

    /// The next that has ended; `None` when none is under way.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn next(&mut self) -> Option<(u64, Verdict)> {
        match self.tasks.join_next_with_id().await? {
            Ok((task, ended)) => {
                self.ids.remove(&task);
                Some(ended)
            }
            Err(error) => {
                let id = self.ids.remove(&error.id())?;
                Some((id, Verdict::Failed("the server could not make the request".to_owned())))
            }
        }
    }
}

/// For jitter alone: without a source of randomness it is the longest.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX)
}

/// entries of the event bus that are taken down under one lock.
const MOST_AT_ONCE: usize = 256;

const LONGEST_SLEEP: Duration = Duration::from_secs(60);
