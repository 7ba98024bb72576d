//! What one thread lends all its connections.

use std::fmt;

#[cfg(feature = "deflate")]
use crate::deflate::codec::Codec;

/// Mask keys drawn in batches and compressors without history: one for each thread, or for each driver.
///
/// It is why an idle connection owns no buffer and no compressor.
pub struct Scratch {
    fill: fn(&mut [u8]),
    keys: Vec<u8>,
    #[cfg(feature = "deflate")]
    pub(crate) codec: Codec,
}

impl Scratch {
    /// `fill` fills a slice with unpredictable bytes: a generator seeded by the operating system.
    ///
    /// It is called by clients only, about once in 256 frames (RFC 6455 §5.3, §10.3: keys are fresh for each
    /// frame and cannot be predicted).
    pub fn new(fill: fn(&mut [u8])) -> Self {
        Self {
            fill,
            keys: Vec::new(),
            #[cfg(feature = "deflate")]
            codec: Codec::default(),
        }
    }

    pub(crate) fn mask_key(&mut self) -> [u8; 4] {
        if self.keys.is_empty() {
            self.keys.resize(KEY_BATCH, 0);
            (self.fill)(&mut self.keys);
        }
        let at = self.keys.len() - 4;
        let key = [self.keys[at], self.keys[at + 1], self.keys[at + 2], self.keys[at + 3]];
        self.keys.truncate(at);
        key
    }
}

impl fmt::Debug for Scratch {
    // Keys that are still to be used are nobody's to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

/// Bytes drawn at a time: 256 keys.
const KEY_BATCH: usize = 1024;
