//! Before anything is measured: does every subscriber get every event once, in order and unchanged?

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};

use measure::Outcome;
use measure::connect::{open, shake_hands};
use measure::frame::{Frame, NORMAL_CLOSE, opcode, push_masked};
use serde_json::Value;

use crate::messages::{self, EVENT, PATH, channel, data};
use crate::publisher::{Answered, answered};

/// Publishes over several connections to several channels, in turn, and compares every event with what was published.
///
/// Subscribers are spread over the nodes. All publishers go to the first: what is published on several nodes has no order.
pub(crate) fn verify(addresses: &[SocketAddr]) -> Outcome<()> {
    let address = addresses[0];
    let mut clients = (0..CHANNELS * SUBSCRIBERS)
        .map(|number| Client::subscribed(addresses[number / CHANNELS % addresses.len()], number % CHANNELS))
        .collect::<Outcome<Vec<_>>>()?;
    let mut publishers = (0..PUBLISHERS).map(|number| open(address, number)).collect::<Result<Vec<_>, _>>()?;
    for sequence in 0..EVENTS {
        let request = messages::publish(address, &channel(sequence % CHANNELS), &data(sequence))?;
        let publisher = &mut publishers[sequence % PUBLISHERS];
        if publish(publisher, &request)? == Answered::AndOver {
            *publisher = open(address, 0)?;
        }
    }
    for client in &mut clients {
        for sequence in (client.channel..EVENTS).step_by(CHANNELS) {
            client.expect_event(sequence)?;
        }
        client.close()?;
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    /// What came with the answer to the handshake, and then the stream.
    unread: Cursor<Vec<u8>>,
    channel: usize,
}

impl Client {
    fn subscribed(address: SocketAddr, channel: usize) -> Outcome<Self> {
        let mut stream = open(address, 0)?;
        let unread = Cursor::new(shake_hands(&mut stream, address, PATH)?);
        let mut client = Self { stream, unread, channel };
        let name = messages::channel(channel);

        let established = client.message()?;
        expect(&established, "event", "pusher:connection_established")?;
        let data: Value = serde_json::from_str(established["data"].as_str().ok_or("its data is no string")?)?;
        if data["socket_id"].as_str().is_none_or(|id| !id.contains('.')) || data["activity_timeout"].as_u64().is_none()
        {
            return Err(format!("a client is greeted by {data}").into());
        }

        client.stream.write_all(&messages::subscribe(&name))?;
        let succeeded = client.message()?;
        expect(&succeeded, "event", "pusher_internal:subscription_succeeded")?;
        expect(&succeeded, "channel", &name)?;
        Ok(client)
    }

    fn expect_event(&mut self, sequence: usize) -> Outcome<()> {
        let message = self.message().map_err(|error| format!("event {sequence}: {error}"))?;
        expect(&message, "event", EVENT)?;
        expect(&message, "channel", &channel(self.channel))?;
        expect(&message, "data", &data(sequence))
    }

    fn message(&mut self) -> Outcome<Value> {
        let frame = self.frame()?;
        if frame.opcode != opcode::TEXT || !frame.last {
            return Err(format!("a whole text message should come, but it is {frame:?}").into());
        }
        Ok(serde_json::from_slice(&frame.payload)?)
    }

    fn frame(&mut self) -> Outcome<Frame> {
        Ok(Frame::read(&mut (&mut self.unread).chain(&mut self.stream))?)
    }

    /// What comes after the events is the close, and not one of them again.
    fn close(&mut self) -> Outcome<()> {
        let mut out = Vec::new();
        push_masked(&mut out, opcode::CLOSE, &NORMAL_CLOSE, [5, 6, 7, 8]);
        self.stream.write_all(&out)?;
        let frame = self.frame()?;
        if frame.opcode != opcode::CLOSE {
            return Err(format!("after its last event a client got {frame:?}").into());
        }
        Ok(())
    }
}

fn publish(stream: &mut TcpStream, request: &[u8]) -> Outcome<Answered> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Err("a publisher's connection was ended before it was answered".into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
        if let Some(answered) = answered(&answer)? {
            return Ok(answered);
        }
    }
}

fn expect(message: &Value, member: &str, expected: &str) -> Outcome<()> {
    if message[member] == expected {
        Ok(())
    } else {
        Err(format!("its {member:?} should be {expected:?}: {message}").into())
    }
}

const CHANNELS: usize = 3;
const SUBSCRIBERS: usize = 4;
const PUBLISHERS: usize = 2;
const EVENTS: usize = 300;
