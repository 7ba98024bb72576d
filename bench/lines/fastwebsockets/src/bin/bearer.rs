//! Connects by TLS with a bearer token, says hello, prints the texts that come.

use std::sync::Arc;

use bytes::Bytes;
use fastwebsockets::handshake::{client, generate_key};
use fastwebsockets::{FragmentCollector, Frame, OpCode};
use http_body_util::Empty;
use hyper::Request;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

type Problem = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let mut socket = connect("api.example", "/v1", "t0ken").await?;
    socket.write_frame(Frame::text(b"hello"[..].into())).await?;
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text => println!("{}", String::from_utf8_lossy(&frame.payload)),
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}

async fn connect(host: &str, path: &str, token: &str) -> Result<FragmentCollector<TokioIo<Upgraded>>, Problem> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect((host, 443)).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(host.to_owned().try_into()?, stream).await?;
    let request = Request::get(path)
        .header("Host", host)
        .header("Upgrade", "websocket")
        .header("Connection", "Upgrade")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Version", "13")
        .header("Authorization", format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())?;
    let (socket, _) = client(&TokioExecutor::new(), request, stream).await?;
    Ok(FragmentCollector::new(socket))
}
