//! A raw TCP echo server on tokio's current-thread runtime: a task for each connection, no protocol at all.
//!
//! What it falls short of the raw echo over `mio` is tokio's; no library on tokio can be expected to do better than this.

use std::cell::RefCell;
use std::io::{self, ErrorKind};

use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A peer that goes away, however rudely, ends its own task and nothing else.
        tokio::spawn(echo(stream));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        stream.readable().await?;
        let Some(mut unwritten) = BUFFER.with_borrow_mut(|buffer| echo_once(&stream, buffer))? else { return Ok(()) };
        // Nothing more is read until the kernel has taken it, so it never exceeds one buffer.
        while !unwritten.is_empty() {
            stream.writable().await?;
            let written = write_some(&stream, &unwritten)?;
            unwritten.drain(..written);
        }
    }
}

/// Writes back what one read brings and gives what the kernel did not take; `None` says that the peer has ended the stream.
fn echo_once(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
    let read = match stream.try_read(buffer) {
        Ok(0) => return Ok(None),
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    let written = write_some(stream, &buffer[..read])?;
    Ok(Some(buffer[written..read].to_vec()))
}

/// Writes until the kernel takes no more; the answer is how much it took.
fn write_some(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.try_write(&bytes[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

thread_local! {
    /// One buffer for all connections: what is read is written before the next read.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}
