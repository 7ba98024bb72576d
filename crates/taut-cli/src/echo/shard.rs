//! The echo server on `taut-shard`'s loop.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use taut_proto::handshake::Request;
use taut_proto::{CloseCode, Message};
use taut_shard::{Drain, Handler, HandshakeId, Session, Settings, Shard, Verdict, listen, tls};

use super::{Arguments, Starvation, limits};
use crate::stop::Stop;

pub(super) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stop = Stop::catch()?;
    let settings = settings(arguments)?;
    let scheme = if settings.tls.is_some() { "wss" } else { "ws" };
    let listeners = listen(arguments.listen, arguments.shards.get())
        .map_err(|error| format!("cannot listen on {}: {error}", arguments.listen))?;
    let address = listeners[0].local_addr()?;
    let shards = listeners
        .into_iter()
        .map(|listener| Shard::new(listener, Echo(Starvation::default()), settings.clone()))
        .collect::<io::Result<Vec<_>>>()?;
    let drainers: Vec<_> = shards.iter().map(Shard::drainer).collect();
    let threads: Vec<_> = shards.into_iter().map(|shard| thread::spawn(move || shard.run())).collect();
    super::print_address(scheme, address);

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
    limits(&mut settings.protocol);
    settings.outgoing = 128 << 20;
    settings.deflate = arguments.deflate();
    if let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) {
        settings.tls = Some(tls::server(certificate, key)?);
    }
    Ok(settings)
}

struct Echo(Starvation);

impl Handler for Echo {
    type User = ();
    type Mail = ();

    fn request<'r>(&mut self, request: &'r Request<'r>, _: SocketAddr, _: HandshakeId) -> Verdict<'r, ()> {
        match request.upgrade() {
            Ok(upgrade) => Verdict::Accept(upgrade, ()),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn message(&mut self, session: &mut Session<'_, ()>, message: Message<'_>) {
        // A reader that is too slow is closed by the shard, and counted.
        let _ = session.send(message);
    }

    fn out_of_descriptors(&mut self, error: &io::Error, _: usize) {
        self.0.tell(error);
    }
}
