//! Questions to the owners of channels: only so many at a time, since each answer may be long.

use std::collections::VecDeque;

use super::PusherHandler;
use crate::bus::{Mail, RequestId};
use crate::owner::Subscribe;

/// What this shard has asked another one, and what has still to be said to it.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The weight of the questions that are not answered yet.
    in_flight: u32,
    /// Questions, in order. There are no more of these than connections that wait.
    queue: VecDeque<Mail>,
}

impl PusherHandler {
    /// A number for the next question.
    pub(super) fn request_id(&mut self, subscribe: &Subscribe) -> RequestId {
        self.last_request_id = self.last_request_id.wrapping_add(1);
        let weight = match subscribe {
            Subscribe::Subscriptions => 1,
            Subscribe::Cached => CACHED,
            Subscribe::Presence { .. } | Subscribe::Members { .. } => PRESENCE,
        };
        RequestId { number: self.last_request_id, weight }
    }

    /// Asks the owner of a channel, once there is room for its answer.
    pub(super) fn ask_owner(&mut self, owner: usize, mail: Mail) {
        self.window(owner).queue.push_back(mail);
        self.advance(owner);
    }

    /// A question is answered: there is room for others.
    pub(super) fn answered(&mut self, owner: usize, request_id: RequestId) {
        let window = self.window(owner);
        window.in_flight = window.in_flight.saturating_sub(request_id.weight);
        self.advance(owner);
    }

    fn advance(&mut self, owner: usize) {
        let window = &mut self.windows[owner];
        while let Some(mail) = window.queue.front() {
            if let Mail::Enter { request_id, .. } = mail {
                if window.in_flight > 0 && window.in_flight + request_id.weight > WINDOW {
                    return;
                }
                window.in_flight += request_id.weight;
            }
            if let Some(mail) = window.queue.pop_front() {
                self.bus.tell(owner, mail);
            }
        }
        window.queue.shrink_to(SMALL);
    }

    fn window(&mut self, owner: usize) -> &mut Window {
        if self.windows.len() <= owner {
            self.windows.resize_with(owner + 1, Window::default);
        }
        &mut self.windows[owner]
    }
}

/// The weight of a list of members, and of a last event, if that of an answer without either is 1.
const PRESENCE: u32 = 64;
const CACHED: u32 = 4;

/// What may be under way to one shard: sixteen lists of members, or a thousand answers that are a word. In tests it is reached at once.
const WINDOW: u32 = if cfg!(test) { 2 * PRESENCE } else { 1024 };

/// Mails for which a line keeps its room.
const SMALL: usize = 64;
