//! What is for operators, and on which listeners it is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::Extension;
use axum::response::Redirect;
use axum::routing::get;

use super::listener::Listener;
use super::{Context, console, finish, health, metrics};

/// What the console's own listener serves.
pub(crate) fn console_router(context: &Arc<Context>) -> Router {
    let index = Router::new().route("/", get(async || Redirect::to("/console")));
    finish(index.merge(bus(Listener::Console, "")).merge(console::router(context, Listener::Console)), context)
}

/// What the metrics' own listener serves.
pub(crate) fn metrics_router(context: &Arc<Context>) -> Router {
    finish(bus(Listener::Metrics, ""), context)
}

/// What every listener has for those who watch over the server. Health is told below the prefix as well: a proxy may pass on nothing else.
pub(super) fn bus(listener: Listener, prefix: &str) -> Router<Arc<Context>> {
    let mut router = Router::new().route("/metrics", get(metrics::show).layer(Extension(listener)));
    for prefix in BTreeSet::from(["", prefix]) {
        let path = |path: &str| format!("{prefix}{path}");
        for (name, probe) in health::PATHS {
            router = match probe {
                health::Probe::Up => router.route(&path(name), get(health::up)),
                health::Probe::Ready => router.route(&path(name), get(health::ready)),
            };
        }
        router = router.route(&path("/up/{app}"), get(health::app_up));
    }
    router
}
