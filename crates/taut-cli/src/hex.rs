//! Bytes that people write as hexadecimal digits.

/// Two digits for each byte, in either case, perhaps with spaces between them and `0x` before.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text).chars().filter(|character| !character.is_whitespace());
    let digits: Option<Vec<u8>> = digits.map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.ok_or("this is not hexadecimal: digits are 0 to 9 and a to f")?;
    if digits.len() % 2 == 1 {
        return Err("a byte has two hexadecimal digits, and one is missing".to_owned());
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_may_have_spaces_and_a_prefix() {
        assert_eq!(decode("0xDE ad\tbeef").as_deref(), Ok(&[0xde, 0xad, 0xbe, 0xef][..]));
        assert_eq!(decode(""), Ok(Vec::new()));
        for (text, word) in [("abc", "two"), ("xy", "0 to 9"), ("0x0x", "0 to 9")] {
            assert!(decode(text).unwrap_err().contains(word), "{text}");
        }
    }
}
