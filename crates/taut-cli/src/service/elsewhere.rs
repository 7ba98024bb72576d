//! Other systems have no such manager.

use std::time::Duration;

use taut_server::{Liveness, Sockets};

#[expect(clippy::unnecessary_wraps, reason = "as where there are sockets")]
pub(crate) fn sockets() -> Result<Sockets, String> {
    Ok(Sockets::default())
}

pub(crate) struct Supervisor;

#[expect(clippy::unused_self, reason = "as where there is one")]
impl Supervisor {
    pub(crate) fn find() -> Self {
        Self
    }

    pub(crate) fn ready(&self, _: &str) {}

    pub(crate) fn reloading(&self) {}

    pub(crate) fn stopping(&self, _: Duration) {}

    pub(crate) fn tell(&self, _: &str) {}

    pub(crate) fn watch(&self, _: Liveness) {}
}
