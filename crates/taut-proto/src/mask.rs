//! Masking (RFC 6455 §5.3): XOR with a four-byte key, at any phase.

use multiversion::multiversion;

/// XORs `bytes` with `key`, beginning at the key's byte `phase`; gives the phase after the last byte.
pub(crate) fn apply(bytes: &mut [u8], key: [u8; 4], phase: u8) -> u8 {
    // Small payloads do not pay for the choice among the processor's vectors: no more than this comparison.
    if bytes.len() >= LARGE {
        return apply_large(bytes, key, phase);
    }
    apply_small(bytes, rotated(key, phase));
    phase_after(bytes, phase)
}

/// Unmasks with the widest vectors that the processor has.
#[multiversion(targets("x86_64+avx2"))]
fn apply_large(bytes: &mut [u8], key: [u8; 4], phase: u8) -> u8 {
    let key = rotated(key, phase);
    apply_small(apply_blocks::<LARGE_BLOCK>(bytes, key), key);
    phase_after(bytes, phase)
}

fn rotated(key: [u8; 4], phase: u8) -> [u8; 4] {
    u32::from_le_bytes(key).rotate_right(8 * u32::from(phase)).to_le_bytes()
}

fn phase_after(bytes: &[u8], phase: u8) -> u8 {
    ((usize::from(phase) + bytes.len()) % 4) as u8
}

#[expect(clippy::inline_always, reason = "it is compiled for the vectors of its caller only as a part of it")]
#[inline(always)]
fn apply_small(bytes: &mut [u8], key: [u8; 4]) {
    let tail = apply_blocks::<BLOCK>(bytes, key);
    let narrow = u32::from_ne_bytes(key);
    let (halves, tail) = tail.as_chunks_mut::<{ BLOCK / 2 }>();
    if let [half] = halves {
        *half = (u128::from_ne_bytes(*half) ^ (u128::from(narrow) * FOUR_TIMES)).to_ne_bytes();
    }
    let (words, tail) = tail.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ narrow).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key) {
        *byte ^= key;
    }
}

/// Masks as many whole blocks as there are; gives what is left.
#[expect(clippy::inline_always, reason = "it is compiled for the vectors of its caller only as a part of it")]
#[inline(always)]
fn apply_blocks<const LENGTH: usize>(bytes: &mut [u8], key: [u8; 4]) -> &mut [u8] {
    let wide = u64::from(u32::from_ne_bytes(key)) * TWICE;
    // Blocks of a fixed size in plain code: the compiler makes vector instructions of it. By words, because in a large
    // program it sometimes makes none, and bytes one by one would take eight times as many.
    let (blocks, tail) = bytes.as_chunks_mut::<LENGTH>();
    for block in blocks {
        for word in block.as_chunks_mut::<8>().0 {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
    }
    tail
}

/// Bytes from which the choice among the processor's vectors costs less than it saves.
const LARGE: usize = 512;

const LARGE_BLOCK: usize = 128;

const BLOCK: usize = 32;

/// A factor that repeats 32 bits twice.
const TWICE: u64 = 0x1_0000_0001;

/// A factor that repeats 32 bits four times.
const FOUR_TIMES: u128 = 0x1_0000_0001_0000_0001_0000_0001;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        // RFC 6455 §5.3: octet i is XORed with key octet i mod 4, however the payload was cut.
        #[test]
        fn any_cut_masks_as_the_definition_does(
            bytes in prop_oneof![any::<Vec<u8>>(), prop::collection::vec(any::<u8>(), 400..3000)],
            key: [u8; 4],
            cut: prop::sample::Index,
        ) {
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut masked = bytes.clone();
            let (head, tail) = masked.split_at_mut(cut.index(bytes.len() + 1));
            let phase = apply(head, key, 0);
            apply(tail, key, phase);
            prop_assert_eq!(masked, expected);
        }
    }
}
