//! What comes from the user: by a pipe, or from the prompt.

use std::io::{self, BufRead, Read};
use std::thread;

use taut::{Close, Message};
use tokio::runtime::Handle;

use super::format::Binary;
use crate::queue::{self, Receiver, Sender};

/// Something that the user wants.
#[derive(Debug)]
pub(super) enum Input {
    Send(Message<'static>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Close),
    ToggleJson,
    /// The input cannot be read, or is not what it should be. Nothing follows.
    Wrong(String),
}

impl Input {
    fn size(&self) -> usize {
        match self {
            Self::Send(message) => message.as_bytes().len(),
            _ => 0,
        }
    }
}

/// Hands inputs from a thread to the session; waits while the session does not keep up.
pub(super) struct InputSender {
    sender: Sender<Input>,
    runtime: Handle,
}

impl InputSender {
    /// Returns false once the receiver is gone.
    pub(super) fn send(&self, input: Input) -> bool {
        let size = input.size();
        self.runtime.block_on(self.sender.send(input, size))
    }
}

/// Runs `read` in a thread; what it sends is received here, and the end of it is the end of the input.
pub(super) fn in_thread(read: impl FnOnce(&InputSender) + Send + 'static) -> Receiver<Input> {
    let (sender, receiver) = queue::queue();
    let sender = InputSender { sender, runtime: Handle::current() };
    thread::spawn(move || read(&sender));
    receiver
}

/// An input that ends at once.
pub(super) fn none() -> Receiver<Input> {
    queue::queue().1
}

/// Reads stdin to its end: a message a line, or as `binary` says, of at most `limit` bytes.
pub(super) fn from_pipe(binary: Option<Binary>, limit: usize) -> Receiver<Input> {
    in_thread(move |sender| {
        let mut stdin = io::stdin().lock();
        let mut number = 0_u64;
        loop {
            number += 1;
            let input = match next_message(&mut stdin, binary, limit) {
                Ok(Some(message)) => Input::Send(message),
                Ok(None) => return,
                Err(wrong) if binary == Some(Binary::Raw) => Input::Wrong(wrong),
                Err(wrong) => Input::Wrong(format!("message {number} of the input: {wrong}")),
            };
            let is_last = matches!(input, Input::Wrong(_));
            if !sender.send(input) || is_last {
                return;
            }
        }
    })
}

fn next_message(
    input: &mut impl BufRead,
    binary: Option<Binary>,
    limit: usize,
) -> Result<Option<Message<'static>>, String> {
    match binary {
        Some(Binary::Raw) => next_chunk(input, limit),
        Some(Binary::Length) => next_with_length(input, limit),
        _ => {
            // A byte as hexadecimal has two digits, and there may be spaces.
            let factor = if binary.is_some() { 3 } else { 1 };
            let Some(line) = next_line(input, limit.saturating_mul(factor))? else { return Ok(None) };
            let line = String::from_utf8(line).map_err(|_| "it is not UTF-8; --binary sends bytes")?;
            match binary {
                Some(binary) => Ok(Some(Message::from(binary.read_line(&line)?))),
                None => Ok(Some(Message::from(line))),
            }
        }
    }
}

/// A line without its end.
fn next_line(input: &mut impl BufRead, limit: usize) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    // The end of the line may have two bytes.
    input.by_ref().take((limit as u64).saturating_add(2)).read_until(b'\n', &mut line).map_err(unreadable)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.ends_with(b"\n") {
        line.pop();
    }
    if line.ends_with(b"\r") {
        line.pop();
    }
    if line.len() > limit {
        return Err(format!("it has more than {limit} bytes; --max-size allows more"));
    }
    Ok(Some(line))
}

fn next_chunk(input: &mut impl BufRead, limit: usize) -> Result<Option<Message<'static>>, String> {
    let mut chunk = vec![0; CHUNK.min(limit)];
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => {
                chunk.truncate(count);
                return Ok(Some(Message::from(chunk)));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
}

fn next_with_length(input: &mut impl BufRead, limit: usize) -> Result<Option<Message<'static>>, String> {
    if input.fill_buf().map_err(unreadable)?.is_empty() {
        return Ok(None);
    }
    let mut prefix = [0; 4];
    input.read_exact(&mut prefix).map_err(|_| "the input ends within a length of 4 bytes")?;
    let length = u32::from_be_bytes(prefix) as usize;
    if length > limit {
        return Err(format!("it announces {length} bytes; --max-size allows {limit}"));
    }
    let mut payload = Vec::new();
    input.by_ref().take(length as u64).read_to_end(&mut payload).map_err(unreadable)?;
    if payload.len() < length {
        return Err(format!("it announces {length} bytes, and the input ends after {}", payload.len()));
    }
    Ok(Some(Message::from(payload)))
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(error: io::Error) -> String {
    format!("the input cannot be read: {error}")
}

/// Bytes of a message with `--binary raw`.
const CHUNK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each message, and at last what is wrong.
    fn all(mut input: &[u8], binary: Option<Binary>) -> (Vec<Message<'static>>, Option<String>) {
        let mut messages = Vec::new();
        loop {
            match next_message(&mut input, binary, 100) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, None),
                Err(wrong) => return (messages, Some(wrong)),
            }
        }
    }

    #[test]
    fn each_line_is_a_message() {
        let (messages, wrong) = all(b"one\r\n\ntwo words\nlast", None);
        assert_eq!((messages, wrong), (vec!["one".into(), "".into(), "two words".into(), "last".into()], None));
        let (messages, wrong) = all(&[b"one\n".as_slice(), &[0xff], b"\n"].concat(), None);
        assert!(messages.len() == 1 && wrong.unwrap().contains("--binary"));
        assert_eq!(all(&[b'x'; 100], None).0.len(), 1);
        assert!(all(&[b'x'; 101], None).1.unwrap().contains("--max-size"));
        assert!(all(&[b'x'; 1000], None).1.unwrap().contains("--max-size"));
    }

    #[test]
    fn binary_forms_are_read() {
        let bytes = |bytes: &[u8]| Message::from(bytes.to_vec());
        assert_eq!(all(b"dead\nBE EF\n", Some(Binary::Hex)).0, [bytes(&[0xde, 0xad]), bytes(&[0xbe, 0xef])]);
        assert_eq!(all(b"3q0=\n", Some(Binary::Base64)).0, [bytes(&[0xde, 0xad])]);
        assert_eq!(all(b"a\nb", Some(Binary::Raw)).0, [bytes(b"a\nb")]);
        let prefixed = b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c";
        assert_eq!(all(prefixed, Some(Binary::Length)), (vec![bytes(b"ab"), bytes(b""), bytes(b"c")], None));
        for (input, part) in
            [(&b"\0\0"[..], "within a length"), (b"\0\0\0\x05ab", "ends after 2"), (b"\xff\0\0\0", "--max-size")]
        {
            assert!(all(input, Some(Binary::Length)).1.unwrap().contains(part), "{part}");
        }
        assert!(all(b"xyz\n", Some(Binary::Hex)).1.unwrap().contains("hexadecimal"));
    }
}
