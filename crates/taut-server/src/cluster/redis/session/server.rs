//! One server of the engine, as a session knows it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::answers::Answer;
use super::{Confirmed, PartitionState};
use crate::cluster::redis::Doubt;
use crate::cluster::redis::names::Partition;
use crate::cluster::redis::queue::{Finished, Writer};
use crate::cluster::redis::subscriber::{Reader, Subscriber};

/// A server with its two connections: one on which the queues of its partitions are written, and one that hears what is published there.
#[derive(Debug)]
pub(super) struct Server {
    /// Of its partitions, one in whose slot it hears this node's own messages.
    pub(super) first: Partition,
    pub(super) writer: Writer<Answer>,
    pub(super) subscriber: Subscriber<Confirmed>,
    pub(super) hears: Arc<Reader>,
    pub(super) probe: Probe,
    /// All that was wanted when the session began is subscribed.
    pub(super) is_subscribed: bool,
}

impl Server {
    /// Sends what waits for the server of this number.
    pub(super) fn start(&mut self, number: usize, partitions: &mut [PartitionState]) {
        self.writer.start(partitions.iter_mut().filter(|it| it.server == number).map(|it| &mut it.queue));
        self.subscriber.start();
    }
}

/// What a server has done.
pub(super) enum Served {
    Answered(Finished<Answer>),
    Confirmed(Vec<Confirmed>),
}

/// Waits until one of the servers has done something.
///
/// # Cancel safety
/// Nothing is lost: the next call goes on waiting.
pub(super) async fn served(servers: &mut [Server]) -> Result<Served, Doubt> {
    poll_fn(|context| {
        for Server { writer, subscriber, .. } in &mut *servers {
            if let Poll::Ready(finished) = writer.poll_finished(context) {
                return Poll::Ready(Ok(Served::Answered(finished)));
            }
            if let Poll::Ready(confirmed) = subscriber.poll_finished(context) {
                return Poll::Ready(confirmed.map(Served::Confirmed));
            }
        }
        Poll::Pending
    })
    .await
}

/// Sees whether this node hears itself: a connection on which nothing comes may be one to a server to which nobody publishes.
#[derive(Debug, Default)]
pub(super) struct Probe {
    sent: Option<Instant>,
}

/// What is to be done about the subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Fine,
    /// This node is to send itself a message.
    Send,
    /// It did not come.
    Silent,
}

impl Probe {
    /// Something came last at `last`.
    pub(super) fn look(&mut self, last: Instant, now: Instant, lease: Duration) -> Look {
        match self.sent {
            // The clock of what comes has milliseconds.
            Some(sent) if last + Duration::from_millis(1) > sent => self.sent = None,
            Some(sent) if now > sent + (lease / 5).max(LEAST_PATIENCE) => return Look::Silent,
            Some(_) => return Look::Fine,
            None => {}
        }
        if now < last + lease / 2 {
            return Look::Fine;
        }
        self.sent = Some(now);
        Look::Send
    }
}

/// How long a node waits for its own message, however short the lease: a busy computer is no silent engine.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_hears_nothing_asks_itself_and_gives_up_if_that_does_not_come_either() {
        let (start, lease) = (Instant::now(), Duration::from_secs(10));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut probe = Probe::default();
        assert_eq!(probe.look(start, at(4), lease), Look::Fine);
        assert_eq!(probe.look(at(1), at(5), lease), Look::Fine, "something has come");
        assert_eq!(probe.look(at(1), at(6), lease), Look::Send);
        assert_eq!(probe.look(at(1), at(8), lease), Look::Fine, "it may be on its way");
        assert_eq!(probe.look(at(7), at(9), lease), Look::Fine, "it has come");
        assert_eq!(probe.look(at(7), at(12), lease), Look::Send);
        assert_eq!(probe.look(at(7), at(14), lease), Look::Fine);
        assert_eq!(probe.look(at(7), at(15), lease), Look::Silent);
    }

    #[test]
    fn a_message_that_comes_within_the_millisecond_has_come() {
        let (start, lease) = (Instant::now(), Duration::from_secs(10));
        let sent = start + Duration::from_micros(6_000_900);
        let mut probe = Probe::default();
        assert_eq!(probe.look(start, sent, lease), Look::Send);
        let heard = start + Duration::from_secs(6);
        for seconds in 7..11 {
            assert_eq!(probe.look(heard, start + Duration::from_secs(seconds), lease), Look::Fine);
        }
    }
}
