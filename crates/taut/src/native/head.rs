//! Reads the head of a request or a response.

use taut_proto::handshake::{HeadLimits, HeadScan, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Error;
use crate::error::Doing;

/// A head that is being read.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// What has come: the head and the beginning of what follows it.
    pub(crate) bytes: Vec<u8>,
    scan: HeadScan,
}

impl Head {
    /// A head of which something has come already.
    pub(crate) fn begun(bytes: Vec<u8>) -> Self {
        Self { bytes, scan: HeadScan::new() }
    }

    /// Reads until the head is complete: where it ends, or why it will not do.
    pub(crate) async fn read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        limits: &HeadLimits,
    ) -> Result<Result<usize, Refusal>, Error> {
        loop {
            match self.scan.find(&self.bytes, limits) {
                Ok(None) => {}
                Ok(Some(end)) => return Ok(Ok(end)),
                Err(refusal) => return Ok(Err(refusal)),
            }
            self.bytes.reserve(ROOM);
            let count = stream.read_buf(&mut self.bytes).await.map_err(|error| Error::io(Doing::Opening, error))?;
            if count == 0 {
                return Err(Error::io(Doing::Opening, std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What came after the head.
    pub(crate) fn rest(&self, end: usize) -> Vec<u8> {
        self.bytes[end..].to_vec()
    }
}

/// Bytes that there is room for at each read of a head.
const ROOM: usize = 1024;
