//! `taut echo`: sends every message back. For trying clients, for conformance suites and for measuring.

mod shard;
mod tokio;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use taut_proto::{Settings, deflate};
use taut_server::config::listen_address;

use crate::output;

/// Send every message back to its sender
///
/// Accepts connections from any web page: an echo has nothing to protect. Messages may have up to 64 MiB, in any
/// number of fragments.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where to listen: a port alone is on 127.0.0.1; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001", value_parser = listen_address)]
    listen: SocketAddr,

    /// Agree to permessage-deflate when a client offers it
    #[arg(long)]
    deflate: bool,

    /// Keep the compression context between messages, at about 450 KiB per connection
    #[arg(long, requires = "deflate")]
    context_takeover: bool,

    /// What drives the connections: the loop of `taut-shard`, or the library `taut` on tokio
    #[arg(long, value_enum, default_value_t = Driver::Shard)]
    driver: Driver,

    /// Threads, each with a loop and connections of its own
    #[arg(long, value_name = "COUNT", default_value = "1")]
    shards: NonZeroUsize,

    /// The certificate chain for wss://, a PEM file
    #[arg(long, alias = "tls-cert", value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,

    /// The certificate's key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Driver {
    Shard,
    Tokio,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    match arguments.driver {
        Driver::Shard => shard::run(arguments)?,
        Driver::Tokio => tokio::run(arguments)?,
    }
    tracing::info!("stopped");
    Ok(())
}

impl Arguments {
    fn deflate(&self) -> Option<deflate::Config> {
        self.deflate.then(|| {
            let mut config = deflate::Config::standard();
            config.incoming_takeover = self.context_takeover;
            config.outgoing_takeover = self.context_takeover;
            config
        })
    }
}

fn limits(settings: &mut Settings) {
    settings.limits.message = 64 << 20;
    settings.limits.fragments = u32::MAX;
}

/// Logs that no descriptor is left for new clients, at most every ten seconds.
#[derive(Default)]
struct Starvation(Option<Instant>);

impl Starvation {
    fn tell(&mut self, error: &io::Error) {
        if self.0.is_none_or(|told| told.elapsed() >= Duration::from_secs(10)) {
            self.0 = Some(Instant::now());
            tracing::warn!(%error, "no file descriptor is left for new clients: raise the limit (ulimit -n)");
        }
    }
}

fn print_address(scheme: &str, address: SocketAddr) {
    output::announce(format_args!("listening on {scheme}://{address}"));
}

const EXAMPLES: &str = "\
Examples:
  taut echo
  taut echo --listen 0.0.0.0:9001 --deflate --shards 2
  taut echo --tls-certificate chain.pem --tls-key key.pem";
