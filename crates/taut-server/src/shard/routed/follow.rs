//! What a reload of the configuration means for connections of routes that are open.
//!
//! A route is the same if its name is. Its connections go on by its new settings, and their next events go to its new
//! backend; an event that is under way stays at the old one. Connections of a route that is gone are closed.

use std::sync::Arc;

use taut_proto::{Close, CloseCode};
use taut_shard::{ConnectionId, Connections};

use super::{Client, PusherHandler, Route, Routed, routed};
use crate::apps::Apps;
use crate::gateway::Routes;
use crate::place::AppIndex;

impl PusherHandler {
    /// The routes or their apps may have changed.
    pub(in crate::shard) fn follow_routes(&mut self, connections: &mut Connections<Client>) {
        let current = self.gateway.routes();
        // Their backends are still told of their ends. Those of routes that are gone stay with the old one.
        for parting in self.routes.parting.values_mut() {
            parting.routed.follow(&current, &self.apps);
        }
        self.routes.removed.clear();
        if self.local_apps.iter().flatten().all(|local_app| local_app.routed == 0) {
            return;
        }
        for id in connections.ids().collect::<Vec<_>>() {
            let Some((_, routed)) = routed(connections, id) else { continue };
            let before = Arc::clone(&routed.route);
            if !routed.follow(&current, &self.apps) {
                self.routes.removed.push(id);
            } else if !Arc::ptr_eq(&before, &routed.route) {
                before.statistics().ended();
                routed.route.statistics().began();
            }
        }
        self.close_removed(connections);
    }

    /// Closes connections of routes that are gone, a part at a time: their clients may all come back at once, and their
    /// backends are told of each end.
    pub(super) fn close_removed(&mut self, connections: &mut Connections<Client>) {
        let rest = self.routes.removed.len().saturating_sub(MOST_CLOSED);
        for id in self.routes.removed.split_off(rest) {
            self.close_as_removed(connections, id);
        }
        if self.routes.removed.is_empty() {
            self.routes.removed = Vec::new();
        }
    }

    pub(super) fn close_as_removed(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        self.dismiss(connections, id, Close::new(CloseCode::GOING_AWAY, "route removed"));
    }
}

impl Routed {
    /// Goes on by what the route is by now; `false` if it is gone.
    pub(super) fn follow(&mut self, routes: &Routes, apps: &Apps) -> bool {
        match successor(&self.route, self.app.index(), routes, apps) {
            // A backend with WebSockets has its connection, and no other can go on with that.
            Some(_) if self.relay.is_some() => {}
            Some(route) => self.route = route,
            None => return false,
        }
        true
    }
}

/// What a route is by now, for its connections of this app; `None` if it is gone, or has moved to another app.
fn successor(route: &Route, app: AppIndex, routes: &Routes, apps: &Apps) -> Option<Arc<Route>> {
    let now = routes.named(route.name())?;
    // One whose app cannot be found takes no new clients, and has not moved.
    let is_of_app = now.app(apps).is_none_or(|now| now.index() == app);
    is_of_app.then(|| Arc::clone(now))
}

/// Connections that are closed at a time: each second, and at once as the routes change.
const MOST_CLOSED: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Limits};
    use crate::gateway::{Backend, RouteConfig};

    fn routes(configs: &[RouteConfig]) -> Routes {
        Routes::new(configs).expect("routes")
    }

    fn route(name: &str, path: &str, app: &str, url: &str) -> RouteConfig {
        let backend = Backend::Http { url: url.to_owned() };
        RouteConfig { name: name.to_owned(), ..RouteConfig::new(path, app, backend) }
    }

    #[test]
    fn no_two_routes_have_one_name() {
        let url = "http://a.example/";
        let error = |second| Routes::new(&[route("chat", "/chat", "1", url), route(second, "/talk", "1", url)]).err();
        assert_eq!(error("talk"), None);
        assert_eq!(error("chat").as_deref(), Some("two routes have the name \"chat\"; each needs its own"));
    }

    #[test]
    fn a_route_is_the_same_if_its_name_is_and_it_has_not_moved_to_another_app() {
        let apps = ["1:a:x", "2:b:y"].map(|text| AppConfig::parse(text).expect(text));
        let apps = Apps::new(apps, &Limits::default()).expect("two apps");
        let first = apps.by_id("1").expect("an app").index();
        let before = routes(&[route("chat", "/chat", "1", "http://old.example/")]);
        let (before, _) = before.find("/chat").expect("the route");
        let url = |config: RouteConfig| {
            let now = routes(&[route("other", "/chat", "1", "http://other.example/"), config]);
            successor(&before, first, &now, &apps).map(|route| route.path().to_owned())
        };
        let new = "http://new.example/";
        assert_eq!(url(route("chat", "/talk", "1", new)).as_deref(), Some("/talk"));
        assert_eq!(url(route("talk", "/talk", "1", new)), None, "another name");
        assert_eq!(url(route("chat", "/talk", "2", new)), None, "another app");
        assert_eq!(url(route("chat", "/talk", "", new)).as_deref(), Some("/talk"), "no app that is known");
    }
}
