//! How many files and sockets the process may have open.

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and logs it. Shells and systemd set a soft limit of 1,024 for programs that use
/// `select`; each client takes one descriptor.
#[cfg(unix)]
pub(crate) fn allow_most() {
    let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    match (raised, maximum) {
        (Ok(()), Some(limit)) => {
            tracing::info!(limit, before, "limit of file descriptors; each client takes one");
        }
        (Ok(()), None) => tracing::info!(before, "file descriptors: there is no limit"),
        // Some systems have a limit for each process below the one that they state.
        (Err(error), _) => tracing::warn!(limit = before, %error, "the limit of file descriptors cannot be raised"),
    }
}

/// Windows has no such limit.
#[cfg(not(unix))]
pub(crate) fn allow_most() {}
