//! What every stack must do before it is measured.

use measure::Outcome;
use measure::connect;
use measure::frame::{Frame, NORMAL_CLOSE, opcode, push_masked};
use measure::server::Server;

use crate::crowd::Crowd;
use crate::peers::Protocol;

/// Whether the stack answers many connections at a time, and gives texts back as they are.
pub(crate) fn verify(protocol: Protocol, server: &Server) -> Outcome<()> {
    let mut crowd = Crowd::connect(protocol, server, CONNECTIONS)?;
    for _ in 0..ROUNDS {
        crowd.exchange()?;
    }
    crowd.close()?;
    if protocol != Protocol::WebSocket {
        return Ok(());
    }

    let mut stream = connect::open(server.address(), 0)?;
    let behind = connect::shake_hands(&mut stream, server.address(), "/echo")?;
    let mut stream = Behind { bytes: behind.as_slice(), stream: &mut stream };
    for text in texts() {
        stream.send(opcode::TEXT, text.as_bytes())?;
        let expected = Frame { last: true, opcode: opcode::TEXT, payload: text.clone().into_bytes() };
        if Frame::read(&mut stream)? != expected {
            return Err(format!("a text of {} bytes came back changed", text.len()).into());
        }
    }
    stream.send(opcode::CLOSE, &NORMAL_CLOSE)?;
    let close = Frame::read(&mut stream)?;
    if close.opcode != opcode::CLOSE || !close.payload.starts_with(&NORMAL_CLOSE) {
        return Err(format!("it answered a close with {close:?}").into());
    }
    Ok(())
}

/// At each length of a frame's length, and with what JSON has to escape.
fn texts() -> Vec<String> {
    let lengths = [1, 125, 126, 10_000].map(|length| "x".repeat(length));
    let special = ["\"quoted\" \\ and/or \t\r\n", "Grüße, 世界 🎈", "{\"json\":[1,2]}"].map(str::to_owned);
    lengths.into_iter().chain(special).collect()
}

/// A stream of which something was read already.
struct Behind<'a> {
    bytes: &'a [u8],
    stream: &'a mut std::net::TcpStream,
}

impl Behind<'_> {
    fn send(&mut self, kind: u8, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = Vec::new();
        push_masked(&mut frame, kind, payload, [0x37, 0xFA, 0x21, 0x3D]);
        std::io::Write::write_all(self.stream, &frame)
    }
}

impl std::io::Read for Behind<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.is_empty() { self.stream.read(buffer) } else { self.bytes.read(buffer) }
    }
}

const CONNECTIONS: usize = 20;
const ROUNDS: usize = 5;
