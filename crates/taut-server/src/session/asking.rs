//! Questions to the homes of channels: only so many at a time, since each answer may be long.

use std::collections::VecDeque;

use super::Sessions;
use crate::home::Wish;
use crate::route::{Mail, Ticket};

/// What this shard has asked another one, and what has still to be said to it.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The weight of the questions that are not answered yet.
    in_flight: u32,
    /// Questions, in order. There are no more of these than connections that wait.
    queue: VecDeque<Mail>,
}

impl Sessions {
    /// A number for the next question.
    pub(super) fn ticket(&mut self, wish: &Wish) -> Ticket {
        self.tickets = self.tickets.wrapping_add(1);
        let weight = match wish {
            Wish::Interest => 1,
            Wish::Cached => CACHED,
            Wish::Presence { .. } | Wish::Members { .. } => PRESENCE,
        };
        Ticket { number: self.tickets, weight }
    }

    /// Asks the owner of a channel, once there is room for its answer.
    pub(super) fn ask_home(&mut self, home: usize, mail: Mail) {
        self.line(home).queue.push_back(mail);
        self.advance(home);
    }

    /// A question is answered: there is room for others.
    pub(super) fn answered(&mut self, home: usize, ticket: Ticket) {
        let line = self.line(home);
        line.in_flight = line.in_flight.saturating_sub(ticket.weight);
        self.advance(home);
    }

    fn advance(&mut self, home: usize) {
        let line = &mut self.lines[home];
        while let Some(mail) = line.queue.front() {
            if let Mail::Enter { ticket, .. } = mail {
                if line.in_flight > 0 && line.in_flight + ticket.weight > WINDOW {
                    return;
                }
                line.in_flight += ticket.weight;
            }
            if let Some(mail) = line.queue.pop_front() {
                self.routes.tell(home, mail);
            }
        }
        line.queue.shrink_to(SMALL);
    }

    fn line(&mut self, home: usize) -> &mut Line {
        if self.lines.len() <= home {
            self.lines.resize_with(home + 1, Line::default);
        }
        &mut self.lines[home]
    }
}

/// The weight of a list of members, and of a last event, if that of an answer without either is 1.
const PRESENCE: u32 = 64;
const CACHED: u32 = 4;

/// What may be under way to one shard: sixteen lists of members, or a thousand answers that are a word. In tests it is reached at once.
const WINDOW: u32 = if cfg!(test) { 2 * PRESENCE } else { 1024 };

/// Mails for which a line keeps its room.
const SMALL: usize = 64;
