//! One connection to a server of NATS.
//!
//! It does not connect again, subscribe again or keep what it could not send: a session ends with its connection, and nothing that was written
//! under an incarnation may arrive after others have begun to go on without it. That is what clients of NATS usually do, and why this one is ours.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::login::Credentials;
use super::protocol::{Connect, Info, Malformed, Message, Said, Writer};
use super::url::{Address, Login, Server};

/// A connection that was accepted. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    outgoing: UnboundedSender<Vec<u8>>,
    reading: AbortHandle,
    writing: AbortHandle,
    /// Bytes of a message and its headers.
    pub(super) max_payload: usize,
}

/// Takes what a connection reads. Nothing here waits.
pub(super) trait Receiver: Send + 'static {
    fn message(&mut self, message: Message<'_>);

    /// Nothing comes any more.
    fn lost(&mut self, why: Lost);
}

/// Why there is no connection.
#[derive(Debug)]
pub(in crate::cluster) enum Lost {
    /// The server has closed it.
    Closed,
    Io(io::Error),
    /// The server shuts down, and asks its clients to go elsewhere.
    Leaving,
    /// What the server says is wrong, such as the login, or a subject that this login may not use.
    Server(String),
    Protocol(Malformed),
    Host(InvalidDnsNameError),
    Certificates(String),
    /// The file with the credentials.
    Credentials(String),
    Timeout,
    /// It is older than version 2.2.
    Old,
}

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => formatter.write_str("the server has closed the connection"),
            Self::Io(error) => error.fmt(formatter),
            Self::Leaving => formatter.write_str("the server shuts down"),
            Self::Server(text) => write!(formatter, "the server says: {text}"),
            Self::Protocol(malformed) => malformed.fmt(formatter),
            Self::Host(error) => error.fmt(formatter),
            Self::Certificates(text) => write!(formatter, "the certificates of this system: {text}"),
            Self::Credentials(text) => write!(formatter, "the file with the credentials: {text}"),
            Self::Timeout => formatter.write_str("the server does not answer"),
            Self::Old => formatter.write_str("the server is too old: it knows no headers"),
        }
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for Lost {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed)
    }
}

impl Connection {
    /// Connects to one of the servers: to the first that accepts, beginning anywhere.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub(super) async fn open(
        address: &Address,
        name: &str,
        patience: Duration,
        receiver: impl Receiver,
    ) -> Result<Self, Lost> {
        let servers = &address.servers;
        let first = getrandom::u64().unwrap_or_default() as usize % servers.len();
        let mut last = Lost::Closed;
        for server in servers[first..].iter().chain(&servers[..first]) {
            let opening = Opening::new(server, &address.login, name);
            match timeout(patience, opening).await.unwrap_or(Err(Lost::Timeout)) {
                Ok(opened) => return Ok(Self::run(opened, receiver)),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn run(opened: Opening, receiver: impl Receiver) -> Self {
        let Opening { stream, read, info } = opened;
        let (outgoing, queue) = unbounded_channel();
        let (reader, writer) = split(stream);
        let writing = tokio::spawn(write(writer, queue)).abort_handle();
        let reading = tokio::spawn(hear(reader, read, outgoing.clone(), receiver)).abort_handle();
        Self { outgoing, reading, writing, max_payload: info.max_payload }
    }

    /// Sends this behind all that was sent before. Never waits: who sends sees to it that not too much is under way.
    pub(super) fn send(&self, bytes: Vec<u8>) {
        // When it is lost, the reader has told so.
        let _ = self.outgoing.send(bytes);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reading.abort();
        self.writing.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection on its way.
struct Opening {
    stream: Box<dyn Stream>,
    /// What has been read and is not used yet.
    read: Vec<u8>,
    info: Info,
}

impl Opening {
    async fn new(server: &Server, login: &Login, name: &str) -> Result<Self, Lost> {
        let stream = TcpStream::connect((&*server.host, server.port)).await?;
        stream.set_nodelay(true)?;
        // A connection that is given up takes along what it has not sent: once the network is back, the kernel would bring it to the server behind what
        // was sent by the next connection.
        stream.set_zero_linger()?;
        let mut opening = Self { stream: Box::new(stream), read: Vec::new(), info: Info::default() };
        opening.info = opening.greeting().await?;
        if !opening.info.headers {
            return Err(Lost::Old);
        }
        let is_encrypted = server.is_encrypted || opening.info.tls_required;
        if is_encrypted {
            opening.stream = encrypt(opening.stream, &server.host).await?;
        }
        opening.log_in(login, name, is_encrypted).await?;
        Ok(opening)
    }

    async fn greeting(&mut self) -> Result<Info, Lost> {
        self.next(|said| match said {
            Said::Info(text) => Some(serde_json::from_slice(text).map_err(|_| Lost::Protocol(Malformed))),
            Said::Error(text) => Some(Err(Lost::Server(text))),
            _ => Some(Err(Lost::Protocol(Malformed))),
        })
        .await
    }

    async fn log_in(&mut self, login: &Login, name: &str, tls_required: bool) -> Result<(), Lost> {
        let mut connect = Connect {
            tls_required,
            name,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            protocol: 1,
            headers: true,
            no_responders: true,
            ..Connect::default()
        };
        let (credentials, signature);
        match login {
            Login::Nothing => {}
            Login::User { user, password } => (connect.user, connect.pass) = (Some(&**user), Some(&**password)),
            Login::Token(token) => connect.auth_token = Some(token),
            Login::Credentials(path) => {
                let path = path.clone();
                let text = spawn_blocking(move || std::fs::read_to_string(path)).await;
                let text = text.map_err(io::Error::other).and_then(|read| read);
                let text = text.map_err(|error| Lost::Credentials(error.to_string()))?;
                let no_credentials = || Lost::Credentials("there is no JWT with a seed in it".to_owned());
                credentials = Credentials::parse(&text).map_err(|_| no_credentials())?;
                signature = credentials.sign(self.info.nonce.as_deref().unwrap_or_default());
                (connect.jwt, connect.sig) = (Some(&*credentials.jwt), Some(&*signature));
            }
        }
        let mut writer = Writer::default();
        writer.connect(&connect);
        writer.ping();
        self.stream.write_all(&writer.take()).await?;
        self.stream.flush().await?;
        self.next(|said| match said {
            Said::Pong => Some(Ok(())),
            Said::Error(text) => Some(Err(Lost::Server(text))),
            _ => None,
        })
        .await
    }

    /// Reads until something is what is wanted.
    async fn next<T>(&mut self, mut wanted: impl FnMut(Said<'_>) -> Option<Result<T, Lost>>) -> Result<T, Lost> {
        loop {
            while let Some((said, taken)) = Said::read(&self.read)? {
                let found = wanted(said);
                self.read.drain(..taken);
                if let Some(found) = found {
                    return found;
                }
            }
            self.read.reserve(READ);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(Lost::Closed);
            }
        }
    }
}

async fn encrypt(stream: Box<dyn Stream>, host: &str) -> Result<Box<dyn Stream>, Lost> {
    let config = spawn_blocking(tls).await.map_err(io::Error::other)??;
    let host = ServerName::try_from(host.to_owned()).map_err(Lost::Host)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(host, stream).await?))
}

/// Trusts whom this system trusts, so also what `SSL_CERT_FILE` names.
fn tls() -> Result<ClientConfig, Lost> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if let (true, Some(error)) = (roots.is_empty(), found.errors.first()) {
        return Err(Lost::Certificates(error.to_string()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| Lost::Certificates(error.to_string()))?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

async fn write(mut stream: WriteHalf<Box<dyn Stream>>, mut queue: UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        // The reader notices as well.
        if written.await.is_err() {
            return;
        }
    }
}

async fn hear(
    stream: ReadHalf<Box<dyn Stream>>,
    read: Vec<u8>,
    outgoing: UnboundedSender<Vec<u8>>,
    mut receiver: impl Receiver,
) {
    let ended = hear_until(stream, read, &outgoing, &mut receiver).await;
    receiver.lost(ended.err().unwrap_or(Lost::Closed));
}

async fn hear_until(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut read: Vec<u8>,
    outgoing: &UnboundedSender<Vec<u8>>,
    receiver: &mut impl Receiver,
) -> Result<(), Lost> {
    loop {
        let mut at = 0;
        while let Some((said, taken)) = Said::read(&read[at..])? {
            at += taken;
            match said {
                Said::Message(message) => receiver.message(message),
                Said::Ping => {
                    let mut writer = Writer::default();
                    writer.pong();
                    let _ = outgoing.send(writer.take());
                }
                Said::Error(text) => return Err(Lost::Server(text)),
                Said::Info(text) => {
                    let info: Info = serde_json::from_slice(text).map_err(|_| Malformed)?;
                    if info.ldm {
                        return Err(Lost::Leaving);
                    }
                }
                Said::Pong | Said::Ok => {}
            }
        }
        read.drain(..at);
        if read.is_empty() && read.capacity() > LARGE {
            read = Vec::new();
        }
        read.reserve(READ);
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// Room for the next read.
const READ: usize = 16 << 10;

/// A buffer that has grown to this for one message is given back.
const LARGE: usize = 1 << 20;
