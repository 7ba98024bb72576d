//! What this node has of the connections that apps with a limit may have over all nodes.

use std::collections::HashMap;
use std::sync::Arc;

use super::Owners;
use crate::apps::{App, Apps};

/// This node's shares, by the id of the app.
#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<Box<str>, Share>);

#[derive(Debug, Default)]
struct Share {
    is_drawing: bool,
    /// More have been wanted since.
    is_wanted: bool,
    /// The engine counts so many.
    counted: usize,
}

/// The node wants to have so many connections of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draw {
    pub(super) app: Box<str>,
    pub(super) wanted: usize,
    /// It has them already.
    pub(super) taken: usize,
    /// All nodes together may have so many.
    pub(super) most: usize,
}

impl Shares {
    /// What is to be drawn: as many connections of the app as there are here and want to come. What this node has no need of others may have.
    /// `None` if something is being drawn, or if there is no limit: then clients are let in.
    pub(super) fn draw(&mut self, app: &Arc<App>, owners: &dyn Owners) -> Option<Draw> {
        let most = app.snapshot().limits.connections;
        if most == 0 {
            owners.granted(app, false);
            return None;
        }
        let share = self.0.entry(app.id().into()).or_default();
        if share.is_drawing {
            share.is_wanted = true;
            return None;
        }
        let (taken, waiting) = app.reclaim_places();
        *share = Share { is_drawing: true, is_wanted: false, counted: taken };
        Some(Draw { app: app.id().into(), wanted: (taken + waiting).min(most), taken, most })
    }

    /// This node may have so many connections of an app. Whether it is to draw again.
    pub(super) fn drawn(&mut self, app: &Arc<App>, wanted: usize, granted: usize, owners: &dyn Owners) -> bool {
        app.grant(Some(granted));
        owners.granted(app, granted < wanted);
        let share = self.0.entry(app.id().into()).or_default();
        share.is_drawing = false;
        share.counted = share.counted.max(granted);
        share.is_wanted
    }

    /// Apps of which this node has less than it was counted with, or has not drawn yet.
    pub(super) fn due(&self, apps: &Apps) -> Vec<Arc<App>> {
        let is_due = |app: &Arc<App>| {
            let share = self.0.get(app.id());
            app.snapshot().limits.connections > 0
                && share.is_none_or(|share| !share.is_drawing && share.counted > app.connections())
        };
        apps.all().into_iter().filter(is_due).collect()
    }

    /// What is to be drawn so that this node has nothing any longer.
    pub(super) fn end(&mut self) -> Vec<Draw> {
        self.0.drain().map(|(app, _)| Draw { app, wanted: 0, taken: 0, most: 0 }).collect()
    }
}
