use proptest::prelude::*;

use super::*;

const EPOCH: Epoch = Epoch(7);

fn channel_name(channel: u8) -> Arc<str> {
    format!("presence-{channel}").into()
}

fn entry(incarnation: &str, content: Content) -> Entry {
    Entry { incarnation: incarnation.into(), content }
}

fn renewed() -> Content {
    Content::Renewed { name: "a".into(), version: "1".into(), connections: 3 }
}

fn member(channel: &str, user_id: &str, user_info: &str, most: usize) -> Content {
    let user_info = Some(user_info.into());
    Content::Holds(Holding::Member {
        app: "1".into(),
        channel: channel.into(),
        user_id: user_id.into(),
        user_info,
        most,
    })
}

fn left(channel: &str, user_id: &str) -> Content {
    released(Key::Member { app: "1".into(), channel: channel.into(), user_id: user_id.into() })
}

fn occupied(channel: &str) -> Content {
    Content::Holds(Holding::Occupied { app: "1".into(), channel: channel.into() })
}

fn vacated(channel: &str) -> Content {
    released(Key::Occupied { app: "1".into(), channel: channel.into() })
}

fn released(key: Key) -> Content {
    Content::Released { key, waited: Duration::ZERO }
}

fn signed_in(user_id: &str) -> Content {
    Content::Holds(Holding::SignedIn { app: "1".into(), user_id: user_id.into() })
}

fn told_up_to(sequence: u64) -> Content {
    Content::Told { sequence, beyond: Told::default() }
}

fn counted(channel: &str, subscribers: usize, former: &[&str]) -> Content {
    let former = former.iter().map(|it| (*it).into()).collect();
    Content::Holds(Holding::Counted { app: "1".into(), channel: channel.into(), subscribers, former })
}

/// A log with these entries, and what they change.
#[derive(Debug)]
struct Reader {
    log: Log,
    next: u64,
}

impl Reader {
    fn new(incarnations: &[&str]) -> Self {
        let mut reader = Self { log: Log::new(EPOCH), next: 1 };
        for incarnation in incarnations {
            assert!(reader.reads(incarnation, Content::Entered).is_empty());
        }
        reader
    }

    fn reads(&mut self, incarnation: &str, content: Content) -> Vec<String> {
        let mut out = Vec::new();
        self.log.apply(self.next, 10 * self.next, entry(incarnation, content), &mut out);
        self.next += 1;
        out.iter().map(shown).collect()
    }

    /// What webhooks are to be told since the last call.
    fn told(&mut self) -> Vec<String> {
        let told = self.log.untold().map(|it| happened(&it.event)).collect();
        self.log.told(self.next, &Told::default());
        told
    }
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Changed { channel, change, .. } => match &change.difference {
            Difference::Added(member) => format!("+{}@{channel}", member.user_id),
            Difference::Removed(user_id) => format!("-{user_id}@{channel}"),
        },
        Outcome::Counted { channel, subscribers, .. } => format!("{subscribers}@{channel}"),
        Outcome::Status { user_id, is_online, .. } => format!("{user_id}: {is_online}"),
        Outcome::Full { incarnation, key: Key::Member { user_id, .. } } => format!("full: {user_id} of {incarnation}"),
        Outcome::Full { key, .. } => panic!("{key:?}"),
        Outcome::Fenced { incarnation } => format!("fenced {incarnation}"),
        Outcome::Void { incarnation } => format!("void {incarnation}"),
    }
}

fn happened(event: &Event) -> String {
    match event {
        Event::ChannelOccupied { channel } => format!("occupied {channel}"),
        Event::ChannelVacated { channel } => format!("vacated {channel}"),
        Event::MemberAdded { channel, user_id } => format!("added {user_id}@{channel}"),
        Event::MemberRemoved { channel, user_id } => format!("removed {user_id}@{channel}"),
        Event::CacheMiss { channel } => format!("missed {channel}"),
        Event::SubscriptionCount { channel, count } => format!("count {count}@{channel}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_comes_with_the_first_node_and_goes_with_the_last() {
    let mut reader = Reader::new(&["a", "b"]);
    assert_eq!(reader.reads("a", member("presence-1", "ann", "1", 0)), ["+ann@presence-1"]);
    assert_eq!(reader.reads("b", member("presence-1", "ann", "2", 0)), [""; 0]);
    assert_eq!(reader.reads("a", left("presence-1", "ann")), [""; 0]);
    assert_eq!(reader.reads("a", left("presence-1", "ann")), [""; 0], "once is enough");
    assert_eq!(reader.reads("b", left("presence-1", "ann")), ["-ann@presence-1"]);
    assert_eq!(reader.told(), ["added ann@presence-1", "removed ann@presence-1"]);
    assert!(reader.log.apps.is_empty(), "{:?}", reader.log);
}

#[test]
fn a_channel_is_occupied_with_the_first_node_and_vacated_with_the_last() {
    let mut reader = Reader::new(&["a", "b"]);
    reader.reads("a", occupied("chat"));
    reader.reads("b", occupied("chat"));
    reader.reads("a", occupied("chat"));
    reader.reads("a", vacated("chat"));
    assert_eq!(reader.log.occupancy("1", "chat").subscriptions, 1);
    assert_eq!(reader.told(), ["occupied chat"]);
    reader.reads("b", vacated("chat"));
    assert_eq!(reader.told(), ["vacated chat"]);
    assert!(reader.log.apps.is_empty(), "{:?}", reader.log);
}

#[test]
fn a_fence_takes_everything_away_and_what_comes_late_is_void() {
    let mut reader = Reader::new(&["a", "b"]);
    for content in [occupied("presence-1"), member("presence-1", "ann", "1", 0), signed_in("ann")] {
        reader.reads("a", content);
    }
    reader.reads("a", counted("presence-1", 2, &[]));
    reader.reads("b", member("presence-1", "bob", "1", 0));
    reader.told();
    assert_eq!(reader.reads("a", Content::Fenced), ["-ann@presence-1", "ann: false", "fenced a"]);
    assert_eq!(reader.told(), ["vacated presence-1", "removed ann@presence-1"]);
    for late in [occupied("chat"), member("presence-1", "ann", "1", 0), left("presence-1", "bob"), renewed()] {
        assert_eq!(reader.reads("a", late), ["void a"]);
    }
    assert_eq!(reader.reads("a", Content::Entered), [""; 0], "the dead do not come back");
    assert_eq!(reader.reads("a", occupied("chat")), ["void a"]);
    assert_eq!(reader.reads("a", Content::Fenced), ["fenced a"]);
    assert_eq!(reader.reads("stranger", occupied("chat")), ["void stranger"]);
    assert_eq!(reader.log.users("1", "presence-1"), [Arc::from("bob")]);
    assert_eq!(reader.log.fenced().collect::<Vec<_>>(), [&Arc::from("a")]);
}

#[test]
fn a_node_that_comes_back_under_another_name_is_not_noticed() {
    let mut reader = Reader::new(&["a", "b"]);
    reader.reads("a", member("presence-1", "ann", "1", 0));
    reader.reads("a", counted("chat", 2, &[]));
    reader.reads("b", counted("chat", 3, &[]));
    reader.told();
    assert_eq!(reader.reads("a2", Content::Entered), [""; 0]);
    assert_eq!(reader.reads("a2", member("presence-1", "ann", "1", 0)), [""; 0]);
    assert_eq!(reader.reads("a2", counted("chat", 2, &["a"])), ["5@chat"]);
    assert_eq!(reader.reads("a", Content::Fenced), ["5@chat", "fenced a"]);
    assert_eq!(reader.told(), [""; 0]);
    assert_eq!(reader.log.occupancy("1", "chat").subscriptions, 5);
}

#[test]
fn a_full_channel_takes_nobody_else_and_forgets_who_was_rejected() {
    let mut reader = Reader::new(&["a", "b"]);
    reader.reads("a", member("presence-1", "ann", "1", 2));
    reader.reads("b", member("presence-1", "bob", "1", 2));
    assert_eq!(reader.reads("a", member("presence-1", "cid", "1", 2)), ["full: cid of a"]);
    assert_eq!(reader.reads("a", member("presence-1", "bob", "1", 2)), [""; 0], "bob takes no more room");
    assert_eq!(reader.reads("a", left("presence-1", "cid")), [""; 0]);
    assert_eq!(reader.reads("b", left("presence-1", "bob")), [""; 0]);
    assert_eq!(reader.reads("a", left("presence-1", "bob")), ["-bob@presence-1"]);
    assert_eq!(reader.reads("b", member("presence-1", "cid", "1", 2)), ["+cid@presence-1"]);
}

#[test]
fn the_first_who_looks_in_vain_is_told_of() {
    let mut reader = Reader::new(&["a", "b"]);
    let missed = |number| Content::Missed { app: "1".into(), channel: "cache-1".into(), number };
    reader.reads("a", occupied("cache-1"));
    reader.told();
    for incarnation in ["a", "b", "a"] {
        reader.reads(incarnation, missed(0));
    }
    assert_eq!(reader.told(), ["missed cache-1"]);
    assert!(reader.log.is_missed("1", "cache-1", 0) && !reader.log.is_missed("1", "cache-1", 4));
    reader.reads("b", missed(4));
    assert_eq!(reader.told(), ["missed cache-1"], "something was kept in between");
    reader.reads("a", vacated("cache-1"));
    reader.reads("b", missed(4));
    reader.reads("a", missed(4));
    assert_eq!(reader.told(), ["vacated cache-1", "missed cache-1"]);
    for channel in 0..2 * MOST_LONELY {
        let missed = Content::Missed { app: "1".into(), channel: format!("cache-{channel}").into(), number: 0 };
        reader.reads("a", missed);
    }
    assert_eq!(
        reader.log.apps["1"].channels.len(),
        MOST_LONELY,
        "channels without subscribers are not remembered for ever"
    );
}

#[test]
fn the_eldest_tells_webhooks_and_what_it_has_told_others_forget() {
    let mut reader = Reader::new(&["a", "b"]);
    assert_eq!((reader.log.eldest().map(|it| &**it), reader.log.heir()), (Some("a"), Some(2)));
    reader.reads("a", occupied("one"));
    let sequence = reader.log.sequence();
    reader.reads("b", occupied("two"));
    reader.reads("a", told_up_to(sequence));
    assert_eq!(reader.log.untold().map(|it| happened(&it.event)).collect::<Vec<_>>(), ["occupied two"]);
    reader.reads("a", Content::Fenced);
    assert_eq!((reader.log.eldest().map(|it| &**it), reader.log.heir()), (Some("b"), None));
    reader.reads("a", told_up_to(1000));
    let told: Vec<_> = reader.log.untold().map(|it| happened(&it.event)).collect();
    assert_eq!(told, ["occupied two", "vacated one"]);
    let sequence = reader.log.sequence();
    reader.reads("b", told_up_to(sequence));
    assert_eq!(reader.log.untold().count(), 0);
}

#[test]
fn what_is_held_back_stays_with_its_place_and_its_time_while_all_around_it_is_told() {
    let mut reader = Reader::new(&["a", "b"]);
    reader.reads("a", member("presence-1", "ann", "1", 0));
    reader.reads("a", occupied("presence-1"));
    reader.told();
    let first = reader.next;
    reader.reads("b", occupied("one"));
    reader.reads("a", Content::Fenced);
    reader.reads("b", occupied("two"));
    let untold = |reader: &Reader| {
        reader.log.untold().map(|it| (it.place.0 - first, it.place.1, it.at, happened(&it.event))).collect::<Vec<_>>()
    };
    let at = |number: u64| 10 * (first + number);
    let [one, vacated, removed, two] = &untold(&reader)[..] else { panic!("{reader:?}") };
    assert_eq!(*one, (0, 0, at(0), "occupied one".to_owned()));
    assert_eq!(*vacated, (1, 0, at(1), "vacated presence-1".to_owned()));
    assert_eq!(*removed, (1, 1, at(1), "removed ann@presence-1".to_owned()));
    assert_eq!(*two, (2, 0, at(2), "occupied two".to_owned()));
    let kept = [removed.clone(), two.clone()];
    let held = [(first + 1, 1)].into();
    reader.reads("b", Content::Told { sequence: first, beyond: Told { last: first + 1, held } });
    assert_eq!(untold(&reader), kept);
    // What is told before all that is held back is told, whatever else is said.
    let held = [(first + 1, 1)].into();
    reader.reads("b", Content::Told { sequence: first + 1, beyond: Told { last: first + 1, held } });
    assert_eq!(untold(&reader), kept[1..]);
}

#[test]
fn what_was_there_before_has_the_position_at_which_the_node_came() {
    let mut reader = Reader::new(&["a"]);
    reader.reads("a", member("presence-1", "ann", "1", 0));
    reader.reads("b", Content::Entered);
    reader.log.begin(false);
    let known = reader.log.position("1", "presence-1");
    let empty = reader.log.position("1", "presence-2");
    assert!(reader.log.untold().count() == 0 && known.number <= empty.number);
    let mut out = Vec::new();
    reader.log.apply(reader.next, 0, entry("a", member("presence-1", "bob", "1", 0)), &mut out);
    let [Outcome::Changed { change, .. }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(change.previous, known.number);
    assert!(change.position.number > empty.number);
    assert_eq!(reader.log.position("1", "presence-1"), change.position);
}

#[test]
fn a_node_that_leaves_is_no_node_any_longer_and_its_users_stay_for_a_while() {
    let mut reader = Reader::new(&["a", "b"]);
    reader.reads("a", renewed());
    reader.reads("a", member("presence-1", "ann", "1", 0));
    reader.told();
    let grace = Duration::from_secs(3);
    assert_eq!(reader.reads("a", Content::Left { grace }), [""; 0]);
    assert_eq!(reader.log.living_in_order().map(|(it, ..)| &**it).collect::<Vec<_>>(), ["b"]);
    assert_eq!(reader.log.eldest().map(|it| &**it), Some("b"));
    assert_eq!(reader.log.leaving().collect::<Vec<_>>(), [(&Arc::from("a"), 5, grace)]);
    assert_eq!(reader.log.users("1", "presence-1"), [Arc::from("ann")]);
    assert_eq!(reader.reads("a", Content::Fenced), ["-ann@presence-1", "fenced a"]);
    assert_eq!(reader.log.untold().map(|it| it.waited).collect::<Vec<_>>(), [grace]);
}

#[test]
fn what_is_held_back_is_told_with_how_long() {
    let mut reader = Reader::new(&["a"]);
    reader.reads("a", occupied("chat"));
    reader.told();
    let (key, waited) = (Key::Occupied { app: "1".into(), channel: "chat".into() }, Duration::from_secs(2));
    reader.reads("a", Content::Released { key, waited });
    assert_eq!(reader.log.untold().map(|it| it.waited).collect::<Vec<_>>(), [waited]);
}

#[test]
fn all_nodes_together_have_no_more_than_there_is() {
    let mut reader = Reader::new(&["a", "b"]);
    let draw = |wanted, taken| Draw { app: "1".into(), number: 1, taken, wanted, most: 3 };
    let drawn = |reader: &mut Reader, incarnation: &str, former: &[Box<str>], wanted, taken| {
        let (granted, shares, _) = reader.log.share(incarnation, former, &draw(wanted, taken));
        reader.reads(incarnation, Content::Shared { app: "1".into(), shares });
        granted
    };
    assert_eq!(drawn(&mut reader, "a", &[], 2, 0), 2);
    assert_eq!(drawn(&mut reader, "b", &[], 2, 0), 1);
    assert_eq!(drawn(&mut reader, "b", &[], 3, 1), 1);
    assert_eq!(drawn(&mut reader, "a", &[], 0, 0), 0);
    assert_eq!(drawn(&mut reader, "b", &[], 3, 1), 3);
    reader.reads("b2", Content::Entered);
    assert_eq!(drawn(&mut reader, "b2", &["b".into()], 3, 3), 3, "it is the same node");
    assert_eq!(drawn(&mut reader, "a", &[], 1, 0), 0);
    assert_eq!(drawn(&mut reader, "a", &[], 2, 2), 0, "what it has after an absence counts all the same");
    reader.reads("b2", Content::Fenced);
    let (granted, shares, sequence) = reader.log.share("a", &[], &draw(3, 2));
    assert_eq!((granted, shares, sequence > 0), (3, vec![("a".into(), 3)], true), "the dead have nothing");
}

#[test]
fn nodes_are_listed_with_what_they_say_of_themselves() {
    let mut reader = Reader::new(&["b", "a"]);
    reader.reads("a", renewed());
    let said = Said { name: "a".into(), version: "1".into(), connections: 3 };
    let living: Vec<_> = reader.log.living_in_order().map(|(it, renewed, said)| (&**it, renewed, said)).collect();
    assert_eq!(living, [("b", 0, None), ("a", 3, Some(&said))]);
}

// Whatever nodes do.

#[derive(Clone, Copy, Debug)]
enum Step {
    Hold(usize, Thing),
    Release(usize, Thing),
    Renew(usize),
    /// A node dies, and comes back under another incarnation.
    Die(usize),
    /// A dead incarnation of the node still writes.
    Late(usize, Thing),
}

#[derive(Clone, Copy, Debug)]
enum Thing {
    Channel(u8),
    Member(u8, u8),
    User(u8),
    Count(u8, u8),
}

impl Thing {
    fn holding(self, info: usize) -> Holding {
        let app: Arc<str> = "1".into();
        match self {
            Self::Channel(channel) => Holding::Occupied { app, channel: channel_name(channel) },
            Self::Member(channel, user) => {
                let user_info = Some(info.to_string().into());
                let (channel, user_id) = (channel_name(channel), user.to_string().into());
                Holding::Member { app, channel, user_id, user_info, most: 0 }
            }
            Self::User(user) => Holding::SignedIn { app, user_id: user.to_string().into() },
            Self::Count(channel, subscribers) => {
                let subscribers = usize::from(subscribers);
                Holding::Counted { app, channel: channel_name(channel), subscribers, former: Vec::new() }
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let thing = prop_oneof![
        (0..2_u8).prop_map(Thing::Channel),
        (0..2_u8, 0..3_u8).prop_map(|(channel, user)| Thing::Member(channel, user)),
        (0..2_u8).prop_map(Thing::User),
        (0..2_u8, 1..4_u8).prop_map(|(channel, subscribers)| Thing::Count(channel, subscribers)),
    ];
    let step = prop_oneof![
        5 => (0..NODES, thing.clone()).prop_map(|(node, thing)| Step::Hold(node, thing)),
        4 => (0..NODES, thing.clone()).prop_map(|(node, thing)| Step::Release(node, thing)),
        1 => (0..NODES).prop_map(Step::Renew),
        1 => (0..NODES).prop_map(Step::Die),
        1 => (0..NODES, thing).prop_map(|(node, thing)| Step::Late(node, thing)),
    ];
    prop::collection::vec(step, 1..80)
}

/// The log that these steps make, from its first sequence on.
fn written(steps: &[Step]) -> Vec<Entry> {
    let name = |node: usize, life: usize| format!("{node}-{life}");
    let mut lives = [0; NODES];
    let mut log: Vec<_> = (0..NODES).map(|node| entry(&name(node, 0), Content::Entered)).collect();
    for (at, step) in steps.iter().enumerate() {
        match *step {
            Step::Hold(node, thing) => log.push(entry(&name(node, lives[node]), Content::Holds(thing.holding(at)))),
            Step::Release(node, thing) => {
                log.push(entry(&name(node, lives[node]), released(thing.holding(at).key())));
            }
            Step::Renew(node) => log.push(entry(&name(node, lives[node]), renewed())),
            Step::Die(node) => {
                log.push(entry(&name(node, lives[node]), Content::Fenced));
                lives[node] += 1;
                log.push(entry(&name(node, lives[node]), Content::Entered));
            }
            Step::Late(node, _) if lives[node] == 0 => {}
            Step::Late(node, thing) => {
                log.push(entry(&name(node, lives[node] - 1), Content::Holds(thing.holding(at))));
            }
        }
    }
    log
}

/// The stream keeps one entry of each.
fn subject(entry: &Entry) -> (Arc<str>, Option<Key>, bool) {
    let incarnation = Arc::clone(&entry.incarnation);
    match &entry.content {
        Content::Entered => (incarnation, None, false),
        Content::Renewed { .. } | Content::Fenced => (incarnation, None, true),
        Content::Holds(holding) => (incarnation, Some(holding.key()), false),
        Content::Released { key, .. } => (incarnation, Some(key.clone()), false),
        other => panic!("{other:?}"),
    }
}

/// What somebody reads who comes when `cut` entries are there, and for whom some are replaced before they are delivered.
fn read_late(log: &[Entry], cut: usize, skips: &[bool]) -> Vec<(u64, Entry)> {
    let is_replaced = |at: usize, end: usize| log[at + 1..end].iter().any(|later| subject(later) == subject(&log[at]));
    let is_delivered = |at: usize| {
        if at < cut { !is_replaced(at, cut) } else { !(skips[at % skips.len()] && is_replaced(at, log.len())) }
    };
    (0..log.len()).filter(|at| is_delivered(*at)).map(|at| (at as u64 + 1, log[at].clone())).collect()
}

/// All that can be asked for.
fn state(log: &Log) -> String {
    let mut lines: Vec<_> = log.living_in_order().enumerate().map(|(at, living)| format!("{at}: {living:?}")).collect();
    lines.extend(log.fenced().map(|it| format!("fenced {it}")));
    for (app, state) in &log.apps {
        lines.extend(state.users.iter().map(|(user, holders)| format!("{app} {user} {:?}", sorted(holders))));
        for (name, channel) in &state.channels {
            lines.push(format!("{app} {name} {:?} {:?}", sorted(&channel.occupied), channel.missed));
            lines.extend(channel.counts.iter().map(|count| format!("{app} {name} {count:?}")));
            lines.extend(log.members(app, name).iter().map(|member| format!("{app} {name} {member:?}")));
            for (user, cells) in &channel.members {
                let cells: Vec<_> = cells.iter().map(|cell| (&cell.incarnation, &cell.user_info)).collect();
                lines.push(format!("{app} {name} {user} {cells:?}"));
            }
        }
    }
    lines.sort();
    lines.join("\n")
}

fn sorted(holders: &[Arc<str>]) -> BTreeSet<&Arc<str>> {
    holders.iter().collect()
}

fn read(entries: impl IntoIterator<Item = (u64, Entry)>) -> Log {
    let mut log = Log::new(EPOCH);
    for (sequence, entry) in entries {
        log.apply(sequence, 0, entry, &mut Vec::new());
    }
    log
}

proptest! {
    #[test]
    fn whoever_reads_the_log_from_wherever_comes_to_the_same_state(
        steps in steps(), cut: prop::sample::Index, skips in prop::collection::vec(any::<bool>(), 1..20)
    ) {
        let log = written(&steps);
        let all = read(log.iter().cloned().zip(1..).map(|(entry, sequence)| (sequence, entry)));
        let late = read(read_late(&log, cut.index(log.len() + 1), &skips));
        prop_assert_eq!(state(&late), state(&all));
    }

    #[test]
    fn each_user_comes_once_and_goes_once_and_changes_name_the_one_before(steps in steps()) {
        let mut log = Log::new(EPOCH);
        let mut present: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        let mut numbers: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (entry, sequence) in written(&steps).into_iter().zip(1..) {
            let mut out = Vec::new();
            log.apply(sequence, 0, entry, &mut out);
            for outcome in out {
                let Outcome::Changed { channel, change, .. } = outcome else { continue };
                let users = present.entry(channel.clone()).or_default();
                let last = numbers.insert(channel.clone(), change.position.number).unwrap_or(0);
                prop_assert!(change.position.number > last);
                prop_assert_eq!(change.previous, if users.is_empty() { 0 } else { last });
                match change.difference {
                    Difference::Added(member) => prop_assert!(users.insert(member.user_id)),
                    Difference::Removed(user_id) => prop_assert!(users.remove(&user_id)),
                }
            }
            for (channel, users) in &present {
                let known: BTreeSet<_> = log.users("1", channel).into_iter().collect();
                prop_assert_eq!(&known, users);
            }
        }
    }

    #[test]
    fn what_webhooks_are_told_alternates(steps in steps()) {
        let log = read(written(&steps).into_iter().zip(1..).map(|(entry, sequence)| (sequence, entry)));
        let mut there = BTreeSet::new();
        for it in log.untold() {
            let told = happened(&it.event);
            let (kind, what) = told.split_once(' ').expect("two words");
            match kind {
                "occupied" | "added" => prop_assert!(there.insert(what.to_owned()), "{}", told),
                "vacated" | "removed" => prop_assert!(there.remove(what), "{}", told),
                _ => {}
            }
        }
    }

    #[test]
    fn a_node_that_reads_on_where_it_was_tells_what_has_happened_meanwhile(
        steps in steps(), cut: prop::sample::Index, skips in prop::collection::vec(any::<bool>(), 1..20)
    ) {
        let log = written(&steps);
        let cut = cut.index(log.len() + 1);
        let all = log.iter().cloned().zip(1..).map(|(entry, sequence)| (sequence, entry));
        let rest = read_late(&log, 0, &skips).into_iter().filter(|(sequence, _)| *sequence > cut as u64);
        let mut reader = read(all.clone().take(cut));
        reader.begin(false);
        for (sequence, entry) in rest {
            reader.apply(sequence, 0, entry, &mut Vec::new());
        }
        reader.begin(true);
        prop_assert_eq!(state(&reader), state(&read(all)));
        // Who was there at the cut, and who is there now, differ by what is told.
        let before = read(log.iter().take(cut).cloned().zip(1..).map(|(entry, sequence)| (sequence, entry)));
        let users = |log: &Log, channel| log.users("1", &channel_name(channel)).into_iter().collect::<BTreeSet<_>>();
        for channel in 0..2 {
            let mut there = users(&before, channel);
            for it in reader.untold() {
                match &it.event {
                    Event::MemberAdded { channel: name, user_id } if *name == channel_name(channel) => {
                        prop_assert!(there.insert(Arc::clone(user_id)), "{} again", user_id);
                    }
                    Event::MemberRemoved { channel: name, user_id } if *name == channel_name(channel) => {
                        prop_assert!(there.remove(user_id), "{} was not there", user_id);
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(there, users(&reader, channel));
        }
    }

    #[test]
    fn a_dead_incarnation_changes_nothing(steps in steps()) {
        let mut log = Log::new(EPOCH);
        for (entry, sequence) in written(&steps).into_iter().zip(1..) {
            let is_dead = entry.content != Content::Entered && !log.is_alive(&entry.incarnation);
            let (before, mut out) = (state(&log), Vec::new());
            log.apply(sequence, 0, entry, &mut out);
            if is_dead {
                prop_assert!(matches!(out[..], [Outcome::Void { .. }]), "{:?}", out);
                prop_assert_eq!(state(&log), before);
            }
        }
    }

    #[test]
    fn when_everybody_is_dead_nothing_is_left(steps in steps()) {
        let mut log = read(written(&steps).into_iter().zip(1..).map(|(entry, sequence)| (sequence, entry)));
        let living: Vec<_> = log.living_in_order().map(|(it, ..)| Arc::clone(it)).collect();
        for incarnation in living {
            let sequence = log.sequence() + 1;
            log.apply(sequence, 0, Entry { incarnation, content: Content::Fenced }, &mut Vec::new());
        }
        let fenced: Vec<_> = log.fenced().cloned().collect();
        for incarnation in fenced {
            log.forget(&incarnation);
        }
        prop_assert_eq!(state(&log), "");
        prop_assert!(log.apps.is_empty());
    }
}

const NODES: usize = 3;

#[test]
fn it_knows_up_to_where_entries_may_have_been_taken_out() {
    let mut reader = Reader::new(&["a"]);
    assert_eq!(reader.log.tidied(), Tidied { sequence: 0, up_to: 0 });
    assert!(reader.reads("stranger", Content::Tidied { up_to: 1 }).is_empty());
    assert_eq!(reader.log.tidied(), Tidied { sequence: 2, up_to: 1 });
}
