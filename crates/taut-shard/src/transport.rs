//! What goes through one socket, plain or by TLS.

use std::io::{self, Read, Write};

use taut_proto::Outbox;

use crate::socket::{AnySocket, Socket};

/// A socket, and TLS on it.
pub(crate) struct Transport {
    pub(crate) socket: AnySocket,
    pub(crate) tls: Option<Box<rustls::ServerConnection>>,
    /// There may be more to read.
    pub(crate) readable: bool,
    /// The peer will send no more: a short read is not the last.
    pub(crate) ended: bool,
}

impl Transport {
    pub(crate) fn new(socket: AnySocket, tls: Option<Box<rustls::ServerConnection>>) -> Self {
        Self { socket, tls, readable: false, ended: false }
    }

    /// Reads what has come: how many bytes, 0 at the end, `None` when there is nothing now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_once(buffer.len(), |socket| socket.read(buffer))
    }

    /// As [`read`](Self::read), appended to `buffer`, as much as it has room for.
    pub(crate) fn read_append(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        self.read_once(buffer.capacity() - buffer.len(), |socket| socket.read_append(buffer))
    }

    fn read_once(
        &mut self,
        room: usize,
        mut read: impl FnMut(&mut AnySocket) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        loop {
            return match read(&mut self.socket) {
                Ok(count) => {
                    // Readiness is told by the edge; a read that leaves room has taken everything.
                    if count < room && !self.ended {
                        self.readable = false;
                    }
                    Ok(Some(count))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    Ok(None)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
        }
    }

    /// Writes what the socket takes; whether nothing is left.
    pub(crate) fn write(&mut self, outbox: &mut Outbox) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return write_plain(&mut self.socket, outbox);
        };
        loop {
            while !outbox.is_empty() {
                let taken = tls.writer().write(outbox.front())?;
                if taken == 0 {
                    break;
                }
                outbox.consume(taken);
            }
            if !write_tls(&mut self.socket, tls)? {
                return Ok(false);
            }
            if outbox.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Writes what TLS itself has to say: the handshake, an alert.
    pub(crate) fn write_tls(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) => write_tls(&mut self.socket, tls),
            None => Ok(true),
        }
    }

    /// Ends our side; false when TLS has still to say so and there is no room.
    pub(crate) fn shutdown(&mut self) -> io::Result<bool> {
        if let Some(tls) = &mut self.tls {
            // Said once, however often it is asked for.
            tls.send_close_notify();
            if !write_tls(&mut self.socket, tls)? {
                return Ok(false);
            }
        }
        self.socket.shutdown_write().map(|()| true)
    }
}

fn write_plain(socket: &mut impl Write, outbox: &mut Outbox) -> io::Result<bool> {
    while !outbox.is_empty() {
        let front = outbox.front();
        // Mostly there is but one piece, and a vectored write costs the kernel more.
        let written = if front.len() == outbox.len() {
            socket.write(front)
        } else {
            let (slices, count) = outbox.slices::<SLICES>();
            socket.write_vectored(&slices[..count])
        };
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => outbox.consume(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn write_tls(socket: &mut impl Write, tls: &mut rustls::ServerConnection) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Decrypts one read into `plain`, which has room for it and a record; how many bytes that gave, and whether the peer
/// has said by TLS that no more will come.
pub(crate) fn decrypt(
    tls: &mut rustls::ServerConnection,
    mut read: &[u8],
    plain: &mut [u8],
) -> io::Result<(usize, bool)> {
    let mut filled = 0;
    while !read.is_empty() {
        tls.read_tls(&mut read)?;
        tls.process_new_packets().map_err(io::Error::other)?;
        if take_plain(tls, plain, &mut filled)? {
            return Ok((filled, true));
        }
    }
    Ok((filled, false))
}

/// Takes what has been decrypted already into `plain`, from `filled` on, as far as there is room; whether the peer has
/// said by TLS that no more will come.
pub(crate) fn take_plain(tls: &mut rustls::ServerConnection, plain: &mut [u8], filled: &mut usize) -> io::Result<bool> {
    while *filled < plain.len() {
        match tls.reader().read(&mut plain[*filled..]) {
            Ok(0) => return Ok(true),
            Ok(count) => *filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// What decrypting may give beyond the read itself: a record of which all but the end came before.
pub(crate) const RECORD: usize = 16 << 10;

/// Slices of one vectored write.
const SLICES: usize = 16;
