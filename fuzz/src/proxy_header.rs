//! Any bytes as a PROXY header: no panic, the same verdict in any reads, and nothing of what follows it.
//!
//! Input: one octet that chooses the limit, then what a socket receives.

use taut_shard::testing::proxy_header;

use crate::Octets;

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut octets = Octets::new(data);
    let limit = if octets.octet() & 1 == 0 { 16 << 10 } else { 64 };
    let received = octets.rest();
    let whole = proxy_header(received, limit);
    // Once it is decided, more bytes change nothing; before that, it asks for more.
    for end in 0..=received.len().min(MOST_READS) {
        let verdict = proxy_header(&received[..end], limit);
        if verdict == Ok(None) {
            continue;
        }
        assert_eq!(verdict, whole, "after {end} bytes");
        if let Ok(Some((length, _))) = verdict {
            assert_eq!(length, end, "neither a byte less nor one more");
            assert!(length <= limit.max(LONGEST_LINE));
        }
        break;
    }
}

const MOST_READS: usize = 1000;

/// PROXY protocol §2.1.
const LONGEST_LINE: usize = 107;
