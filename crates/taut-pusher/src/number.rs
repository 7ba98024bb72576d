//! Numbers as strangers write them, and as JavaScript prints them.

use std::str::FromStr;

/// Reads ASCII digits and nothing else; `None` also where the number does not fit. (`str::parse` alone takes a leading
/// `+` as well.)
pub fn digits<N: FromStr>(text: &str) -> Option<N> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// The text that JavaScript makes of a number in JSON (ECMAScript §6.1.6.1.20): `7` of `7.0`, `100` of `1e2`.
///
/// A number that is written as an integer keeps all of its digits. JavaScript would round those beyond 2^53, and so
/// make one user of two.
/// `None` where the text is not a number of JSON (RFC 8259 §6).
pub fn as_javascript_prints(json: &str) -> Option<String> {
    let magnitude = json.strip_prefix('-').unwrap_or(json);
    if !magnitude.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if magnitude.bytes().all(|byte| byte.is_ascii_digit()) {
        // -0 is printed without its sign.
        return Some(if magnitude == "0" { magnitude } else { json }.to_owned());
    }
    json.parse().ok().map(|number: f64| ryu_js::Buffer::new().format(number).to_owned())
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

    #[test]
    fn numbers_are_printed_as_javascript_prints_them() {
        // What Node.js prints for `String(JSON.parse(text))`.
        for (json, text) in [
            ("7", "7"),
            ("7.0", "7"),
            ("-7.50", "-7.5"),
            ("1e2", "100"),
            ("1E+2", "100"),
            ("-1.5e3", "-1500"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("0.1", "0.1"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("1.25e-7", "1.25e-7"),
            ("123456789012345680000.0", "123456789012345680000"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("5e-324", "5e-324"),
            ("1e400", "Infinity"),
            ("-1e400", "-Infinity"),
            ("1e-400", "0"),
        ] {
            assert_eq!(as_javascript_prints(json).as_deref(), Some(text), "{json}");
        }
    }

    #[test]
    fn integers_keep_all_their_digits() {
        for json in ["9007199254740993", "-12345678901234567891", "123456789012345678901234567890"] {
            assert_eq!(as_javascript_prints(json).as_deref(), Some(json));
        }
    }

    #[test]
    fn what_is_not_a_number_is_not_printed() {
        for json in ["", "-", "null", "true", "\"1\"", "[1]", "{}", ".5"] {
            assert_eq!(as_javascript_prints(json), None, "{json}");
        }
    }
}
