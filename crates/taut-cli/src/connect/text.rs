//! What a peer sends, made readable for people.

use std::fmt::Write as _;

use taut::Close;

use crate::output::printable;

/// The first bytes as in `hexdump -C`, and how many more there are.
pub(super) fn hex_dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (index, row) in bytes.chunks(ROW).take(ROWS).enumerate() {
        let hex: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let (left, right) = hex.split_at(hex.len().min(ROW / 2));
        let readable: String = row
            .iter()
            .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })
            .collect();
        let hex = format!("{}  {}", left.join(" "), right.join(" "));
        let _ = writeln!(dump, "  {:04x}  {hex:49}  |{readable}|", index * ROW);
    }
    if bytes.len() > ROW * ROWS {
        let _ = writeln!(dump, "  … {} more", size(bytes.len() - ROW * ROWS));
    }
    dump
}

/// A number of bytes, with separators: `1,234 bytes`.
pub(super) fn size(bytes: usize) -> String {
    let digits = bytes.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if bytes == 1 { "1 byte".to_owned() } else { format!("{grouped} bytes") }
}

/// How a connection was closed: the code, what it means (RFC 6455 §7.4.1 and its registry), the reason.
pub(super) fn close_words(close: &Close) -> String {
    let code = close.code().as_u16();
    let meaning = match code {
        1000 => "normal closure",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1005 => "no code",
        1006 => "no close frame",
        1007 => "invalid text",
        1008 => "policy violation",
        1009 => "message too big",
        1010 => "extension missing",
        1011 => "server error",
        1012 => "service restart",
        1013 => "try again later",
        1014 => "bad gateway",
        3000..=3999 => "registered code",
        4000..=4999 => "application code",
        _ => "unknown",
    };
    if close.reason().is_empty() {
        format!("{code} ({meaning})")
    } else {
        format!("{code} ({meaning}): {}", printable(close.reason()))
    }
}

const ROW: usize = 16;

const ROWS: usize = 4;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use taut::CloseCode;

    use super::*;

    #[test]
    fn a_dump_is_short_and_tells_what_it_leaves_out() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1065).collect();
        let dump = hex_dump(&bytes);
        assert_eq!(dump.lines().count(), 5);
        assert!(dump.starts_with("  0000  00 01 02 03 04 05 06 07  08 09"), "{dump}");
        assert!(dump.contains("|0123456789:;<=>?|") && dump.ends_with("… 1,001 bytes more\n"), "{dump}");
        assert_eq!(hex_dump(b"Hi").trim_end(), format!("  0000  48 69{:44}  |Hi|", ""));
        assert!(hex_dump(&bytes[..64]).ends_with("|0123456789:;<=>?|\n"), "it leaves nothing out");
    }

    #[test]
    fn a_size_has_its_digits_in_groups_of_three() {
        for (bytes, shown) in [(0, "0 bytes"), (1, "1 byte"), (200, "200 bytes"), (1_234_567, "1,234,567 bytes")] {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn a_close_is_told_in_words() {
        let close = |code, reason| close_words(&Close::new(CloseCode::new(code), reason));
        assert_eq!(close(1000, ""), "1000 (normal closure)");
        assert_eq!(close(4001, "token\n\u{1b}[31mexpired"), "4001 (application code): token\\n\\e[31mexpired");
    }

    // RFC 6455 §7.4 and the registry "WebSocket Close Code Number".
    #[test]
    fn each_close_code_that_is_registered_has_a_meaning_of_its_own() {
        let meaning = |code| close_words(&Close::new(CloseCode::new(code), "")).split_off(5);
        let known: HashSet<_> = (1000..=1003).chain(1005..=1014).chain([3000, 4000]).map(meaning).collect();
        assert_eq!(known.len(), 16, "{known:?}");
        assert!(!known.contains(&meaning(2000)) && !known.contains(&meaning(5000)), "{known:?}");
    }
}
