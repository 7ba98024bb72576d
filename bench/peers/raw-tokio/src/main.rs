//! A raw TCP echo server on tokio's current-thread runtime: a task for each connection, no protocol at all.
//!
//! What it falls short of the raw echo over `mio` is tokio's; no library on tokio can be expected to do better than this.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
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

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    while let Some(unwritten) =
        poll_fn(|cx| BUFFER.with_borrow_mut(|buffer| poll_echo(&mut stream, buffer, cx))).await?
    {
        // Nothing more is read until the kernel has taken it, so it never exceeds one buffer.
        stream.write_all(&unwritten).await?;
    }
    Ok(())
}

/// Writes back what one read brings and gives what the kernel did not take; `None` says that the peer has ended the stream.
///
/// It polls rather than tries: only so does tokio take a short read for the last, and spares the one that finds nothing.
fn poll_echo(stream: &mut TcpStream, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
    let mut read = ReadBuf::new(buffer);
    ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
    let read = read.filled();
    let written = match stream.try_write(read) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        written => written?,
    };
    Poll::Ready(Ok((!read.is_empty()).then(|| read[written..].to_vec())))
}

thread_local! {
    /// One buffer for all connections: what is read is written before the next read.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}
