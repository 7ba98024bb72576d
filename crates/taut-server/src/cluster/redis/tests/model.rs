//! The scripts against a model: random changes by several incarnations, some of which die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::redis::{Connection, Value};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::names::Names;
use super::super::scripts::{Script, source};
use super::harness::cluster;
use crate::cluster::wire::{self, Cell};
use crate::events::Event;

#[derive(Clone, Debug)]
enum Step {
    Join(usize, Vec<Thing>),
    Leave(usize, Vec<Thing>),
    Die(usize),
    /// At most so many cells of a dead one.
    Reap(usize),
}

/// What may be held: a channel, a user in a presence channel, a user who has signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Channel(u8),
    Member(u8, u8),
    User(u8),
}

impl Thing {
    fn cell(self) -> Vec<u8> {
        match self {
            Self::Channel(channel) => Cell::Occupied { app: "1", channel: &presence(channel) }.write(),
            Self::Member(channel, user) => {
                Cell::Member { app: "1", channel: &presence(channel), user_id: &user.to_string() }.write()
            }
            Self::User(user) => Cell::SignedIn { app: "1", user_id: &user.to_string() }.write(),
        }
    }
}

fn presence(channel: u8) -> String {
    format!("presence-{channel}")
}

fn things() -> impl Strategy<Value = Vec<Thing>> {
    let thing = prop_oneof![
        (0..3_u8).prop_map(Thing::Channel),
        (0..2_u8, 0..4_u8).prop_map(|(channel, user)| Thing::Member(channel, user)),
        (0..3_u8).prop_map(Thing::User),
    ];
    prop::collection::vec(thing, 1..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..NODES, things()).prop_map(|(node, things)| Step::Join(node, things)),
        3 => (0..NODES, things()).prop_map(|(node, things)| Step::Leave(node, things)),
        1 => (0..NODES).prop_map(Step::Die),
        2 => (1..4_usize).prop_map(Step::Reap),
    ];
    prop::collection::vec(step, 1..40)
}

/// What each incarnation holds, whether it lives, and what has been told.
#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<usize, BTreeSet<Thing>>,
    dead: BTreeSet<usize>,
}

impl Model {
    fn holders(&self, thing: Thing) -> usize {
        self.held.values().filter(|held| held.contains(&thing)).count()
    }

    fn join(&mut self, node: usize, thing: Thing) -> Option<String> {
        let is_new = self.held.entry(node).or_default().insert(thing);
        (is_new && self.holders(thing) == 1).then(|| told(thing, true))
    }

    fn leave(&mut self, node: usize, thing: Thing) -> Option<String> {
        let was_there = self.held.entry(node).or_default().remove(&thing);
        (was_there && self.holders(thing) == 0).then(|| told(thing, false))
    }

    fn all(&self) -> BTreeSet<Thing> {
        self.held.values().flatten().copied().collect()
    }
}

/// What is told of the first who holds a thing, or of the last who does not any more.
fn told(thing: Thing, is_there: bool) -> String {
    format!("{}{thing:?}", if is_there { '+' } else { '-' })
}

/// The engine, by its scripts.
pub(super) struct Engine {
    pub(super) connection: Connection,
    pub(super) changes: u64,
}

impl Engine {
    pub(super) fn run(&mut self, script: Script, arguments: &[Vec<u8>]) -> Result<Value, ::redis::RedisError> {
        let mut command = ::redis::cmd("EVAL");
        command.arg(source(script)).arg(1).arg(Names::new("taut").of(0)).arg(arguments);
        command.query(&mut self.connection)
    }

    fn change(&mut self, script: Script, node: usize, rest: Vec<Vec<u8>>) -> Result<Value, ::redis::RedisError> {
        self.changes += 1;
        let head = vec![name(node), self.changes.to_string().into_bytes()];
        self.run(script, &[head, rest].concat())
    }

    fn enter(&mut self, node: usize) {
        let lease = b"1000000".to_vec();
        self.run(Script::Enter, &[name(node), b"7".to_vec(), lease, wire::node("", "", 0)]).expect("it enters");
    }

    fn keys(&mut self, key: &str) -> BTreeSet<String> {
        ::redis::cmd("HKEYS").arg(format!("taut{{0}}:{key}")).query(&mut self.connection).expect("keys")
    }

    fn holds(&mut self, node: usize) -> BTreeSet<Vec<u8>> {
        let key = format!("taut{{0}}:cells:{node}");
        ::redis::cmd("SMEMBERS").arg(key).query(&mut self.connection).expect("cells")
    }

    /// All that is there, as the keys say that nodes read.
    fn all(&mut self) -> BTreeSet<Thing> {
        let number = |text: &str| text.rsplit('-').next().and_then(|it| it.parse().ok()).expect("a number");
        let mut all: BTreeSet<_> = self.keys("occupied:1").iter().map(|it| Thing::Channel(number(it))).collect();
        all.extend(self.keys("online:1").iter().map(|it| Thing::User(number(it))));
        for channel in 0..2 {
            let (users, nodes) =
                (self.keys(&format!("users:1:presence-{channel}")), self.keys(&format!("nodes:1:presence-{channel}")));
            assert_eq!(users, nodes);
            all.extend(users.iter().map(|it| Thing::Member(channel, number(it))));
        }
        all
    }

    /// What webhooks would be told since the last call.
    fn told(&mut self) -> Vec<String> {
        let number = |text: &str| text.rsplit('-').next().and_then(|it| it.parse().ok()).expect("a number");
        let text = |(_, event, _)| match event {
            Event::ChannelOccupied { channel } => told(Thing::Channel(number(&channel)), true),
            Event::ChannelVacated { channel } => told(Thing::Channel(number(&channel)), false),
            Event::MemberAdded { channel, user_id } => told(Thing::Member(number(&channel), number(&user_id)), true),
            Event::MemberRemoved { channel, user_id } => told(Thing::Member(number(&channel), number(&user_id)), false),
            other => panic!("{other:?}"),
        };
        self.happened().into_iter().map(text).collect()
    }

    fn happened(&mut self) -> Vec<(Box<str>, Event, Duration)> {
        let entries: Vec<(String, (String, Vec<u8>))> = ::redis::cmd("XRANGE")
            .arg("taut{0}:happened")
            .arg("-")
            .arg("+")
            .query(&mut self.connection)
            .expect("entries");
        ::redis::cmd("DEL").arg("taut{0}:happened").exec(&mut self.connection).expect("an answer");
        entries.iter().map(|(_, (_, event))| wire::happened(event).expect("an event")).collect()
    }
}

fn name(node: usize) -> Vec<u8> {
    node.to_string().into_bytes()
}

/// Webhooks are not told of users who sign in.
fn for_webhooks(told: impl IntoIterator<Item = String>) -> Vec<String> {
    told.into_iter().filter(|text| !text.contains("User")).collect()
}

fn check(engine: &mut Engine, steps: &[Step]) {
    ::redis::cmd("FLUSHALL").exec(&mut engine.connection).expect("an answer");
    let mut model = Model::default();
    for node in 0..NODES {
        engine.enter(node);
    }
    for step in steps {
        let mut expected = match step {
            Step::Join(node, things) => {
                let cells = things.iter().flat_map(|it| [it.cell(), b"=1".to_vec(), b"0".to_vec()]).collect();
                let done = engine.change(Script::Join, *node, cells);
                assert_eq!(done.is_err(), model.dead.contains(node), "{done:?}");
                let things = if done.is_ok() { &things[..] } else { &[] };
                things.iter().filter_map(|thing| model.join(*node, *thing)).collect()
            }
            Step::Leave(node, things) => {
                let done = engine.change(
                    Script::Leave,
                    *node,
                    things.iter().flat_map(|it| [it.cell(), b"0".to_vec()]).collect(),
                );
                assert_eq!(done.is_err(), model.dead.contains(node), "{done:?}");
                let things = if done.is_ok() { &things[..] } else { &[] };
                things.iter().filter_map(|thing| model.leave(*node, *thing)).collect()
            }
            Step::Die(node) => {
                engine.run(Script::Retire, &[b"0".to_vec(), name(*node)]).expect("it retires");
                model.dead.insert(*node);
                Vec::new()
            }
            Step::Reap(most) => {
                engine.run(Script::Reap, &[name(*most)]).expect("it reaps");
                let mut expected = Vec::new();
                for node in model.dead.clone() {
                    let left = engine.holds(node);
                    let held = model.held.get(&node).cloned().unwrap_or_default();
                    for thing in held.into_iter().filter(|thing| !left.contains(&thing.cell())) {
                        expected.extend(model.leave(node, thing));
                    }
                }
                expected
            }
        };
        let mut told = engine.told();
        if matches!(step, Step::Reap(_)) {
            // In whatever order Redis takes them.
            expected.sort();
            told.sort();
        }
        assert_eq!(told, for_webhooks(expected), "{step:?}");
        assert_eq!(engine.all(), model.all(), "{step:?}");
    }
    // A bound, in case that they never come to an end.
    for _ in 0..100 {
        engine.run(Script::Reap, &[name(200)]).expect("it reaps");
    }
    let living = (0..NODES)
        .filter(|node| !model.dead.contains(node))
        .flat_map(|node| model.held.get(&node).into_iter().flatten());
    assert_eq!(engine.all(), living.copied().collect::<BTreeSet<_>>());
}

#[test]
fn webhooks_are_told_for_how_long_a_leave_was_held_back() {
    let Some(cluster) = cluster(crate::cluster::testing::scenarios::LONG) else { return };
    let mut engine = Engine { connection: cluster.connection(), changes: 0 };
    let things = [Thing::Channel(0), Thing::Member(0, 0)];
    for (node, waited) in [(0, "0"), (1, "3000")] {
        engine.enter(node);
        let cells = things.iter().flat_map(|it| [it.cell(), b"=1".to_vec(), b"0".to_vec()]).collect();
        engine.change(Script::Join, node, cells).expect("it joins");
        engine.told();
        let cells = things.iter().rev().flat_map(|it| [it.cell(), waited.into()]).collect();
        engine.change(Script::Leave, node, cells).expect("it leaves");
        let milliseconds: Vec<u128> = engine.happened().iter().map(|(_, _, waited)| waited.as_millis()).collect();
        assert_eq!(milliseconds, [waited.parse().expect("a number"); 2]);
    }
}

#[test]
fn whatever_nodes_do_and_whoever_dies_the_scripts_say_what_the_model_says() {
    let Some(cluster) = cluster(crate::cluster::testing::scenarios::LONG) else { return };
    let mut engine = Engine { connection: cluster.connection(), changes: 0 };
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(100) });
    let engine = std::cell::RefCell::new(&mut engine);
    runner
        .run(&steps(), |steps| {
            check(&mut engine.borrow_mut(), &steps);
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

const NODES: usize = 3;
