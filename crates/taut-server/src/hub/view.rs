//! What a node knows of a presence channel whose members the engine of the cluster keeps.

use std::collections::HashSet;
use std::sync::Arc;

use super::command::PresenceMember;
use super::engine::{Change, Difference, Position, Snapshot};
use super::presence::Roster;

/// The users of a presence channel over all nodes, as far as this node has heard.
///
/// Snapshots and changes come by different ways and may overtake each other: each change names the one before it, so a gap shows. Whatever comes
/// in which order, clients are told only how this view differs from what it was. So a double, a late or a lost announcement never becomes a
/// double, late or lost member for them.
#[derive(Debug, Default)]
pub(super) struct View {
    roster: Roster,
    /// `None` before the first snapshot.
    position: Option<Position>,
    /// Changes that came while a snapshot was under way.
    early: Vec<Change>,
    /// A snapshot is under way.
    is_asked: bool,
    /// The engine has lost its memory, and some nodes may not have told it yet what they hold.
    is_settling: bool,
}

/// What a change has done.
#[derive(Debug)]
pub(super) enum Applied {
    /// The view differs by this now.
    Difference(Difference),
    Nothing,
    /// A change before this one is missing: ask for a snapshot.
    Gap,
}

impl View {
    /// A snapshot has been asked for: until it comes, changes wait.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// The engine is lost: nothing that was asked for will come. Once it is back, the first snapshot counts whatever its number: a server that takes
    /// over may not know the last changes, and count on from before them.
    pub(super) fn lose_engine(&mut self) {
        self.is_asked = false;
        self.early = Vec::new();
        self.position = None;
        self.is_settling = false;
    }

    /// Whether newcomers can be told who is there.
    pub(super) fn is_ready(&self) -> bool {
        self.position.is_some() && !self.is_asked
    }

    /// Whether everything up to this position is known.
    pub(super) fn has_reached(&self, position: Position) -> bool {
        self.position.is_some_and(|own| own.epoch == position.epoch && own.number >= position.number)
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// A change has come.
    pub(super) fn apply(&mut self, change: Change) -> Applied {
        if self.is_asked {
            // Without room for it there is a gap, which the snapshot shows once it has come.
            if self.early.len() < MOST_EARLY {
                self.early.push(change);
            }
            return Applied::Nothing;
        }
        let Some(position) = self.position else { return Applied::Gap };
        let Position { epoch, number } = change.position;
        if epoch == position.epoch && number <= position.number {
            return Applied::Nothing;
        }
        // Once nobody is there, the engine forgets the number of the last change.
        let follows = change.previous == position.number || (change.previous == 0 && self.roster.is_empty());
        if epoch != position.epoch || !follows {
            return Applied::Gap;
        }
        self.position = Some(change.position);
        if self.is_settling && matches!(change.difference, Difference::Removed(_)) {
            return Applied::Nothing;
        }
        self.take(change.difference).map_or(Applied::Nothing, Applied::Difference)
    }

    /// A snapshot has come: gives how it differs from what was known, and whether another one is to be asked for.
    ///
    /// While the engine settles, nobody is removed: who is missing, or leaves a node, may be on another one that has not told the engine yet. The first
    /// snapshot after that shows who has gone.
    pub(super) fn adopt(&mut self, snapshot: Snapshot) -> (Vec<Difference>, bool) {
        let Snapshot { position, members, is_settling } = snapshot;
        let is_older = self.position.is_some_and(|own| own.epoch == position.epoch && position.number < own.number);
        if is_older {
            // It comes after one that was asked for later.
            return (Vec::new(), false);
        }
        let present: HashSet<&str> = members.iter().map(|member| &*member.user_id).collect();
        let is_gone = |user_id: &&Arc<str>| !present.contains(&***user_id);
        let gone: Vec<_> = self.roster.users().filter(|user_id| !is_settling && is_gone(user_id)).cloned().collect();
        self.is_settling = is_settling;
        let mut differences: Vec<_> =
            gone.into_iter().filter_map(|user_id| self.take(Difference::Removed(user_id))).collect();
        for member in members {
            if self.roster.contains(&member.user_id) && self.roster.user_info(&member.user_id) != member.user_info {
                differences.extend(self.take(Difference::Removed(Arc::clone(&member.user_id))));
            }
            differences.extend(self.take(Difference::Added(member)));
        }
        self.position = Some(position);
        self.is_asked = false;
        let mut has_gap = false;
        for change in std::mem::take(&mut self.early) {
            match self.apply(change) {
                Applied::Difference(difference) => differences.push(difference),
                Applied::Nothing => {}
                Applied::Gap => has_gap = true,
            }
        }
        (differences, has_gap)
    }

    /// A user has come on this node while the engine is away; whether that is a difference.
    pub(super) fn add(&mut self, member: PresenceMember) -> bool {
        self.take(Difference::Added(member)).is_some()
    }

    /// A user has left this node while the engine is away; whether that is a difference.
    pub(super) fn remove(&mut self, user_id: &Arc<str>) -> bool {
        self.take(Difference::Removed(Arc::clone(user_id))).is_some()
    }

    fn take(&mut self, difference: Difference) -> Option<Difference> {
        let is_one = match &difference {
            Difference::Added(PresenceMember { user_id, user_info }) => {
                !self.roster.contains(user_id) && self.roster.join(user_id, user_info.as_deref())
            }
            Difference::Removed(user_id) => self.roster.leave(user_id),
        };
        is_one.then_some(difference)
    }
}

/// Changes that wait for a snapshot. One that is asked for anew costs less than more of them.
const MOST_EARLY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::engine::Epoch;
    use super::*;

    const EPOCH: Epoch = Epoch(7);

    fn member(user_id: &str) -> PresenceMember {
        PresenceMember { user_id: user_id.into(), user_info: Some(format!("\"{user_id}\"").into()) }
    }

    fn at(number: u64) -> Position {
        Position { epoch: EPOCH, number }
    }

    fn added(number: u64, previous: u64, user_id: &str) -> Change {
        Change { position: at(number), previous, difference: Difference::Added(member(user_id)) }
    }

    fn removed(number: u64, previous: u64, user_id: &str) -> Change {
        Change { position: at(number), previous, difference: Difference::Removed(user_id.into()) }
    }

    fn snapshot(number: u64, users: &[&str]) -> Snapshot {
        let members = users.iter().map(|user_id| member(user_id)).collect();
        Snapshot { position: at(number), members, is_settling: false }
    }

    /// `+` and `-` with the user.
    fn told(differences: &[Difference]) -> Vec<String> {
        let told = |difference: &Difference| match difference {
            Difference::Added(member) => format!("+{}", member.user_id),
            Difference::Removed(user_id) => format!("-{user_id}"),
        };
        let mut told: Vec<_> = differences.iter().map(told).collect();
        told.sort_unstable();
        told
    }

    fn apply(view: &mut View, change: Change) -> Option<String> {
        match view.apply(change) {
            Applied::Difference(difference) => told(&[difference]).pop(),
            Applied::Nothing => None,
            Applied::Gap => Some("gap".to_owned()),
        }
    }

    /// Of ann and bob, at 5.
    fn view() -> View {
        let mut view = View::default();
        assert_eq!(told(&view.adopt(snapshot(5, &["ann", "bob"])).0), ["+ann", "+bob"]);
        view
    }

    #[test]
    fn changes_in_order_are_differences_and_doubles_are_none() {
        let mut view = view();
        assert_eq!(apply(&mut view, added(6, 5, "cid")).as_deref(), Some("+cid"));
        assert_eq!(apply(&mut view, added(6, 5, "cid")), None);
        assert_eq!(apply(&mut view, removed(9, 6, "ann")).as_deref(), Some("-ann"), "others have numbers, too");
        assert!(view.has_reached(at(9)) && !view.has_reached(at(10)));
        assert!(!view.has_reached(Position { epoch: Epoch(8), number: 1 }));
    }

    #[test]
    fn a_missing_change_is_a_gap_and_a_snapshot_closes_it() {
        let mut view = view();
        assert_eq!(apply(&mut view, removed(8, 6, "ann")).as_deref(), Some("gap"));
        view.ask();
        assert!(!view.is_ready());
        assert_eq!(apply(&mut view, removed(8, 6, "ann")), None);
        assert_eq!(apply(&mut view, added(9, 8, "dan")), None);
        let (differences, has_gap) = view.adopt(snapshot(8, &["bob", "cid"]));
        assert_eq!((told(&differences), has_gap), (vec!["+cid".into(), "+dan".into(), "-ann".into()], false));
        assert!(view.is_ready() && view.has_reached(at(9)));
    }

    #[test]
    fn a_gap_behind_the_snapshot_asks_for_another_one() {
        let mut view = View::default();
        assert_eq!(apply(&mut view, added(3, 2, "ann")).as_deref(), Some("gap"), "nothing is known yet");
        view.ask();
        assert_eq!(apply(&mut view, added(4, 3, "bob")), None);
        let (differences, has_gap) = view.adopt(snapshot(2, &[]));
        assert_eq!((told(&differences), has_gap), (vec![], true));
    }

    #[test]
    fn changes_without_room_show_as_a_gap() {
        let mut view = view();
        view.ask();
        for number in 6..6 + MOST_EARLY as u64 + 10 {
            assert_eq!(apply(&mut view, added(number, number - 1, &number.to_string())), None);
        }
        assert_eq!(view.early.len(), MOST_EARLY);
        assert!(!view.adopt(snapshot(5, &["ann", "bob"])).1, "what was kept follows");
        let next = 6 + MOST_EARLY as u64 + 10;
        assert_eq!(apply(&mut view, added(next, next - 1, "next")).as_deref(), Some("gap"));
    }

    #[test]
    fn an_older_snapshot_than_what_is_known_changes_nothing() {
        let mut view = view();
        assert_eq!(told(&view.adopt(snapshot(4, &[])).0), Vec::<String>::new());
        assert_eq!(view.roster().len(), 2);
    }

    #[test]
    fn a_server_that_takes_over_without_the_last_changes_is_believed() {
        let mut view = view();
        view.lose_engine();
        view.ask();
        let (differences, has_gap) = view.adopt(snapshot(3, &["ann"]));
        assert_eq!((told(&differences), has_gap), (vec!["-bob".to_owned()], false));
        assert!(view.is_ready(), "newcomers do not wait for ever");
        assert_eq!(apply(&mut view, added(4, 3, "cid")).as_deref(), Some("+cid"));
    }

    #[test]
    fn the_engine_starts_from_nothing_once_nobody_is_there() {
        let mut view = view();
        assert_eq!(apply(&mut view, removed(6, 5, "ann")).as_deref(), Some("-ann"));
        assert_eq!(apply(&mut view, added(7, 0, "cid")).as_deref(), Some("gap"), "bob is there");
        assert_eq!(apply(&mut view, removed(7, 6, "bob")).as_deref(), Some("-bob"));
        assert_eq!(apply(&mut view, added(9, 0, "cid")).as_deref(), Some("+cid"));
    }

    #[test]
    fn another_epoch_is_a_gap() {
        let mut view = view();
        let position = Position { epoch: Epoch(8), number: 6 };
        let change = Change { position, previous: 5, difference: Difference::Removed("ann".into()) };
        assert_eq!(apply(&mut view, change).as_deref(), Some("gap"));
    }

    #[test]
    fn nobody_goes_while_the_engine_settles() {
        let mut view = view();
        let settling = Snapshot {
            position: Position { epoch: Epoch(8), number: 1 },
            members: vec![member("ann"), member("cid")],
            is_settling: true,
        };
        view.ask();
        let left = Change {
            position: Position { epoch: Epoch(8), number: 1 },
            previous: 0,
            difference: Difference::Removed("eve".into()),
        };
        view.add(member("eve"));
        assert_eq!(apply(&mut view, left), None);
        assert_eq!(told(&view.adopt(settling).0), ["+cid"], "another node may have eve");
        let position = Position { epoch: Epoch(8), number: 2 };
        let left = Change { position, previous: 1, difference: Difference::Removed("ann".into()) };
        assert_eq!(apply(&mut view, left), None, "another node may have ann");
        let position = Position { epoch: Epoch(8), number: 3 };
        let come = Change { position, previous: 2, difference: Difference::Added(member("dan")) };
        assert_eq!(apply(&mut view, come).as_deref(), Some("+dan"));
        let settled = Snapshot { position, members: vec![member("cid"), member("dan")], is_settling: false };
        assert_eq!(told(&view.adopt(settled).0), ["-ann", "-bob", "-eve"]);
        let position = Position { epoch: Epoch(8), number: 4 };
        let left = Change { position, previous: 3, difference: Difference::Removed("dan".into()) };
        assert_eq!(apply(&mut view, left).as_deref(), Some("-dan"), "it has settled");
    }

    #[test]
    fn what_users_say_of_themselves_is_that_of_the_snapshot() {
        let mut view = view();
        let ann = PresenceMember { user_id: "ann".into(), user_info: Some("1".into()) };
        let changed = Snapshot { position: at(9), members: vec![ann, member("bob")], is_settling: false };
        let (differences, _) = view.adopt(changed);
        assert_eq!(told(&differences), ["+ann", "-ann"]);
        assert!(matches!(&differences[0], Difference::Removed(_)), "first it goes");
        assert_eq!(view.roster().user_info("ann").as_deref(), Some("1"));
    }

    #[test]
    fn a_node_on_its_own_sees_those_who_come_and_go_itself() {
        let mut view = View::default();
        assert!(view.add(member("ann")) && !view.is_ready() && view.add(member("bob")) && !view.add(member("bob")));
        assert!(view.remove(&"ann".into()) && !view.remove(&"ann".into()));
        let (differences, _) = view.adopt(snapshot(3, &["bob", "cid"]));
        assert_eq!(told(&differences), ["+cid"]);
    }

    #[test]
    fn what_is_not_answered_any_more_is_not_waited_for() {
        let mut view = view();
        view.ask();
        assert_eq!(apply(&mut view, added(6, 5, "cid")), None);
        view.lose_engine();
        assert!(view.early.is_empty());
        view.ask();
        assert_eq!(told(&view.adopt(snapshot(5, &["ann", "bob"])).0), Vec::<String>::new());
        assert!(view.is_ready());
    }
}
