//! The echo server on the library `taut`.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use taut::tls::ServerTls;
use taut::{Acceptor, Failure, Incoming, Server, Settings};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::{Arguments, Starvation, limits};
use crate::stop::Stop;

pub(super) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    runtime(arguments.shards.get())?.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let stop = Stop::catch()?;
    let server = Server::bind(arguments.listen).await?.acceptor(acceptor(arguments)?);
    let scheme = if arguments.tls_certificate.is_some() { "wss" } else { "ws" };
    super::print_address(scheme, server.local_addr()?);
    let starvation = Mutex::new(Starvation::default());
    let server = server.on_failure(move |failure| {
        if let Failure::Accept(error) = failure {
            starvation.lock().unwrap_or_else(PoisonError::into_inner).tell(error);
        }
    });
    let (tell, told) = oneshot::channel();
    thread::spawn(move || tell.send(stop.wait()));
    let serving = server.serve(echo).drain_timeout(Duration::from_secs(5)).until(async move {
        // It always comes.
        let _ = told.await;
    });
    Ok(serving.await?)
}

/// The natural loop; it writes once for all that one read has brought.
async fn echo(incoming: Incoming) -> Result<(), taut::Error> {
    let mut socket = incoming.accept().await?;
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

fn acceptor(arguments: &Arguments) -> Result<Acceptor, taut::Error> {
    let mut settings = Settings::server();
    limits(&mut settings);
    let mut acceptor = Acceptor::new().allow_any_origin().settings(settings);
    if let Some(config) = arguments.deflate() {
        acceptor = acceptor.deflate(config);
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) {
        acceptor = acceptor.tls(ServerTls::from_pem_files(certificate, key)?);
    }
    Ok(acceptor)
}

fn runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads).enable_all().build()
}
