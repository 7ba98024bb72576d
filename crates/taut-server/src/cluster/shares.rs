//! What this node has of the connections that apps with a limit may have over all nodes.

use std::collections::HashMap;
use std::sync::Arc;

use super::Owners;
use crate::apps::{self, App, Apps, Granted};

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
    /// Counts the draws of this node for the app.
    pub(super) number: u64,
    /// It has them already.
    pub(super) taken: usize,
    pub(super) wanted: usize,
    /// All nodes together may have so many.
    pub(super) most: usize,
}

impl Shares {
    /// What is to be drawn: as many connections of the app as there are here and want to come. What this node has no need of others may have.
    /// `None` if something is being drawn, or if there is no limit: then clients are let in.
    pub(super) fn draw(&mut self, app: &Arc<App>, owners: &dyn Owners) -> Option<Draw> {
        let most = app.snapshot().limits.connections;
        if most == 0 {
            owners.granted(app, Granted::All);
            return None;
        }
        let share = self.0.entry(app.id().into()).or_default();
        if share.is_drawing {
            share.is_wanted = true;
            return None;
        }
        let apps::Draw { number, taken, wanted } = app.draw();
        *share = Share { is_drawing: true, is_wanted: false, counted: taken };
        Some(Draw { app: app.id().into(), number, taken, wanted: wanted.min(most), most })
    }

    /// This node may have so many connections of an app. Whether it is to draw again.
    pub(super) fn drawn(&mut self, app: &Arc<App>, draw: &Draw, granted: usize, owners: &dyn Owners) -> bool {
        app.grant(Some(granted));
        owners.granted(app, if granted < draw.wanted { Granted::Less { number: draw.number } } else { Granted::All });
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
        self.0.drain().map(|(app, _)| Draw { app, number: 0, taken: 0, wanted: 0, most: 0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::app::{AppConfig, Limits};
    use crate::cluster::{Done, Happened};
    use crate::hub::engine::{Standing, Update};

    /// Takes down what owners were told of places.
    #[derive(Debug, Default)]
    struct Told(Mutex<Vec<Granted>>);

    impl Told {
        fn take(&self) -> Vec<Granted> {
            std::mem::take(&mut self.0.lock().expect("not poisoned"))
        }
    }

    impl Owners for Told {
        fn update(&self, _: &Arc<App>, _: Update) {}

        fn standing(&self, _: Standing) {}

        fn granted(&self, _: &Arc<App>, granted: Granted) {
            self.0.lock().expect("not poisoned").push(granted);
        }

        fn terminate(&self, _: &Arc<App>, _: &Arc<str>, _: Duration, _: Done) {}

        fn happened(&self, _: &Arc<App>, _: Happened) {}
    }

    fn apps(connections: usize) -> (Apps, Arc<App>) {
        let config = AppConfig::parse("1:key:secret").expect("an app");
        let apps = Apps::new([config], &Limits { connections, ..Limits::default() }).expect("one app");
        let app = apps.by_id("1").expect("the app");
        app.grant(Some(0));
        (apps, app)
    }

    #[test]
    fn without_a_limit_nothing_is_drawn_and_clients_are_let_in() {
        let ((apps, app), mut shares, told) = (apps(0), Shares::default(), Told::default());
        assert_eq!((shares.draw(&app, &told), told.take()), (None, vec![Granted::All]));
        assert!(shares.due(&apps).is_empty());
    }

    #[test]
    fn what_is_wanted_while_something_is_drawn_is_drawn_afterwards() {
        let ((_, app), mut shares, told) = (apps(3), Shares::default(), Told::default());
        app.wait(2);
        let draw = Draw { app: "1".into(), number: 1, taken: 0, wanted: 2, most: 3 };
        assert_eq!(shares.draw(&app, &told), Some(draw.clone()));
        app.wait(5);
        assert_eq!(shares.draw(&app, &told), None);
        assert!(shares.drawn(&app, &draw, 2, &told), "more are wanted");
        assert_eq!((told.take(), app.granted()), (vec![Granted::All], Some(2)));
        let _both = (app.admit().expect("granted"), app.admit().expect("granted"));
        let draw = Draw { app: "1".into(), number: 2, taken: 2, wanted: 3, most: 3 };
        assert_eq!(shares.draw(&app, &told), Some(draw.clone()), "there are no more than that");
        assert!(!shares.drawn(&app, &draw, 2, &told));
        assert_eq!(told.take(), [Granted::Less { number: 2 }]);
    }

    #[test]
    fn a_node_gives_back_what_it_has_no_need_of() {
        let ((apps, app), mut shares, told) = (apps(3), Shares::default(), Told::default());
        assert_eq!(shares.due(&apps).len(), 1, "nothing was drawn yet");
        app.wait(1);
        let draw = shares.draw(&app, &told).expect("it is drawn");
        assert!(shares.due(&apps).is_empty(), "it is being drawn");
        shares.drawn(&app, &draw, 1, &told);
        let only = app.admit().expect("granted");
        app.stop_waiting(1);
        assert!(shares.due(&apps).is_empty());
        drop(only);
        assert_eq!(shares.due(&apps).len(), 1);
        assert_eq!(shares.end(), [Draw { app: "1".into(), number: 0, taken: 0, wanted: 0, most: 0 }]);
    }
}
