//! One process with its shards, seen from outside them.

use std::sync::Arc;

use taut_proto::Prepared;

use crate::pusher::event::ServerEvent;
use crate::pusher::socket_id::SocketId;
use crate::route::{Busy, Published, Routes};
use crate::tenants::{Apps, Tenant};

/// The way in for whoever is no client: the HTTP side today.
#[derive(Debug)]
pub(crate) struct Node {
    apps: Arc<Apps>,
    routes: Arc<Routes>,
}

/// What somebody publishes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publication<'a> {
    pub(crate) event: &'a str,
    /// The text that subscribers get; it need not be JSON.
    pub(crate) data: &'a str,
    /// Who does not get it.
    pub(crate) excluded: Option<SocketId>,
}

impl Node {
    pub(crate) fn new(apps: Arc<Apps>, routes: Arc<Routes>) -> Self {
        Self { apps, routes }
    }

    pub(crate) fn apps(&self) -> &Apps {
        &self.apps
    }

    /// Sends an event on its way to all members of the channels, which have been checked; to all of the channels or to none.
    ///
    /// It is encoded here, once per channel, and not on a shard's time.
    pub(crate) fn publish(
        &self,
        tenant: &Tenant,
        channels: &[impl AsRef<str>],
        publication: &Publication<'_>,
    ) -> Result<(), Busy> {
        let &Publication { event, data, excluded } = publication;
        let mut text = String::new();
        let published = channels.iter().map(|channel| {
            let channel = channel.as_ref();
            text.clear();
            ServerEvent::Published { event, channel, data }.write(&mut text);
            Published {
                tenant: tenant.index(),
                channel: channel.into(),
                message: Prepared::new(text.as_str()),
                excluded,
            }
        });
        let published = published.collect();
        self.routes.publish(published)
    }
}
