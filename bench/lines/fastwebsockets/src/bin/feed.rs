//! Subscribes to a feed and prints it, for ever: notices a server that is gone, and comes back with backoff and jitter.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::handshake::{client, generate_key};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, WebSocket, WebSocketError};
use http_body_util::Empty;
use hyper::Request;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

type Problem = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Problem> {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let Err(problem) = feed().await;
        if let Some(WebSocketError::InvalidStatusCode(400..500)) = problem.downcast_ref() {
            return Err(problem);
        }
        if began.elapsed() > Duration::from_secs(5) {
            failures = 0;
        }
        let window = 500 << failures.min(6);
        failures += 1;
        let delay = Duration::from_millis(100 + rand::random_range(0..=window));
        eprintln!("{problem}; again in {delay:?}");
        sleep(delay).await;
    }
}

async fn feed() -> Result<std::convert::Infallible, Problem> {
    let socket = timeout(Duration::from_secs(10), connect("api.example", "/feed")).await??;
    let (reader, writer) = socket.split(tokio::io::split);
    let (mut reader, writer) = (FragmentCollectorRead::new(reader), Mutex::new(writer));
    let send = async |frame: Frame<'static>| writer.lock().await.write_frame(frame).await;
    send(Frame::text(b"subscribe"[..].into())).await?;
    let mut answer = |frame| async { writer.lock().await.write_frame(frame).await };
    loop {
        // A read that is dropped loses what it has read, so the same one goes on after a ping.
        let mut reading = pin!(reader.read_frame(&mut answer));
        let mut is_pinged = false;
        let frame = loop {
            match timeout(Duration::from_secs(20), &mut reading).await {
                Ok(frame) => break frame?,
                Err(_) if is_pinged => return Err("the server does not answer".into()),
                Err(_) => {
                    send(Frame::new(true, OpCode::Ping, None, Vec::new().into())).await?;
                    is_pinged = true;
                }
            }
        };
        match frame.opcode {
            OpCode::Text => println!("{}", String::from_utf8_lossy(&frame.payload)),
            OpCode::Close => return Err("the server closed the connection".into()),
            _ => {}
        }
    }
}

async fn connect(host: &str, path: &str) -> Result<WebSocket<TokioIo<Upgraded>>, Problem> {
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
        .body(Empty::<Bytes>::new())?;
    let (socket, _) = client(&TokioExecutor::new(), request, stream).await?;
    Ok(socket)
}
