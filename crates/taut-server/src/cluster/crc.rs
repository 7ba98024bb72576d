//! The checksum by which Redis Cluster finds slots, and by which keys of NATS show typing errors.

/// CRC-16/XMODEM.
pub(super) fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| {
        (0..8).fold(
            sum ^ (u16::from(*byte) << 8),
            |sum, _| if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_its_check_value() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }
}
