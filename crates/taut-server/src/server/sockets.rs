//! Sockets that somebody else has bound, such as systemd: they listen already, and stay when the server has stopped.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::{Config, ConfigError, Diagnostic};

/// Sockets that listen already. Each takes the place of what the server would bind itself.
#[derive(Debug, Default)]
pub struct Sockets {
    /// In the place of [`Config::listen`]: one, or several at one address (`SO_REUSEPORT`). Each shard gets one; where there
    /// are fewer, shards share them.
    pub clients: Vec<TcpListener>,
    /// In the place of [`Config::console_listen`], and as good as that setting.
    pub console: Option<TcpListener>,
    /// In the place of [`Config::metrics_listen`], and as good as that setting.
    pub metrics: Option<TcpListener>,
}

impl Sockets {
    /// Where they are.
    pub(super) fn addresses(&self) -> Result<Addresses, ConfigError> {
        let address = |setting, socket: Option<&TcpListener>| {
            let address = socket.map(TcpListener::local_addr).transpose();
            address.map_err(|error| Diagnostic::new(setting, cannot_use(&error)))
        };
        Ok(Addresses {
            clients: address("listen", self.clients.first())?,
            console: address("console-listen", self.console.as_ref())?,
            metrics: address("metrics-listen", self.metrics.as_ref())?,
        })
    }

    /// The clients' sockets for so many shards, if there are any.
    pub(super) fn take_clients(&mut self, shards: usize) -> Result<Option<Vec<TcpListener>>, ConfigError> {
        if self.clients.is_empty() {
            return Ok(None);
        }
        let shared = taut_shard::share(std::mem::take(&mut self.clients), shards);
        shared.map(Some).map_err(|error| Diagnostic::new("listen", cannot_use(&error)).into())
    }
}

/// Where sockets are that were given to the server. What depends on an address, such as whether others than this machine reach
/// it, holds for these, and not for what the configuration says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Addresses {
    clients: Option<SocketAddr>,
    console: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl Addresses {
    /// The configuration with these addresses in the place of its own.
    pub(super) fn put_into(self, config: &Config) -> Config {
        let mut config = config.clone();
        config.listen = self.clients.unwrap_or(config.listen);
        config.console_listen = self.console.or(config.console_listen);
        config.metrics_listen = self.metrics.or(config.metrics_listen);
        config
    }
}

fn cannot_use(error: &io::Error) -> String {
    format!("a socket that was passed to the server cannot be used: {error}")
}
