//! `taut echo`: sends every message back. For trying clients, for conformance suites and for measuring.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use taut_proto::handshake::Request;
use taut_proto::{CloseCode, Message, deflate};
use taut_shard::{Drain, Handler, Session, Settings, Shard, Verdict, listen, tls};

use crate::stop::Stop;

/// Send every message back to whoever sent it
///
/// Anyone may connect, whatever page they come from: an echo has nothing to protect. Messages may be as long as
/// 64 MiB, in as many fragments as they like.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,

    /// Agree to permessage-deflate when a client offers it
    #[arg(long)]
    deflate: bool,

    /// Keep the compression context from message to message, at some 450 KiB a connection
    #[arg(long, requires = "deflate")]
    context_takeover: bool,

    /// Threads, each with a loop and connections of its own
    #[arg(long, value_name = "COUNT", default_value = "1")]
    shards: NonZeroUsize,

    /// The certificate chain for wss://, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's key, a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stop = Stop::catch()?;
    let settings = settings(arguments)?;
    let scheme = if settings.tls.is_some() { "wss" } else { "ws" };
    let listeners = listen(arguments.listen, arguments.shards.get())
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?;
    let address = listeners[0].local_addr()?;
    let shards = listeners
        .into_iter()
        .map(|listener| Shard::new(listener, Echo, settings.clone()))
        .collect::<io::Result<Vec<_>>>()?;
    let drainers: Vec<_> = shards.iter().map(Shard::drainer).collect();
    let threads: Vec<_> = shards.into_iter().map(|shard| thread::spawn(move || shard.run())).collect();
    println!("listening on {scheme}://{address}");

    stop.wait();
    for drainer in drainers {
        drainer.drain(Drain {
            close: CloseCode::GOING_AWAY.into(),
            over: Duration::ZERO,
            deadline: Duration::from_secs(5),
        });
    }
    for thread in threads {
        thread.join().map_err(|_| "a shard has panicked")??;
    }
    Ok(())
}

fn settings(arguments: &Arguments) -> Result<Settings, tls::TlsError> {
    let mut settings = Settings::default();
    settings.protocol.limits.message = 64 << 20;
    settings.protocol.limits.fragments = u32::MAX;
    settings.outgoing = 128 << 20;
    if arguments.deflate {
        let mut config = deflate::Config::standard();
        config.incoming_takeover = arguments.context_takeover;
        config.outgoing_takeover = arguments.context_takeover;
        settings.deflate = Some(config);
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        settings.tls = Some(tls::server(certificate, key)?);
    }
    Ok(settings)
}

struct Echo;

impl Handler for Echo {
    type User = ();
    type Mail = ();

    fn request<'r>(&mut self, request: &'r Request<'r>, _: SocketAddr) -> Verdict<'r, ()> {
        match request.upgrade() {
            Ok(upgrade) => Verdict::Accept(upgrade, ()),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        // A reader that is too slow is closed by the shard, and counted.
        let _ = session.send(message);
    }
}
