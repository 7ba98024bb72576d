//! Users whose connections other nodes are asked to close.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Questions to all nodes that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Terminations {
    waiting: HashMap<u64, Termination>,
    asked: u64,
}

#[derive(Debug)]
struct Termination {
    /// `None` before it is known which nodes there are.
    nodes: Option<HashSet<Box<str>>>,
    done: HashSet<Box<str>>,
    answer: oneshot::Sender<usize>,
    ends: Instant,
}

impl Terminations {
    /// Begins a question, and gives its number. It is answered with how many nodes have done it.
    pub(super) fn ask(&mut self, now: Instant, answer: oneshot::Sender<usize>) -> u64 {
        let request = self.asked;
        self.asked += 1;
        let ends = now + PATIENCE;
        self.waiting.insert(request, Termination { nodes: None, done: HashSet::new(), answer, ends });
        request
    }

    /// These nodes are to do it.
    pub(super) fn expect(&mut self, request: u64, nodes: HashSet<Box<str>>) {
        if let Some(termination) = self.waiting.get_mut(&request) {
            termination.nodes = Some(nodes);
            self.check(request);
        }
    }

    /// A node has closed the connections.
    pub(super) fn done(&mut self, request: u64, node: Box<str>) {
        if let Some(termination) = self.waiting.get_mut(&request) {
            termination.done.insert(node);
            self.check(request);
        }
    }

    /// Answers those who have waited long enough.
    pub(super) fn end(&mut self, now: Instant) {
        for (_, termination) in self.waiting.extract_if(|_, termination| termination.ends <= now) {
            termination.answer();
        }
    }

    fn check(&mut self, request: u64) {
        if self.waiting.get(&request).is_some_and(Termination::is_done) {
            self.waiting.remove(&request).expect("it was there").answer();
        }
    }
}

impl Termination {
    fn is_done(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.is_subset(&self.done))
    }

    fn answer(self) {
        let _ = self.answer.send(self.done.len());
    }
}

/// For how long a question to all nodes waits for them.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> HashSet<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn it_is_answered_once_all_nodes_have_done_it_in_whatever_order_they_become_known() {
        let (mut terminations, now) = (Terminations::default(), Instant::now());
        let (answer, mut answered) = oneshot::channel();
        let request = terminations.ask(now, answer);
        terminations.done(request, "a".into());
        terminations.expect(request, nodes(&["a", "b"]));
        terminations.done(request + 1, "b".into());
        assert!(answered.try_recv().is_err());
        terminations.done(request, "b".into());
        assert_eq!(answered.try_recv(), Ok(2));
        let (answer, mut answered) = oneshot::channel();
        let request = terminations.ask(now, answer);
        terminations.expect(request, nodes(&[]));
        assert_eq!(answered.try_recv(), Ok(0), "this node is alone");
    }

    #[test]
    fn nobody_waits_for_a_node_that_says_nothing() {
        let (mut terminations, now) = (Terminations::default(), Instant::now());
        let (answer, mut answered) = oneshot::channel();
        let request = terminations.ask(now, answer);
        terminations.expect(request, nodes(&["a", "b"]));
        terminations.done(request, "a".into());
        terminations.end(now);
        assert!(answered.try_recv().is_err());
        terminations.end(now + PATIENCE);
        assert_eq!(answered.try_recv(), Ok(1));
        assert!(terminations.waiting.is_empty());
    }
}
