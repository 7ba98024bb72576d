//! Socket activation: systemd listens, and passes its sockets to the server. They stay when the server stops, and so do
//! the clients that wait in their queues for the next one. `sd_listen_fds(3)` describes the protocol.

use std::env;
use std::net::TcpListener;

use listenfd::ListenFd;
use taut_server::Sockets;

/// Takes the sockets that were passed to this process, if there are any. To be called before anything opens a file.
///
/// # Errors
/// When there is one that cannot be used: it would take clients that nobody serves.
pub(crate) fn sockets() -> Result<Sockets, String> {
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let mut names = names.split(':');
    let mut sockets = Sockets::default();
    for number in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let socket = passed.take_tcp_listener(number).map_err(|error| format!("{PASSED} {name:?}: {error}"))?;
        if let Some(socket) = socket {
            put(&mut sockets, name, socket)?;
        }
    }
    Ok(sockets)
}

/// Puts a socket in the place that its name says. systemd names it after its unit where `FileDescriptorName=` says
/// nothing; other programs that pass sockets give none.
fn put(sockets: &mut Sockets, name: &str, socket: TcpListener) -> Result<(), String> {
    let operators = match name.strip_suffix(".socket").unwrap_or(name) {
        "taut" | "http" | "unknown" | "" => {
            sockets.clients.push(socket);
            return Ok(());
        }
        "console" | "taut-console" => &mut sockets.console,
        "metrics" | "taut-metrics" => &mut sockets.metrics,
        _ => {
            return Err(format!(
                "{PASSED} {name:?}, which is unknown: set FileDescriptorName= of its unit to taut (for clients), \
                 console or metrics"
            ));
        }
    };
    match operators.replace(socket) {
        None => Ok(()),
        Some(_) => Err(format!("{PASSED} {name:?} twice: the {name} has one listener")),
    }
}

const PASSED: &str = "the service manager passes a socket with the name";

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Result<[usize; 3], String> {
        let mut sockets = Sockets::default();
        for name in names {
            put(&mut sockets, name, TcpListener::bind("127.0.0.1:0").expect("a port"))?;
        }
        let Sockets { clients, console, metrics } = sockets;
        Ok([clients.len(), usize::from(console.is_some()), usize::from(metrics.is_some())])
    }

    #[test]
    fn a_name_says_whom_a_socket_is_for() {
        assert_eq!(sorted(&["taut", "http", "taut.socket", "unknown", ""]), Ok([5, 0, 0]));
        assert_eq!(sorted(&["console", "taut-metrics.socket", "taut"]), Ok([1, 1, 1]));
    }

    #[test]
    fn an_unknown_name_is_refused_and_so_is_a_second_console() {
        let refused = sorted(&["consol"]).expect_err("unknown");
        assert!(refused.contains("\"consol\"") && refused.contains("FileDescriptorName="), "{refused}");
        let refused = sorted(&["console", "console"]).expect_err("twice");
        assert!(refused.contains("twice"), "{refused}");
    }
}
