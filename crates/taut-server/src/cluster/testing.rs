//! An engine for tests, which answers from tables.

pub(crate) mod nodes;
pub(crate) mod scenarios;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Broker, Node, Phase, Question, State};
use crate::apps::App;
use crate::hub::engine::Request;
use crate::query::{ChannelState, Occupancy};

/// What it knows, and how it stands with it.
#[derive(Debug, Default)]
pub(crate) struct TestEngine(Mutex<Tables>, AtomicUsize);

#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) state: State,
    /// Questions are dropped and events fail, as by an engine that is lost meanwhile.
    pub(crate) is_silent: bool,
    pub(crate) channels: BTreeMap<Arc<str>, Occupancy>,
    pub(crate) channel: ChannelState,
    pub(crate) users: Vec<Arc<str>>,
    pub(crate) nodes: Vec<Node>,
    /// Users whose connections were to be closed.
    pub(crate) terminated: Vec<Arc<str>>,
    /// Apps for whose connections places were wanted.
    pub(crate) drawn: Vec<Box<str>>,
    pub(crate) has_left: bool,
}

impl TestEngine {
    pub(crate) fn in_phase(phase: Phase) -> Arc<Self> {
        let engine = Arc::new(Self::default());
        engine.tables().state.phase = phase;
        engine
    }

    pub(crate) fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().expect("no test has panicked")
    }

    /// How many questions there were.
    pub(crate) fn asked(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Broker for TestEngine {
    fn send(&self, _: &Arc<App>, request: Request) {
        if let (true, Request::Publish { receipt: Some(receipt), .. }) = (self.tables().is_silent, request) {
            receipt.fail();
        }
    }

    fn ask(&self, question: Question) {
        self.1.fetch_add(1, Ordering::Relaxed);
        let mut tables = self.tables();
        if tables.is_silent {
            return;
        }
        // Nobody may be left to hear it.
        match question {
            Question::Channels { prefix, answer, .. } => {
                let found = tables.channels.iter().filter(|(name, _)| name.starts_with(&*prefix));
                let _ = answer.send(found.map(|(name, occupancy)| (Arc::clone(name), *occupancy)).collect());
            }
            Question::Channel { answer, .. } => drop(answer.send(tables.channel.clone())),
            Question::Users { answer, .. } => drop(answer.send(tables.users.clone())),
            Question::Terminate { user_id, answer, .. } => {
                tables.terminated.push(user_id);
                let _ = answer.send(1);
            }
            Question::Nodes { answer } => drop(answer.send(tables.nodes.clone())),
        }
    }

    fn draw(&self, app: &Arc<App>) {
        self.tables().drawn.push(app.id().into());
    }

    fn state(&self) -> State {
        self.tables().state
    }

    fn leave(&self, done: oneshot::Sender<()>) {
        self.tables().has_left = true;
        drop(done);
    }
}

/// A node of a cluster.
pub(crate) fn node(name: &str, connections: u64, is_here: bool) -> Node {
    let incarnation = format!("{name}-1").into();
    let (name, version, lease) = (name.into(), "1.2.3".into(), Duration::from_millis(7500));
    Node { incarnation, name, version, is_here, connections, lease }
}
