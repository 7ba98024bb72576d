//! How the TCP connection ends once the protocol has (RFC 6455 §7.1.1).

use crate::{Role, Time};

/// The end of a TCP connection after its last frame, as a state machine: its driver says what has happened, and it says
/// what to do next.
///
/// RFC 6455 §7.1.1: the server ends the TCP connection first, so that it is the one that keeps `TIME_WAIT`; it shuts
/// its sending side, then reads to the end, since a socket that is dropped with unread bytes is reset, and the peer may
/// lose the close frame with it. A client waits for the server's end before it shuts. None of it lasts beyond a
/// deadline.
///
/// Until the peer has ended, read and discard whatever the [`step`](Self::step): a peer that is not read may not read
/// either.
///
/// ```
/// use taut_proto::{Role, Teardown, TeardownStep, Time};
///
/// let mut teardown = Teardown::new(Role::Server, Time::from_micros(5_000_000));
/// assert_eq!(teardown.step(), TeardownStep::Write);
/// teardown.wrote();
/// assert_eq!(teardown.step(), TeardownStep::Shut);
/// teardown.shut();
/// assert_eq!(teardown.step(), TeardownStep::Read);
/// teardown.ended();
/// assert_eq!(teardown.step(), TeardownStep::Done);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four things that happen in any order")]
pub struct Teardown {
    role: Role,
    deadline: Time,
    has_written: bool,
    is_shut: bool,
    has_ended: bool,
    is_late: bool,
}

/// What to do next on a connection that is torn down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeardownStep {
    /// Write what is left, and say [`wrote`](Teardown::wrote) when nothing is.
    Write,
    /// Shut the sending side, and say [`shut`](Teardown::shut).
    Shut,
    /// Read and discard, and say [`ended`](Teardown::ended) at the peer's end.
    Read,
    /// The deadline has passed: drop the connection, which may reset it.
    Reset,
    /// Both sides have ended: drop the connection.
    Done,
}

impl Teardown {
    /// The protocol has ended; `deadline` is when the connection is dropped at the latest.
    pub fn new(role: Role, deadline: Time) -> Self {
        Self { role, deadline, has_written: false, is_shut: false, has_ended: false, is_late: false }
    }

    /// Nothing is left to be written, also because the stream takes no more.
    pub fn wrote(&mut self) {
        self.has_written = true;
    }

    /// Our sending side is shut, also because that has failed: then there is nothing left to shut.
    pub fn shut(&mut self) {
        self.is_shut = true;
    }

    /// The peer has ended its side, or reading has failed.
    pub fn ended(&mut self) {
        self.has_ended = true;
    }

    /// When [`handle_deadline`](Self::handle_deadline) is due.
    pub fn deadline(&self) -> Time {
        self.deadline
    }

    /// It is `now`. An earlier time than the deadline changes nothing.
    pub fn handle_deadline(&mut self, now: Time) {
        self.is_late |= now >= self.deadline;
    }

    /// Whether to read and discard, beside the step.
    pub fn is_reading(&self) -> bool {
        !self.has_ended && !self.is_over()
    }

    /// What to do next.
    pub fn step(&self) -> TeardownStep {
        // RFC 6455 §7.1.1: a client leaves it to the server to end first.
        let may_shut = self.has_ended || self.role == Role::Server;
        match self {
            Self { is_shut: true, has_ended: true, .. } => TeardownStep::Done,
            Self { is_late: true, .. } => TeardownStep::Reset,
            Self { is_shut: true, .. } => TeardownStep::Read,
            Self { has_written: false, .. } => TeardownStep::Write,
            _ if may_shut => TeardownStep::Shut,
            _ => TeardownStep::Read,
        }
    }

    /// Whether the connection is to be dropped.
    pub fn is_over(&self) -> bool {
        matches!(self.step(), TeardownStep::Done | TeardownStep::Reset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Time = Time::from_micros(1_000);

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Input {
        Wrote,
        Shut,
        Ended,
        Deadline,
    }

    const INPUTS: [Input; 4] = [Input::Wrote, Input::Shut, Input::Ended, Input::Deadline];

    fn after(role: Role, inputs: &[Input]) -> Teardown {
        let mut teardown = Teardown::new(role, DEADLINE);
        for input in inputs {
            match input {
                Input::Wrote => teardown.wrote(),
                Input::Shut => teardown.shut(),
                Input::Ended => teardown.ended(),
                Input::Deadline => teardown.handle_deadline(DEADLINE),
            }
        }
        teardown
    }

    /// Every sequence of different inputs, in every order.
    fn orders(so_far: &mut Vec<Input>, all: &mut Vec<Vec<Input>>) {
        all.push(so_far.clone());
        for input in INPUTS {
            if !so_far.contains(&input) {
                so_far.push(input);
                orders(so_far, all);
                so_far.pop();
            }
        }
    }

    // RFC 6455 §7.1.1: write, then shut, then read to the end; a client shuts after the server; a deadline ends it all.
    #[test]
    fn every_order_of_inputs_leads_to_the_step_that_the_rfc_wants() {
        let mut all = Vec::new();
        orders(&mut Vec::new(), &mut all);
        assert_eq!(all.len(), 1 + 4 + 12 + 24 + 24);
        for (role, inputs) in [Role::Server, Role::Client].iter().flat_map(|role| all.iter().map(move |it| (*role, it)))
        {
            let teardown = after(role, inputs);
            let has = |input| inputs.contains(&input);
            let (wrote, shut, ended) = (has(Input::Wrote), has(Input::Shut), has(Input::Ended));
            let expected = if shut && ended {
                TeardownStep::Done
            } else if has(Input::Deadline) {
                TeardownStep::Reset
            } else if shut {
                TeardownStep::Read
            } else if !wrote {
                TeardownStep::Write
            } else if role == Role::Client && !ended {
                TeardownStep::Read
            } else {
                TeardownStep::Shut
            };
            assert_eq!(teardown.step(), expected, "{role:?} {inputs:?}");
            let is_over = matches!(expected, TeardownStep::Done | TeardownStep::Reset);
            assert_eq!(
                (teardown.is_over(), teardown.is_reading()),
                (is_over, !ended && !is_over),
                "{role:?} {inputs:?}"
            );
        }
    }

    // RFC 6455 §7.1.1: whoever does as it says ends, and with the peer's end and no deadline it is never a reset.
    #[test]
    fn a_driver_that_does_what_it_says_gets_to_the_end() {
        for role in [Role::Server, Role::Client] {
            for ends_at in 0..3 {
                let mut teardown = Teardown::new(role, DEADLINE);
                let mut steps = Vec::new();
                for turn in 0..9 {
                    if turn == ends_at {
                        teardown.ended();
                    }
                    let step = teardown.step();
                    steps.push(step);
                    match step {
                        TeardownStep::Write => teardown.wrote(),
                        TeardownStep::Shut => teardown.shut(),
                        TeardownStep::Read => {}
                        TeardownStep::Reset | TeardownStep::Done => break,
                    }
                }
                steps.dedup();
                steps.retain(|step| *step != TeardownStep::Read);
                assert_eq!(steps, [TeardownStep::Write, TeardownStep::Shut, TeardownStep::Done], "{role:?} {ends_at}");
            }
        }
    }

    #[test]
    fn a_deadline_that_has_not_come_changes_nothing() {
        let mut teardown = Teardown::new(Role::Server, DEADLINE);
        teardown.handle_deadline(Time::from_micros(999));
        assert_eq!((teardown.step(), teardown.deadline()), (TeardownStep::Write, DEADLINE));
        for now in [1_001, 0, 1_002] {
            teardown.handle_deadline(Time::from_micros(now));
            assert_eq!(teardown.step(), TeardownStep::Reset);
        }
    }
}
