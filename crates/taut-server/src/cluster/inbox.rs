//! Takes what other nodes send to the owners whom it is for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};

use super::Owners;
use super::wire::Message;
use crate::apps::Apps;
use crate::hub::engine::{Position, Update};

/// Where a connection leaves what it reads: events go to their owners at once, so nothing waits here.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) apps: Arc<Apps>,
    pub(super) owners: Arc<dyn Owners>,
    /// What this node calls itself in the events that it publishes.
    pub(super) origin: Box<str>,
    pub(super) heard: UnboundedSender<Heard>,
}

/// What a session must know.
#[derive(Debug)]
pub(super) enum Heard {
    /// The connection has ended.
    Lost,
    /// The engine has ended subscriptions: another server has their channels.
    Moved,
    /// A node has closed a user's connections as it was asked.
    Terminated { request: u64, node: Box<str> },
    /// This node has closed a user's connections as `from` has asked.
    Closed { from: Box<str>, request: u64 },
}

impl Inbox {
    /// A message of a channel. `kept` is its position, where the engine says that beside the message.
    pub(super) fn to_channel(&self, app: &str, channel: &Arc<str>, bytes: &[u8], kept: Option<Position>) {
        let Some(app) = self.apps.by_id(app) else { return };
        let channel = Arc::clone(channel);
        let Some(message) = read(&channel, bytes) else { return };
        let update = match message {
            Message::Published { origin, kept: within, publication } => {
                let kept = kept.or(within);
                if kept.is_none() && origin == self.origin {
                    // The owner has delivered it already.
                    return;
                }
                Update::Published { publication, kept }
            }
            Message::Changed(change) => Update::Changed { channel, change },
            Message::Counted(subscribers) => Update::Counted { channel, subscribers },
            _ => return,
        };
        self.owners.update(&app, update);
    }

    /// A message of an app's users.
    pub(super) fn to_users(&self, app: &str, bytes: &[u8]) {
        let Some(app) = self.apps.by_id(app) else { return };
        if let Some(Message::Status { user_id, is_online }) = read(&Arc::from(""), bytes) {
            self.owners.update(&app, Update::Status { user_id, is_online });
        }
    }

    /// A message from node to node.
    pub(super) fn control(&self, bytes: &[u8]) {
        match read(&Arc::from(""), bytes) {
            Some(Message::Terminate { origin, from, request, app, user_id }) if origin != self.origin => {
                self.terminate(from, request, &app, &user_id);
            }
            Some(Message::Terminated { request, node }) => self.tell(Heard::Terminated { request, node }),
            _ => {}
        }
    }

    /// The session is told this, unless it is over.
    pub(super) fn tell(&self, heard: Heard) {
        let _ = self.heard.send(heard);
    }

    fn terminate(&self, from: Box<str>, request: u64, app: &str, user_id: &Arc<str>) {
        let (done, mut waited) = mpsc::channel(1);
        if let Some(app) = self.apps.by_id(app) {
            self.owners.terminate(&app, user_id, Duration::ZERO, done);
        }
        let heard = self.heard.clone();
        tokio::spawn(async move {
            // Nothing is ever sent: it ends with the last clone.
            let _ = waited.recv().await;
            let _ = heard.send(Heard::Closed { from, request });
        });
    }
}

fn read(channel: &Arc<str>, bytes: &[u8]) -> Option<Message> {
    Message::read(channel, bytes)
        .inspect_err(|malformed| tracing::warn!(%malformed, "a message of the cluster was not understood"))
        .ok()
}
