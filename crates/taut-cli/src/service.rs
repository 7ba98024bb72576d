//! What the command has to do with a service manager such as systemd: it takes sockets from it, and tells it how the server
//! is. Without one, this does nothing.

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod sockets;
#[cfg(unix)]
mod supervisor;

#[cfg(not(unix))]
pub(crate) use elsewhere::{Supervisor, sockets};
#[cfg(unix)]
pub(crate) use sockets::sockets;
#[cfg(unix)]
pub(crate) use supervisor::Supervisor;
