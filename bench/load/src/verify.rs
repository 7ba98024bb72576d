//! Before anything is measured: does the server echo correctly?

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;

use measure::Outcome;
use measure::frame::{Frame, NORMAL_CLOSE, opcode, push_masked, push_unmasked};

use crate::case::{Case, Content};
use crate::connect::connect;
use crate::peers::Speech;

/// Sends messages of every kind and size that matters and compares every byte that comes back.
pub(crate) fn verify(speech: Speech, address: SocketAddr, cases: &[Case]) -> Outcome<()> {
    let mut stream = connect(speech, address, 0)?;
    match speech {
        Speech::Raw => raw(&mut stream),
        Speech::WebSocket => web_socket(&mut stream, cases),
    }
}

fn raw(stream: &mut TcpStream) -> Outcome<()> {
    for length in LENGTHS.into_iter().filter(|length| *length > 0) {
        let sent = every_byte(length);
        stream.write_all(&sent)?;
        let mut received = vec![0; length];
        stream.read_exact(&mut received)?;
        if received != sent {
            return Err(format!("{length} bytes came back changed").into());
        }
    }
    Ok(())
}

fn web_socket(stream: &mut TcpStream, cases: &[Case]) -> Outcome<()> {
    for length in LENGTHS {
        echo(stream, opcode::TEXT, &every_character(length))?;
        echo(stream, opcode::BINARY, &every_byte(length))?;
    }
    for case in cases {
        measured(stream, case)?;
    }
    pipelined(stream)?;
    byte_by_byte(stream)?;
    burst(stream)?;
    ping(stream)?;
    close(stream)
}

fn echo(stream: &mut TcpStream, kind: u8, payload: &[u8]) -> Outcome<()> {
    let mut out = Vec::new();
    push_masked(&mut out, kind, payload, key(payload.len()));
    stream.write_all(&out)?;
    expect_message(stream, kind, payload)
}

/// The next message may come in several frames (RFC 6455 §5.4), but has to be the one that was sent.
fn expect_message(stream: &mut TcpStream, kind: u8, payload: &[u8]) -> Outcome<()> {
    let what = || format!("message of {} bytes, opcode {kind}", payload.len());
    let mut expected_opcode = kind;
    let mut received = Vec::new();
    loop {
        let frame = Frame::read(stream).map_err(|error| format!("{}: {error}", what()))?;
        if frame.opcode != expected_opcode {
            return Err(format!("{}: it came back with opcode {}", what(), frame.opcode).into());
        }
        received.extend_from_slice(&frame.payload);
        if frame.last {
            break;
        }
        expected_opcode = opcode::CONTINUATION;
    }
    if received == payload {
        Ok(())
    } else {
        Err(format!("{}: {} bytes came back, and they differ", what(), received.len()).into())
    }
}

/// The load counts bytes, so at the lengths measured the echo has to be one frame with the shortest header; above them
/// it counts frames.
fn measured(stream: &mut TcpStream, case: &Case) -> Outcome<()> {
    let kind = if case.content == Content::Binary { opcode::BINARY } else { opcode::TEXT };
    let payload = every_character(case.payload);
    if case.may_be_fragmented() {
        return echo(stream, kind, &payload);
    }
    let mut out = Vec::new();
    push_masked(&mut out, kind, &payload, key(1));
    stream.write_all(&out)?;
    let mut expected = Vec::new();
    push_unmasked(&mut expected, kind, &payload);
    let mut received = vec![0; expected.len()];
    stream.read_exact(&mut received)?;
    if received == expected {
        Ok(())
    } else {
        Err(format!("a message of {} bytes does not come back as one plain frame", case.payload).into())
    }
}

fn pipelined(stream: &mut TcpStream) -> Outcome<()> {
    let mut out = Vec::new();
    for length in 0..PIPELINED {
        push_masked(&mut out, opcode::TEXT, &every_character(length), key(length));
    }
    stream.write_all(&out)?;
    for length in 0..PIPELINED {
        expect_message(stream, opcode::TEXT, &every_character(length))
            .map_err(|error| format!("{PIPELINED} messages in one write: {error}"))?;
    }
    Ok(())
}

/// More than the sockets hold: the server has to write in parts, and reads while it does.
fn burst(stream: &mut TcpStream) -> Outcome<()> {
    let payload = |number: usize| every_byte(BURST_LENGTH + number);
    let mut writer = stream.try_clone()?;
    let writing = thread::spawn(move || -> io::Result<()> {
        for number in 0..BURST {
            let mut out = Vec::new();
            push_masked(&mut out, opcode::BINARY, &payload(number), key(number));
            writer.write_all(&out)?;
        }
        Ok(())
    });
    for number in 0..BURST {
        expect_message(stream, opcode::BINARY, &payload(number))
            .map_err(|error| format!("{BURST} messages without a pause: {error}"))?;
    }
    writing.join().map_err(|_| "the writing thread has panicked")??;
    Ok(())
}

fn byte_by_byte(stream: &mut TcpStream) -> Outcome<()> {
    let payload = every_character(200);
    let mut out = Vec::new();
    push_masked(&mut out, opcode::TEXT, &payload, key(3));
    for byte in out {
        stream.write_all(&[byte])?;
    }
    expect_message(stream, opcode::TEXT, &payload).map_err(|error| format!("one byte per write: {error}").into())
}

/// RFC 6455 §5.5.3: the pong carries what the ping carried.
fn ping(stream: &mut TcpStream) -> Outcome<()> {
    let mut out = Vec::new();
    push_masked(&mut out, opcode::PING, b"are you there?", key(4));
    stream.write_all(&out)?;
    let frame = Frame::read(stream)?;
    if frame.opcode == opcode::PONG && frame.last && frame.payload == b"are you there?" {
        Ok(())
    } else {
        Err(format!("a ping was answered by {frame:?}").into())
    }
}

/// RFC 6455 §7.1: close is answered by close with the same code, and the server ends the stream.
fn close(stream: &mut TcpStream) -> Outcome<()> {
    let mut out = Vec::new();
    push_masked(&mut out, opcode::CLOSE, &NORMAL_CLOSE, key(5));
    stream.write_all(&out)?;
    let frame = Frame::read(stream)?;
    if frame.opcode != opcode::CLOSE || frame.payload.get(..2) != Some(&NORMAL_CLOSE) {
        return Err(format!("a close was answered by {frame:?}").into());
    }
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err("it sent something after its close frame".into()),
    }
}

/// On both sides of every border: of the length encodings, of a segment, of common buffers.
const LENGTHS: [usize; 14] = [0, 1, 2, 20, 124, 125, 126, 127, 1460, 4096, 16_384, 65_535, 65_536, 200_000];

const PIPELINED: usize = 100;

/// Some 16 MB in all.
const BURST: usize = 1000;
const BURST_LENGTH: usize = 16_000;

/// A key that has four different bytes, other ones each time.
fn key(seed: usize) -> [u8; 4] {
    let seed = seed as u8;
    [seed ^ 0x5A, seed ^ 0xC3, seed ^ 0x17, seed ^ 0xFE]
}

fn every_byte(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position % 251) as u8).collect()
}

/// Valid UTF-8 of exactly so many bytes, with characters of one to four bytes as long as they fit.
fn every_character(length: usize) -> Vec<u8> {
    let mut text = String::with_capacity(length);
    for character in ['T', 'ä', '€', '🦀', '\n'].into_iter().cycle() {
        if text.len() + character.len_utf8() > length {
            break;
        }
        text.push(character);
    }
    while text.len() < length {
        text.push('.');
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_length_and_are_valid() {
        for length in LENGTHS {
            let text = every_character(length);
            assert_eq!(text.len(), length);
            assert!(String::from_utf8(text).is_ok());
        }
    }

    #[test]
    fn a_key_masks_with_four_different_bytes() {
        for seed in 0..300 {
            let mut key = key(seed);
            key.sort_unstable();
            assert!(key.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }
}
