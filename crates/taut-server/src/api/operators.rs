//! What is for operators, and on which listeners it is served. Where a request seems to come from grants nothing: behind a proxy on this machine
//! everybody comes from it, and a proxy need not say that it is one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Request};
use axum::response::Redirect;
use axum::routing::get;
use http::StatusCode;
use http::header::HOST;
use http::uri::Authority;

use super::{Context, console, finish, health, metrics};
use crate::http::answer::Problem;

/// The listener that a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Where clients and backends connect, strangers among them.
    Clients,
    /// The console's own (`console-listen`).
    Console,
    /// The metrics' own (`metrics-listen`).
    Metrics,
}

/// What the console's own listener serves.
pub(crate) fn console_router(context: &Arc<Context>) -> Router {
    let index = Router::new().route("/", get(async || Redirect::to("/console")));
    finish(index.merge(routes(Listener::Console, "")).merge(console::router(context, Listener::Console)), context)
}

/// What the metrics' own listener serves.
pub(crate) fn metrics_router(context: &Arc<Context>) -> Router {
    finish(routes(Listener::Metrics, ""), context)
}

/// What every listener has for those who watch over the server. Health is told below the prefix as well: a proxy may pass on nothing else.
pub(super) fn routes(listener: Listener, prefix: &str) -> Router<Arc<Context>> {
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

/// Refuses a request whose `Host` is a name that anybody could have pointed to this machine (DNS rebinding): a browser that was told so by a page of
/// somebody else's asks here in the belief that it asks there, and shows that page the answer.
pub(super) fn check_host(request: &Request) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(HOST).iter().peekable();
    let is_loopback_host = |host: &http::HeaderValue| {
        host.to_str().ok().and_then(|host| host.parse().ok()).is_some_and(|host| is_loopback(&host))
    };
    let names_this_machine =
        hosts.peek().is_some() && hosts.all(is_loopback_host) && request.uri().authority().is_none_or(is_loopback);
    if names_this_machine {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "Without a password this listener answers only to localhost and 127.0.0.1 in the Host header. To open it by another name, start the server with \
         console-password.",
    ))
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_pointed_elsewhere_are_this_machine() {
        let check = |host: &str| is_loopback(&host.parse().expect(host));
        for host in ["localhost", "LOCALHOST:6001", "127.0.0.1:6001", "127.9.8.7", "[::1]:6001", "[::ffff:127.0.0.1]"] {
            assert!(check(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:6001", "10.0.0.1", "[::2]"] {
            assert!(!check(host), "{host}");
        }
    }
}
