//! Hexadecimal digits in lower case, as Pusher writes signatures and digests.

/// Two digits for each byte.
pub fn encode(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The bytes that the digits stand for; `None` unless there are exactly two for each of `LENGTH` bytes.
///
/// Upper case is refused: those who compare signatures as texts would, and one signature has one form.
pub fn decode<const LENGTH: usize>(digits: &str) -> Option<[u8; LENGTH]> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != LENGTH {
        return None;
    }
    let mut bytes = [0; LENGTH];
    let mut all = 0;
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        let (high, low) = (VALUES[usize::from(high)], VALUES[usize::from(low)]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all < 16).then_some(bytes)
}

/// What each byte stands for as a digit, 255 if it is none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// The digits from 0 to 15.
pub(crate) const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_decoded_in_lower_case_only() {
        assert_eq!(decode("00ff1a9e"), Some([0, 0xff, 0x1a, 0x9e]));
        for digits in ["", "0", "0f0", "0f0f", "0F", "fF", "g0", "f/", ":0", "+f", "é"] {
            assert_eq!(decode::<1>(digits), None, "{digits}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(bytes: [u8; 32]) {
            let digits = encode(&bytes);
            prop_assert!(digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
            prop_assert_eq!(decode(&digits), Some(bytes));
        }
    }
}
