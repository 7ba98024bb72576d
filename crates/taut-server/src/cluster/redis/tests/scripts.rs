//! What single scripts decide where no driver comes to it in time: leases that are over, and keys that nobody needs any more.

use ::redis::{FromRedisValue, RedisError, Value};

use super::super::scripts::Script;
use super::harness::cluster;
use super::model::Engine;
use crate::cluster::testing::scenarios::LONG;
use crate::cluster::wire::{self, Cell};

const CHANNEL: &str = "presence-cache-a";

/// A lease that lasts longer than any test.
const LEASE: i64 = 1_000_000;

/// One that is over when it begins.
const OVER: i64 = -1_000;

fn engine(connection: ::redis::Connection) -> Engine {
    Engine { connection, changes: 0 }
}

impl Engine {
    fn call<T: FromRedisValue>(&mut self, script: Script, arguments: &[&str]) -> Result<T, RedisError> {
        let arguments: Vec<_> = arguments.iter().map(|it| it.as_bytes().to_vec()).collect();
        Ok(::redis::from_redis_value(self.run(script, &arguments)?)?)
    }

    fn done(&mut self, script: Script, arguments: &[&str]) {
        self.call::<Value>(script, arguments).expect("it is done");
    }

    fn enter_for(&mut self, incarnation: &str, lease: i64) {
        let node = String::from_utf8(wire::node(incarnation, "", 0)).expect("text");
        self.done(Script::Enter, &[incarnation, "7", &lease.to_string(), &node]);
    }

    fn renew(&mut self, incarnation: &str, change: &str) -> Result<[u64; 2], RedisError> {
        self.call(Script::Renew, &[incarnation, change, &LEASE.to_string(), "node"])
    }

    fn join_cell(
        &mut self,
        incarnation: &str,
        change: &str,
        cell: &str,
        most: &str,
    ) -> Result<Vec<String>, RedisError> {
        self.call(Script::Join, &[incarnation, change, cell, "=1", most])
    }

    fn keep(&mut self, incarnation: &str, channel: &str, ttl: i64) -> Result<u64, RedisError> {
        self.call(Script::Keep, &[incarnation, "1", channel, "head", "tail", &ttl.to_string()])
    }

    /// The number, the event and for how many ms it is kept.
    fn last(&mut self, channel: &str, is_missed: &str) -> (u64, Option<String>, i64) {
        self.call(Script::Last, &["1", channel, is_missed]).expect("an answer")
    }

    /// What has happened, and how many ms ago, for a node that reads it from somewhere on and has told these.
    fn read(&mut self, incarnation: &str, from: &str, most: &str, told: &[&str]) -> Vec<(String, String, u64)> {
        self.call(Script::Happened, &[&[incarnation, from, most], told].concat()).expect("an answer")
    }

    fn query<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        ::redis::cmd(words[0]).arg(&words[1..]).query(&mut self.connection).expect("an answer")
    }

    /// For how many ms a key lives: -1 for ever, -2 if it is not there.
    fn lives(&mut self, key: &str) -> i64 {
        self.query(&["PTTL", &format!("taut{{0}}:{key}")])
    }
}

fn occupied(channel: &str) -> String {
    String::from_utf8(Cell::Occupied { app: "1", channel }.write()).expect("text")
}

fn member(user_id: &str) -> String {
    String::from_utf8(Cell::Member { app: "1", channel: CHANNEL, user_id }.write()).expect("text")
}

#[test]
fn an_incarnation_whose_lease_is_over_changes_and_reads_nothing_any_more() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("late", OVER);
    let (cell, lease) = (occupied("a"), LEASE.to_string());
    for incarnation in ["late", "unknown"] {
        for (script, rest) in [
            (Script::Join, &["1", &cell, "=1", "0"][..]),
            (Script::Leave, &["1", &cell, "0"]),
            (Script::Keep, &["1", "cache-a", "head", "tail", "1000"]),
            (Script::Renew, &["0", &lease, "node"]),
        ] {
            let error = engine.call::<Value>(script, &[&[incarnation], rest].concat()).expect_err("its lease is over");
            assert_eq!(error.code(), Some("FENCED"), "{incarnation}: {script:?}: {error}");
        }
    }
    assert_eq!([engine.lives("occupied:1"), engine.lives("last:1:cache-a")], [-2, -2]);
    engine.enter_for("other", LEASE);
    engine.join_cell("other", "1", &cell, "0").expect("it has a lease");
    engine.query::<Value>(&["SET", "taut{0}:reader", "late"]);
    assert_eq!(engine.read("late", "-", "10", &[]), []);
}

#[test]
fn only_the_reader_is_given_what_has_happened_and_what_it_has_told_goes() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("a", LEASE);
    engine.enter_for("b", LEASE);
    assert_eq!([engine.renew("a", "0").expect("a lease"), engine.renew("b", "0").expect("a lease")], [[1, 0], [0, 0]]);
    for channel in ["x", "y", "z"] {
        engine.join_cell("b", "1", &occupied(channel), "0").expect("a lease");
    }
    let events = |read: &[(String, String, u64)]| read.iter().map(|(_, event, _)| event.clone()).collect::<Vec<_>>();
    let first = engine.read("a", "-", "2", &[]);
    assert_eq!(events(&first), ["1o1:11:x", "1o1:11:y"]);
    let second = first[1].0.clone();
    assert_eq!(engine.read("b", "-", "10", &[&second]), [], "it is not its turn");
    assert_eq!(events(&engine.read("a", "-", "2", &[])), events(&first), "nobody has told it");
    let behind = format!("({second}");
    assert_eq!(events(&engine.read("a", &behind, "2", &[&second])), ["1o1:11:z"]);
    assert_eq!(events(&engine.read("a", "-", "9", &[])), ["1o1:11:x", "1o1:11:z"], "the first one is held back");
    assert_eq!(engine.read("a", "-", "0", &[&first[0].0]), []);
    assert_eq!(events(&engine.read("a", "-", "9", &[])), ["1o1:11:z"]);
}

#[test]
fn what_has_happened_is_given_with_how_long_ago_that_was_however_much_was_told() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("a", LEASE);
    engine.renew("a", "0").expect("a lease");
    let stream = "taut{0}:happened";
    let [seconds, _]: [u64; 2] = engine.query(&["TIME"]);
    let past = format!("{}-7", 1000 * seconds - 60_000);
    assert_eq!(engine.query::<String>(&["XADD", stream, &past, "event", "1o1:11:x"]), past);
    let future = format!("{}-0", 1000 * seconds + 3_600_000);
    assert_eq!(engine.query::<String>(&["XADD", stream, &future, "event", "1o1:11:y"]), future);
    let read = engine.read("a", "-", "9", &[]);
    assert!((60_000..120_000).contains(&read[0].2), "{read:?}");
    assert_eq!(read[1].2, 0, "its clock was put back");
    let many: Vec<_> = (0..1000).map(|number| format!("1-{number}")).collect();
    let many: Vec<_> = many.iter().map(|id| &**id).chain([&*past, &*future]).collect();
    assert_eq!(engine.read("a", "-", "9", &many), []);
}

#[test]
fn a_renewal_must_know_every_change() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("a", LEASE);
    engine.join_cell("a", "1", &occupied("a"), "0").expect("a lease");
    assert!(engine.renew("a", "0").is_err() && engine.renew("a", "1").is_ok());
    engine.done(Script::Leave, &["a", "2", &occupied("a"), "0"]);
    assert!(engine.renew("a", "1").is_err() && engine.renew("a", "2").is_ok());
}

#[test]
fn a_renewal_prolongs_the_lease_and_gives_those_that_are_over_to_the_reapers() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("a", LEASE / 2);
    engine.enter_for("b", LEASE);
    for number in 0..12 {
        engine.enter_for(&format!("late-{number}"), OVER);
    }
    assert_eq!(engine.renew("a", "0").expect("a lease"), [1, 10], "some at a time");
    assert_eq!(engine.renew("b", "0").expect("a lease"), [0, 12], "one node reads");
    assert_eq!(engine.query::<u64>(&["ZCARD", "taut{0}:leases"]), 2);
    let nodes: Vec<(String, i64, String)> = engine.call(Script::Nodes, &[]).expect("nodes");
    assert!(nodes.iter().all(|(_, lease, said)| *lease > LEASE / 2 && said == "node"), "{nodes:?}");
    for _ in 0..2 {
        let turn = engine.lives("reader");
        assert!(turn > LEASE / 2 && turn <= LEASE, "{turn}");
        engine.query::<Value>(&["PEXPIRE", "taut{0}:reader", "100000"]);
        engine.renew("a", "0").expect("a lease");
    }
    engine.done(Script::Retire, &["0", "b"]);
    assert_eq!(engine.renew("a", "0").expect("a lease"), [1, 13], "it goes on reading");
    engine.enter_for("c", LEASE);
    engine.done(Script::Retire, &["0", "a"]);
    assert_eq!(engine.renew("c", "0").expect("a lease"), [1, 14], "whoever retires gives its turn back");
}

#[test]
fn a_dead_incarnation_is_reaped_part_by_part_and_leaves_nothing() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("a", LEASE);
    engine.enter_for("b", LEASE);
    for user_id in ["ann", "bob", "cid"] {
        engine.join_cell("a", "1", &member(user_id), "0").expect("a lease");
    }
    let number =
        |engine: &mut Engine, script, arguments: &[&str]| engine.call::<u64>(script, arguments).expect("a number");
    assert_eq!(number(&mut engine, Script::Retire, &["0", "unknown"]), 0);
    assert_eq!(number(&mut engine, Script::Retire, &["0", "a"]), 1);
    assert_eq!(engine.renew("b", "0").expect("a lease")[1], 1);
    assert_eq!([1, 2].map(|_| number(&mut engine, Script::Reap, &["2"])), [1, 0]);
    for key in ["changes", "members"] {
        assert_eq!(engine.query::<Vec<String>>(&["HKEYS", &format!("taut{{0}}:{key}")]), ["b"], "{key}");
    }
    assert_eq!(engine.lives(&format!("users:1:{CHANNEL}")), -2);
}

#[test]
fn nodes_are_listed_from_their_entry_until_their_lease_is_over() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("here", LEASE);
    engine.enter_for("late", OVER);
    let nodes: Vec<(String, i64, String)> = engine.call(Script::Nodes, &[]).expect("nodes");
    let [(incarnation, lease, said)] = &nodes[..] else { panic!("{nodes:?}") };
    assert!(incarnation == "here" && *lease <= LEASE && *lease > LEASE - 60_000 && said.contains("here"), "{nodes:?}");
}

#[test]
fn an_epoch_settles_from_the_first_entry_and_later_ones_do_not_prolong_it() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    let is_settling = |engine: &mut Engine| {
        let (_, is_settling, _): (String, bool, Value) =
            engine.call(Script::Members, &["1", CHANNEL, "60000"]).expect("members");
        is_settling
    };
    engine.enter_for("a", LEASE);
    assert!(engine.query::<bool>(&["HEXISTS", "taut{0}:epoch", "born"]) && is_settling(&mut engine));
    engine.query::<Value>(&["HINCRBY", "taut{0}:epoch", "born", "-60001"]);
    engine.enter_for("b", LEASE);
    assert!(!is_settling(&mut engine));
}

#[test]
fn channels_have_the_subscribers_of_all_nodes() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    for (incarnation, subscribers) in [("a", "3"), ("b", "4")] {
        engine.enter_for(incarnation, LEASE);
        engine.join_cell(incarnation, "1", &occupied("chat"), "0").expect("a lease");
        engine.done(Script::Count, &[incarnation, "2", "0", "1", "chat", subscribers]);
    }
    let (_, channels): (String, Vec<(String, u64, Option<u64>)>) =
        engine.call(Script::Channels, &["1", "", "0"]).expect("channels");
    assert_eq!(channels, [("chat".to_owned(), 7, None)]);
}

#[test]
fn a_last_event_is_kept_for_its_time_and_its_number_for_as_long_as_somebody_may_compare_it() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    let key = format!("last:1:{CHANNEL}");
    engine.enter_for("a", LEASE);
    assert_eq!(engine.keep("a", CHANNEL, 600_000).expect("a lease"), 1);
    let is_about = |lives: i64, wanted: i64| lives <= wanted && lives > wanted - 30_000;
    assert!(is_about(engine.lives(&key), 600_000), "nobody is there");
    engine.join_cell("a", "1", &occupied(CHANNEL), "0").expect("a lease");
    assert_eq!(engine.lives(&key), -1, "somebody is there");
    assert_eq!(engine.keep("a", CHANNEL, 600_000).expect("a lease"), 2);
    assert_eq!(engine.lives(&key), -1);
    let (number, event, left) = engine.last(CHANNEL, "0");
    assert_eq!((number, event.as_deref()), (2, Some("tail")));
    assert!(is_about(left, 600_000));
    engine.done(Script::Leave, &["a", "2", &occupied(CHANNEL), "0"]);
    assert!(is_about(engine.lives(&key), 600_000), "the event lives on");
    engine.join_cell("a", "3", &occupied(CHANNEL), "0").expect("a lease");
    assert_eq!(engine.keep("a", CHANNEL, OVER).expect("a lease"), 3);
    assert_eq!(engine.last(CHANNEL, "0"), (3, None, 0));
    engine.done(Script::Leave, &["a", "4", &occupied(CHANNEL)]);
    assert!(is_about(engine.lives(&key), 60_000), "only the number is left");
}

#[test]
fn a_miss_is_told_once_until_something_was_kept_again() {
    let Some(cluster) = cluster(LONG) else { return };
    let mut engine = engine(cluster.connection());
    engine.enter_for("a", LEASE);
    engine.renew("a", "0").expect("a lease");
    let misses = |engine: &mut Engine, channel: &str, is_missed| {
        let (_, event, _) = engine.last(channel, is_missed);
        assert_eq!(event, None);
        engine.read("a", "-", "100", &[]).iter().filter(|(_, event, _)| event.starts_with("1m")).count()
    };
    assert_eq!(misses(&mut engine, "cache-b", "0"), 0, "nobody waits for it");
    assert_eq!(engine.lives("last:1:cache-b"), -2);
    let key = format!("last:1:{CHANNEL}");
    assert_eq!(misses(&mut engine, CHANNEL, "1"), 1);
    let lives = engine.lives(&key);
    assert!(lives > 30_000 && lives <= 60_000, "{lives}");
    assert_eq!(misses(&mut engine, CHANNEL, "1"), 1);
    engine.join_cell("a", "1", &occupied(CHANNEL), "0").expect("a lease");
    engine.keep("a", CHANNEL, OVER).expect("a lease");
    assert_eq!(misses(&mut engine, CHANNEL, "1"), 2);
    assert_eq!(engine.lives(&key), -1, "somebody is there");
}
