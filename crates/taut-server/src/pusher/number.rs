//! Numbers as strangers write them.

use std::str::FromStr;

/// Reads ASCII digits and nothing else; `None` also where the number does not fit. (`str::parse` alone takes a leading `+` as well.)
pub fn digits<N: FromStr>(text: &str) -> Option<N> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ascii_digits_are_a_number() {
        assert_eq!(digits::<u64>("0"), Some(0));
        assert_eq!(digits::<u64>("0042"), Some(42));
        for text in ["", "+1", "-1", " 1", "1 ", "1.0", "1e2", "٣", "18446744073709551616"] {
            assert_eq!(digits::<u64>(text), None, "{text}");
        }
    }
}
