//! The client of the library as the programs of others see it: echoes, a ping, fragments and a close, then a line of
//! JSON that says how it went.
//!
//! ```sh
//! cargo build --release -p taut --example peers-client
//! interop/peers/test
//! ```

use std::error::Error;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use taut::tls::ClientTls;
use taut::{Client, Close, CloseCode, Deflate, Heartbeat, Message, Proxy, Settings, WebSocket};
use tokio::time::{sleep, timeout};

const USAGE: &str = "usage: peers-client URL [--ca FILE] [--proxy URL] [--deflate] [--bearer TOKEN]
    [--heartbeat MILLISECONDS] [--idle MILLISECONDS]
  --ca         whom to trust alone, be it the server or the proxy; goes before --proxy
  --heartbeat  how long the connection may be silent before a ping; 0 for no pings; 20000 by default
  --idle       only stay connected for so long, without a message, then ask for an echo";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Visit::parse(std::env::args().skip(1)) {
        Ok(visit) => timeout(PATIENCE, visit.run()).await.unwrap_or_else(|_| Err("the server did not answer".into())),
        Err(wrong) => {
            eprintln!("peers-client: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", failure(&*error));
            ExitCode::FAILURE
        }
    }
}

/// One connection, from its handshake to its close.
struct Visit {
    client: Client,
    idle: Option<Duration>,
}

impl Visit {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let url = arguments.next().ok_or("which server?")?;
        let (mut client, mut settings, mut idle) = (Client::new(&url), Settings::client(), None);
        let mut tls = ClientTls::system();
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
            match option.as_str() {
                "--ca" => tls = ClientTls::only_pem(&std::fs::read(value()?)?)?,
                "--proxy" => client = client.proxy(proxy(&value()?)?.tls(tls.clone())),
                "--deflate" => client = client.deflate(Deflate::default()),
                "--bearer" => client = client.bearer(&value()?),
                "--heartbeat" => settings.heartbeat = heartbeat(value()?.parse()?),
                "--idle" => idle = Some(Duration::from_millis(value()?.parse()?)),
                _ => return Err(format!("{option} is not understood").into()),
            }
        }
        Ok(Self { client: client.tls(tls).settings(settings), idle })
    }

    async fn run(self) -> Result<String, Box<dyn Error>> {
        let mut socket = self.client.connect().await?;
        let mut report = String::new();
        if let Some(time) = self.idle {
            idle(&mut socket, time).await?;
        } else {
            let extensions = ask(&mut socket, "please: extensions").await?;
            let payload = ask(&mut socket, "please: ping").await?;
            let fragments = ask(&mut socket, "please: fragments").await?;
            let count = exchange(&mut socket).await?;
            write!(report, r#""echoes":{count},"extensions":{},"#, json(&extensions))?;
            write!(report, r#""pong":{},"fragments":{},"#, json(&payload), json(&fragments))?;
        }
        socket.close(Close::new(CloseCode::new(4001), "done")).await?;
        let close = socket.peer_close().ok_or("the server did not answer our close frame")?;
        Ok(format!(r#"{{{report}"code":{},"reason":{}}}"#, close.code().as_u16(), json(close.reason())))
    }
}

/// Sends messages of every kind and length, whole and in parts, and wants each back, byte by byte. How many there were.
async fn exchange(socket: &mut WebSocket) -> Result<usize, Box<dyn Error>> {
    let mut count = 0;
    for length in LENGTHS {
        for message in [Message::Text(text(length).into()), Message::Binary(bytes(length).into())] {
            socket.send(message.clone()).await?;
            same(&message, &receive(socket).await?)?;
            count += 1;
        }
    }
    let parts = bytes(3 * PART);
    let mut writer = socket.send_stream();
    for part in parts.chunks(PART) {
        writer.write(part).await?;
    }
    writer.finish().await?;
    same(&Message::Binary(parts.into()), &receive(socket).await?)?;
    Ok(count + 1)
}

/// Says nothing for a while, which is not to be noticed by the server: only what is between may look at pings.
async fn idle(socket: &mut WebSocket, time: Duration) -> Result<(), Box<dyn Error>> {
    tokio::select! {
        () = sleep(time) => {}
        early = socket.recv() => return Err(match early {
            Err(error) => error.into(),
            Ok(Some(_)) => "the server sent something unasked".into(),
            Ok(None) => "the server closed the connection".into(),
        }),
    }
    socket.send("still here").await?;
    same(&"still here".into(), &receive(socket).await?)
}

/// The server's answer to one of the few messages that it does not echo.
async fn ask(socket: &mut WebSocket, question: &str) -> Result<String, Box<dyn Error>> {
    socket.send(question).await?;
    Ok(receive(socket).await?.as_text().ok_or("the server's answer is not text")?.to_owned())
}

async fn receive(socket: &mut WebSocket) -> Result<Message<'static>, Box<dyn Error>> {
    Ok(socket.recv().await?.ok_or("the server closed the connection before it had answered")?)
}

fn same(sent: &Message<'_>, received: &Message<'_>) -> Result<(), Box<dyn Error>> {
    if sent == received {
        return Ok(());
    }
    let kind = |message: &Message<'_>| if message.as_text().is_some() { "text" } else { "binary" };
    let lengths = [sent, received].map(|message| message.as_bytes().len());
    let differs = sent.as_bytes().iter().zip(received.as_bytes()).position(|(one, other)| one != other);
    Err(format!(
        "sent {} bytes of {}, but received {} bytes of {}, which differ first at {differs:?}",
        lengths[0],
        kind(sent),
        lengths[1],
        kind(received)
    )
    .into())
}

/// Text of this many bytes, with characters of one to four of them.
fn text(length: usize) -> String {
    const SAMPLE: &str = "Grüße, 漢字 👩 ";
    let mut text = SAMPLE.repeat(length / SAMPLE.len() + 1);
    while text.len() > length {
        text.pop();
    }
    let missing = length - text.len();
    text + &"x".repeat(missing)
}

/// Bytes that cannot be compressed (xorshift).
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn proxy(url: &str) -> Result<Proxy, taut::Error> {
    if url.starts_with("socks5") { Proxy::socks5(url) } else { Proxy::http(url) }
}

fn heartbeat(milliseconds: u64) -> Heartbeat {
    match milliseconds {
        0 => Heartbeat::off(),
        _ => Heartbeat { interval: Duration::from_millis(milliseconds), timeout: Duration::from_secs(5) },
    }
}

/// What is wrong, as people and as programmers get to see it, and its numbers.
fn failure(error: &(dyn Error + 'static)) -> String {
    let known = error.downcast_ref::<taut::Error>();
    let number = |number: Option<u16>| number.map_or_else(|| "null".to_owned(), |number| number.to_string());
    format!(
        r#"{{"error":{},"debug":{},"status":{},"code":{}}}"#,
        json(&error.to_string()),
        json(&format!("{error:?}")),
        number(known.and_then(taut::Error::status)),
        number(known.and_then(taut::Error::close_code).map(CloseCode::as_u16)),
    )
}

fn json(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            // Into a `String` it cannot fail.
            '\0'..='\x1f' => _ = write!(out, "\\u{:04x}", u32::from(character)),
            _ => out.push(character),
        }
    }
    out + "\""
}

/// Around the borders of a frame's three kinds of length (RFC 6455 §5.2).
const LENGTHS: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];

/// Bytes of each part of the message that is sent in parts.
const PART: usize = 70_000;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(30);
