//! The listeners of the HTTP side, and what a request by one of them must show. Where a request seems to come from grants nothing: behind a proxy on
//! this machine everybody comes from it, and a proxy need not say that it is one.

use axum::extract::Request;
use http::StatusCode;
use http::header::HOST;
use http::uri::Authority;

use crate::address;
use crate::http::answer::ApiError;

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

/// Refuses a request whose `Host` is a name that anybody could have pointed to this machine (DNS rebinding): a browser that was told so by a page of
/// somebody else's asks here in the belief that it asks there, and shows that page the answer.
pub(super) fn check_host(request: &Request) -> Result<(), ApiError> {
    let mut hosts = request.headers().get_all(HOST).iter().peekable();
    let is_ours = |host: &http::HeaderValue| {
        host.to_str().ok().and_then(|host| host.parse().ok()).is_some_and(|host| is_this_machine(&host))
    };
    let names_this_machine =
        hosts.peek().is_some() && hosts.all(is_ours) && request.uri().authority().is_none_or(is_this_machine);
    if names_this_machine {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "Without a password this listener answers only to localhost and 127.0.0.1 in the Host header. To open it by another name, start the server with \
         console-password.",
    ))
}

fn is_this_machine(authority: &Authority) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(address::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_cannot_be_pointed_elsewhere_are_this_machine() {
        let check = |host: &str| is_this_machine(&host.parse().expect(host));
        for host in ["localhost", "LOCALHOST:6001", "127.0.0.1:6001", "127.9.8.7", "[::1]:6001", "[::ffff:127.0.0.1]"] {
            assert!(check(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:6001", "10.0.0.1", "[::2]"] {
            assert!(!check(host), "{host}");
        }
    }
}
