//! The headers of a head, borrowed.

use std::{fmt, str};

use super::refusal::{Cause, Refusal};
use super::{is_token, list};

/// The headers of a head, in order: names and values as they came, borrowed.
///
/// Up to 24 are held in place, so that parsing a common head allocates nothing; more take one allocation. Its `Debug`
/// shows the names alone, since values hold secrets.
///
/// ```
/// use taut_proto::handshake::Headers;
///
/// let headers: Headers<'_> = [("origin", &b"https://chat.example"[..]), ("cookie", &b"a=1"[..])].into_iter().collect();
/// assert_eq!(headers.first("Origin"), Some("https://chat.example"));
/// ```
#[derive(Clone, Default)]
pub struct Headers<'a>(Lines<'a>);

#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "the room in place is the point of it")]
enum Lines<'a> {
    Few { lines: [Line<'a>; Headers::IN_PLACE], count: usize },
    Many(Vec<Line<'a>>),
}

type Line<'a> = (&'a str, &'a [u8]);

impl<'a> Headers<'a> {
    /// Headers that need no allocation. Browsers send some 13 with a handshake, and a chain of proxies adds a few.
    pub(super) const IN_PLACE: usize = 24;

    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lines().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// Names as written, values as bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.lines().iter().copied()
    }

    /// The value of the first header of this name, without the space around it; `None` when it is absent or not UTF-8.
    pub fn first(&self, name: &str) -> Option<&'a str> {
        self.named(name).next().and_then(text)
    }

    /// The values of all headers of this name that are UTF-8, in order.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'_, 'n, 'a> {
        self.named(name).filter_map(text)
    }

    /// The first header of this name, as sent.
    pub(super) fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.named(name).next()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    /// Whether a comma-separated list, over all headers of this name, holds a token in any case.
    pub(super) fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).flat_map(list).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// Refuses what would make two readers of this head understand different things: headers of `single` that occur
    /// twice, and headers of the handshake that are not ASCII.
    pub(super) fn check(&self, single: &[&'static str]) -> Result<(), Refusal> {
        // One bit for each name of `single`.
        let (mut once, mut twice) = (0_u32, 0_u32);
        let mut is_ascii = true;
        for &(name, value) in self.lines() {
            let known = single.iter().position(|own| name.eq_ignore_ascii_case(own));
            if let Some(index) = known {
                twice |= once & 1 << index;
                once |= 1 << index;
            }
            is_ascii &= value.is_ascii() || !(known.is_some() || is_of_handshake(name));
        }
        if let Some(name) = single.get(twice.trailing_zeros() as usize) {
            return Err(Cause::RepeatedHeader(name).into());
        }
        if is_ascii { Ok(()) } else { Err(Cause::NotAscii.into()) }
    }

    /// Refuses names and values that HTTP/1.1 could not have transported. A parser of text sees to that itself.
    pub(super) fn check_characters(&self) -> Result<(), Cause> {
        for (name, value) in self.iter() {
            // RFC 9110 §5.5: CR, LF and NUL are dangerous whatever is made of them; a tab is space.
            let forbidden = value.iter().find(|&&byte| byte.is_ascii_control() && byte != b'\t');
            match forbidden {
                _ if !is_token(name) => return Err(Cause::Malformed),
                None => {}
                Some(0) => return Err(Cause::Nul),
                Some(b'\r' | b'\n') => return Err(Cause::LineEnd),
                Some(_) => return Err(Cause::Malformed),
            }
        }
        Ok(())
    }

    fn named<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'_, 'n, 'a> {
        self.lines().iter().filter(move |(own, _)| own.eq_ignore_ascii_case(name)).map(|&(_, value)| value)
    }

    fn lines(&self) -> &[Line<'a>] {
        match &self.0 {
            Lines::Few { lines, count } => &lines[..*count],
            Lines::Many(lines) => lines,
        }
    }
}

impl Default for Lines<'_> {
    fn default() -> Self {
        Self::Few { lines: [("", &[]); Headers::IN_PLACE], count: 0 }
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Headers<'a> {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a [u8])>>(headers: I) -> Self {
        let mut collected = Self::new();
        collected.extend(headers);
        collected
    }
}

impl<'a> Extend<(&'a str, &'a [u8])> for Headers<'a> {
    fn extend<I: IntoIterator<Item = (&'a str, &'a [u8])>>(&mut self, headers: I) {
        let mut headers = headers.into_iter();
        if let Lines::Few { lines, count } = &mut self.0 {
            while let Some(place) = lines.get_mut(*count) {
                let Some(header) = headers.next() else { return };
                *place = header;
                *count += 1;
            }
            let Some(header) = headers.next() else { return };
            let mut many = Vec::with_capacity(*count + 1 + headers.size_hint().0);
            many.extend_from_slice(lines);
            many.push(header);
            self.0 = Lines::Many(many);
        }
        if let Lines::Many(lines) = &mut self.0 {
            lines.extend(headers);
        }
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Whether the handshake rests on a header of this name, which may occur more than once.
fn is_of_handshake(name: &str) -> bool {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts("sec-websocket-")
        || ["connection", "transfer-encoding", "upgrade"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

fn text(value: &[u8]) -> Option<&str> {
    // RFC 9110 §5.6.3: spaces and tabs. There is no other white space in a value that was parsed.
    Some(str::from_utf8(value).ok()?.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stay_in_order_however_many_there_are() {
        let names: Vec<_> = (0..100).map(|index| format!("x-{index}")).collect();
        for count in [0, 1, 23, 24, 25, 48, 100] {
            let headers: Headers<'_> = names[..count].iter().map(|name| (name.as_str(), name.as_bytes())).collect();
            assert_eq!((headers.len(), headers.is_empty()), (count, count == 0));
            assert!(headers.iter().eq(names[..count].iter().map(|name| (name.as_str(), name.as_bytes()))));
            assert_eq!(headers.first("X-0"), (count > 0).then_some("x-0"));
            assert_eq!(headers.first("x-99"), (count == 100).then_some("x-99"));
        }
        assert!(Headers::new().is_empty());
    }

    #[test]
    fn debug_output_holds_no_secrets() {
        let headers: Headers<'_> = [("Cookie", &b"s3cret"[..])].into_iter().collect();
        assert_eq!(format!("{headers:?}"), "[\"Cookie\"]");
    }
}
