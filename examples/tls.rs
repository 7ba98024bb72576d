//! `wss://` on both sides, with certificates from PEM files.
//!
//! ```sh
//! # An authority of one's own, and a certificate by it for this machine.
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=our root' -keyout root.key -out root.pem
//! openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=localhost' -keyout server.key -out server.csr
//! echo 'subjectAltName = DNS:localhost, IP:127.0.0.1' > names
//! openssl x509 -req -in server.csr -CA root.pem -CAkey root.key -extfile names -out server.pem
//!
//! cargo run -p taut --example tls -- serve server.pem server.key 127.0.0.1:9443
//! cargo run -p taut --example tls -- connect wss://localhost:9443/ root.pem
//! ```
//!
//! When the files of the certificate change, the server uses the new ones, without a restart.

use std::{env, fs};

use taut::tls::{ClientTls, ServerTls};
use taut::{Acceptor, Client, CloseCode, Error, Incoming, Server, Transport};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", certificate, key] => serve(certificate, key, "127.0.0.1:0").await?,
        ["serve", certificate, key, address] => serve(certificate, key, address).await?,
        ["connect", url, root] => connect(url, &fs::read(root)?).await?,
        _ => return Err("say `serve CERTIFICATE KEY [ADDRESS]` or `connect URL ROOT`".into()),
    }
    Ok(())
}

async fn serve(certificate: &str, key: &str, address: &str) -> Result<(), Error> {
    let tls = ServerTls::from_pem_files(certificate, key)?;
    let server = Server::bind(address).await?.acceptor(Acceptor::new().tls(tls));
    println!("listening on wss://{}/", server.local_addr()?);
    server
        .on_failure(|failure| eprintln!("{failure}"))
        .serve(|incoming: Incoming| async move {
            let mut socket = incoming.accept().await?;
            while let Some(message) = socket.recv().await? {
                socket.send(message).await?;
            }
            Ok::<(), Error>(())
        })
        .await
}

/// Trusts this root and no other.
async fn connect(url: &str, root: &[u8]) -> Result<(), Error> {
    let mut socket = Client::new(url).tls(ClientTls::only_pem(root)?).connect().await?;
    if let Some(tls) = socket.transport(Transport::tls) {
        println!("connected by {:?}", tls.version());
    }
    socket.send("hello").await?;
    if let Some(message) = socket.recv().await? {
        println!("{message}");
    }
    socket.close(CloseCode::NORMAL).await
}
