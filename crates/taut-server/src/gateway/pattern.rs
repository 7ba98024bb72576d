//! Path patterns of routes: `/chat/{room}`, `/files/{path...}`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use percent_encoding::percent_decode_str;

/// The paths of a route, split at slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: Box<str>,
    parts: Box<[Part]>,
}

/// Names of parameters and their values, percent-decoded, in the order of the path.
pub(crate) type Parameters = Vec<(Box<str>, Box<str>)>;

/// Patterns with what belongs to each. The most specific one that matches wins.
#[derive(Clone, Debug)]
pub(crate) struct Patterns<T>(Vec<(Pattern, T)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Percent-decoded.
    Literal(Box<str>),
    /// `{name}`: one part that is not empty.
    Parameter(Box<str>),
    /// `{name...}`: all the rest, which may be empty.
    Rest(Box<str>),
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternError {
    NoSlash,
    Query,
    Empty,
    Braces,
    Name(Box<str>),
    Twice(Box<str>),
    RestNotLast,
    Escape,
}

/// Two patterns match the same paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) first: Box<str>,
    pub(crate) second: Box<str>,
}

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Patterns<T> {
    /// The same patterns with what `keep` makes of what belongs to each.
    pub(crate) fn map(self, keep: impl Fn(T) -> T) -> Self {
        Self(self.0.into_iter().map(|(pattern, value)| (pattern, keep(value))).collect())
    }

    /// What belongs to the patterns.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In any order.
    pub(crate) fn new(mut patterns: Vec<(Pattern, T)>) -> Result<Self, Conflict> {
        patterns.sort_by(|(a, _), (b, _)| a.compare(b));
        for pair in patterns.windows(2) {
            let (first, second) = (&pair[0].0, &pair[1].0);
            if first.compare(second).is_eq() {
                return Err(Conflict { first: first.text.clone(), second: second.text.clone() });
            }
        }
        Ok(Self(patterns))
    }

    /// What belongs to the path, which is still percent-encoded and without its query.
    pub(crate) fn find(&self, path: &str) -> Option<(&T, Parameters)> {
        self.0.iter().find_map(|(pattern, value)| Some((value, pattern.matches(path)?)))
    }
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let path = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        if text.contains(['?', '#']) {
            return Err(PatternError::Query);
        }
        let count = path.split('/').count();
        let mut parts: Vec<Part> = Vec::with_capacity(count);
        for (index, text) in path.split('/').enumerate() {
            let is_last = index + 1 == count;
            let part = Part::parse(text)?;
            match &part {
                Part::Literal(text) if text.is_empty() && !is_last => return Err(PatternError::Empty),
                Part::Rest(_) if !is_last => return Err(PatternError::RestNotLast),
                _ => {}
            }
            if let Some(name) = part.name().filter(|name| parts.iter().any(|part| part.name() == Some(name))) {
                return Err(PatternError::Twice(name.into()));
            }
            parts.push(part);
        }
        Ok(Self { text: text.into(), parts: parts.into() })
    }

    /// The parameters if the pattern matches the path, which is still percent-encoded and without its query.
    pub(crate) fn matches(&self, path: &str) -> Option<Parameters> {
        let mut parameters = Parameters::new();
        let mut left = Some(path.strip_prefix('/')?);
        for part in &self.parts {
            let path = left?;
            let (text, after) = match part {
                Part::Rest(_) => (path, None),
                _ => path.split_once('/').map_or((path, None), |(text, after)| (text, Some(after))),
            };
            let text = decoded(text).filter(|text| part.matches(text))?;
            if let Some(name) = part.name() {
                parameters.push((name.into(), text.into()));
            }
            left = after;
        }
        if left.is_none() { Some(parameters) } else { None }
    }

    /// As it was configured.
    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The more specific pattern is less: from left to right, a literal comes before a parameter, a parameter before
    /// the rest. Patterns that differ only in names are equal.
    fn compare(&self, other: &Self) -> Ordering {
        let keys = |pattern: &Self| -> Vec<(u8, Box<str>)> { pattern.parts.iter().map(Part::key).collect() };
        keys(self).cmp(&keys(other))
    }
}

impl Part {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let Some(name) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
            return Self::literal(text);
        };
        let (name, is_rest) = name.strip_suffix("...").map_or((name, false), |name| (name, true));
        if name.contains(['{', '}']) {
            return Err(PatternError::Braces);
        }
        let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(PatternError::Name(name.into()));
        }
        Ok(if is_rest { Self::Rest(name.into()) } else { Self::Parameter(name.into()) })
    }

    fn literal(text: &str) -> Result<Self, PatternError> {
        if text.contains(['{', '}']) {
            return Err(PatternError::Braces);
        }
        let is_escape = |after: &str| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
        if !text.split('%').skip(1).all(is_escape) {
            return Err(PatternError::Escape);
        }
        Ok(Self::Literal(decoded(text).ok_or(PatternError::Escape)?.into()))
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter(name) | Self::Rest(name) => Some(name),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::Parameter(_) => !text.is_empty() && !text.contains('/') && !has_dots(text),
            Self::Rest(_) => !has_dots(text),
        }
    }

    fn key(&self) -> (u8, Box<str>) {
        match self {
            Self::Literal(text) => (0, text.clone()),
            Self::Parameter(_) => (1, "".into()),
            Self::Rest(_) => (2, "".into()),
        }
    }
}

/// `None` if it is not UTF-8 or has a NUL, where C libraries would end it.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok().filter(|text| !text.contains('\0'))
}

/// Backends make file names of parameters. No browser sends these parts: they are resolved before.
fn has_dots(text: &str) -> bool {
    text.split('/').any(|part| part == "." || part == "..")
}

impl fmt::Display for PatternError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => formatter.write_str("a path begins with a slash"),
            Self::Query => formatter.write_str("a path has neither a query nor a fragment"),
            Self::Empty => formatter.write_str("a path has no two slashes in a row"),
            Self::Braces => formatter.write_str("a parameter is a whole part of the path: /chat/{room}"),
            Self::Name(name) => {
                write!(formatter, "a parameter's name has characters of a-z, 0-9 and _ only, not {name:?}")
            }
            Self::Twice(name) => write!(formatter, "the parameter {name:?} is there twice"),
            Self::RestNotLast => formatter.write_str("a parameter with ... is the last part of the path"),
            Self::Escape => {
                formatter.write_str("a % is followed by two hex digits, and all of it is UTF-8 without NUL")
            }
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the paths {:?} and {:?} match the same requests", self.first, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn matched(text: &str, path: &str) -> Option<String> {
        let parameters = pattern(text).matches(path)?;
        let all = parameters.iter().flat_map(|(name, value)| [name, "=", value, ";"]);
        Some(all.collect())
    }

    #[test]
    fn parameters_are_decoded_parts() {
        for (pattern, path, parameters) in [
            ("/", "/", Some("")),
            ("/", "", None),
            ("/", "/a", None),
            ("/a", "/a", Some("")),
            ("/a", "a", None),
            ("/a", "/a/", None),
            ("/a", "/A", None),
            ("/a", "/a/b", None),
            ("/a/b", "/a", None),
            ("/a/", "/a/", Some("")),
            ("/a/", "/a", None),
            ("/chat/{room}", "/chat/42", Some("room=42;")),
            ("/chat/{room}", "/chat/a%20b+c", Some("room=a b+c;")),
            ("/chat/{room}", "/chat/zo%C3%AB", Some("room=zoë;")),
            ("/chat/{room}", "/chat/%zz", Some("room=%zz;")),
            ("/chat/{room}", "/chat/...", Some("room=...;")),
            ("/chat/{room}", "/chat/", None),
            ("/chat/{room}", "/chat", None),
            ("/chat/{room}", "/chat/42/", None),
            ("/chat/{room}", "/chat/a%2Fb", None),
            ("/chat/{room}", "/chat/a%2fb", None),
            ("/chat/{room}", "/chat/%00", None),
            ("/chat/{room}", "/chat/%FF", None),
            ("/chat/{room}", "/chat/..", None),
            ("/chat/{room}", "/chat/%2e%2E", None),
            ("/chat/{room}", "/chat/.", None),
            ("/chat/{room}/{user_1}/x", "/chat/a/b/x", Some("room=a;user_1=b;")),
            ("/files/{path...}", "/files/a/b%20c/", Some("path=a/b c/;")),
            ("/files/{path...}", "/files/a%2Fb", Some("path=a/b;")),
            ("/files/{path...}", "/files/", Some("path=;")),
            ("/files/{path...}", "/files", None),
            ("/files/{path...}", "/files/%FF", None),
            ("/files/{path...}", "/files/a/%00", None),
            ("/files/{path...}", "/files/a/../b", None),
            ("/files/{path...}", "/files/a%2F%2e%2e%2Fb", None),
            ("/{all...}", "/", Some("all=;")),
            ("/{all...}", "/a//b", Some("all=a//b;")),
            ("/caf%C3%A9", "/café", Some("")),
            ("/café", "/caf%c3%a9", Some("")),
            ("/a%2Fb", "/a/b", None),
            ("/a%2Fb", "/a%2fb", Some("")),
            ("/%7Bx%7D", "/{x}", Some("")),
        ] {
            assert_eq!(matched(pattern, path).as_deref(), parameters, "{pattern} {path}");
        }
    }

    #[test]
    fn what_cannot_be_a_pattern_is_an_error() {
        for (text, error) in [
            ("", PatternError::NoSlash),
            ("chat", PatternError::NoSlash),
            ("{room}", PatternError::NoSlash),
            ("/a?b", PatternError::Query),
            ("/a#b", PatternError::Query),
            ("//", PatternError::Empty),
            ("/a//b", PatternError::Empty),
            ("/{a", PatternError::Braces),
            ("/a}", PatternError::Braces),
            ("/a{b}", PatternError::Braces),
            ("/{a}b", PatternError::Braces),
            ("/{a}{b}", PatternError::Braces),
            ("/{{a}}", PatternError::Braces),
            ("/{", PatternError::Braces),
            ("/{a/b}", PatternError::Braces),
            ("/{}", PatternError::Name("".into())),
            ("/{...}", PatternError::Name("".into())),
            ("/{Room}", PatternError::Name("Room".into())),
            ("/{a-b}", PatternError::Name("a-b".into())),
            ("/{a..}", PatternError::Name("a..".into())),
            ("/{ä}", PatternError::Name("ä".into())),
            ("/{a}/{a}", PatternError::Twice("a".into())),
            ("/{a}/b/{a...}", PatternError::Twice("a".into())),
            ("/{a...}/b", PatternError::RestNotLast),
            ("/{a...}/", PatternError::RestNotLast),
            ("/100%", PatternError::Escape),
            ("/%4", PatternError::Escape),
            ("/%4g", PatternError::Escape),
            ("/%FF", PatternError::Escape),
            ("/%00", PatternError::Escape),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_more_specific_pattern_wins_in_any_order() {
        let texts = ["/{all...}", "/chat/{room}", "/chat/lobby", "/{a}/lobby", "/chat/{path...}", "/chat/", "/chat"];
        let reversed = || texts.iter().rev();
        for texts in [texts.iter().collect::<Vec<_>>(), reversed().collect()] {
            let patterns =
                Patterns::new(texts.iter().map(|text| (pattern(text), **text)).collect()).expect("no conflict");
            for (path, expected) in [
                ("/chat/lobby", "/chat/lobby"),
                ("/chat/lobb%79", "/chat/lobby"),
                ("/chat/42", "/chat/{room}"),
                ("/chat/42/x", "/chat/{path...}"),
                ("/chat/", "/chat/"),
                ("/chat", "/chat"),
                ("/x/lobby", "/{a}/lobby"),
                ("/x/y", "/{all...}"),
                ("/", "/{all...}"),
            ] {
                assert_eq!(patterns.find(path).map(|(text, _)| *text), Some(expected), "{path}");
            }
            assert!(patterns.find("").is_none());
        }
    }

    #[test]
    fn patterns_that_differ_in_names_only_are_in_conflict() {
        for (a, b) in [("/chat/{room}", "/chat/{id}"), ("/{a...}", "/{b...}"), ("/caf%C3%A9", "/café"), ("/a", "/a")] {
            let conflict = Patterns::new(vec![(pattern(a), ()), (pattern("/other"), ()), (pattern(b), ())]);
            assert_eq!(conflict.err(), Some(Conflict { first: a.into(), second: b.into() }));
        }
        for (a, b) in [("/{a}", "/{a...}"), ("/{a}", "/a"), ("/a", "/a/"), ("/a", "/a/{b}")] {
            assert!(Patterns::new(vec![(pattern(a), ()), (pattern(b), ())]).is_ok(), "{a} {b}");
        }
    }

    #[test]
    fn errors_are_sentences() {
        for (error, text) in [
            (PatternError::NoSlash, "a path begins with a slash"),
            (PatternError::Query, "a path has neither a query nor a fragment"),
            (PatternError::Empty, "a path has no two slashes in a row"),
            (PatternError::Braces, "a parameter is a whole part of the path: /chat/{room}"),
            (PatternError::Name("A".into()), "a parameter's name has characters of a-z, 0-9 and _ only, not \"A\""),
            (PatternError::Twice("a".into()), "the parameter \"a\" is there twice"),
            (PatternError::RestNotLast, "a parameter with ... is the last part of the path"),
            (PatternError::Escape, "a % is followed by two hex digits, and all of it is UTF-8 without NUL"),
        ] {
            assert_eq!(error.to_string(), text);
        }
        let conflict = Conflict { first: "/{a}".into(), second: "/{b}".into() };
        assert_eq!(conflict.to_string(), "the paths \"/{a}\" and \"/{b}\" match the same requests");
        assert_eq!(pattern("/caf%C3%A9").as_str(), "/caf%C3%A9");
    }

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        let part = || prop_oneof![Just("a"), Just("b"), Just("{p}"), Just("")];
        let end = prop_oneof![Just("a"), Just("{q}"), Just("{q...}"), Just("")];
        (prop::collection::vec(part(), 0..3), end).prop_filter_map("a pattern", |(mut parts, end)| {
            parts.push(end);
            Pattern::parse(&format!("/{}", parts.join("/"))).ok()
        })
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in any_pattern(), b in any_pattern(), c in any_pattern()) {
            prop_assert_eq!(a.compare(&b), b.compare(&a).reverse());
            prop_assert_eq!(a.compare(&a), Ordering::Equal);
            if a.compare(&b).is_le() && b.compare(&c).is_le() {
                prop_assert!(a.compare(&c).is_le());
            }
            if a.compare(&b).is_eq() {
                prop_assert_eq!(a.compare(&c), b.compare(&c));
            }
        }

        #[test]
        fn who_wins_does_not_depend_on_the_order_of_configuration(
            patterns in prop::collection::vec(any_pattern(), 0..6).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            path in "(/[ab]?){0,4}",
        ) {
            let (ordered, shuffled) = patterns;
            let set = |patterns: Vec<Pattern>| Patterns::new(patterns.into_iter().map(|p| (p.clone(), p)).collect());
            match (set(ordered.clone()), set(shuffled)) {
                (Ok(one), Ok(other)) => {
                    prop_assert_eq!(one.find(&path), other.find(&path));
                    let winner = one.find(&path).map(|(pattern, _)| pattern.clone());
                    let all: Vec<_> = ordered.into_iter().filter(|pattern| pattern.matches(&path).is_some()).collect();
                    prop_assert_eq!(winner.is_some(), !all.is_empty());
                    if let Some(winner) = winner {
                        prop_assert!(all.iter().all(|pattern| winner.compare(pattern).is_le()));
                    }
                }
                (one, other) => prop_assert_eq!(one.is_err(), other.is_err()),
            }
        }

        #[test]
        fn a_value_survives_its_encoding(value in "[^/\0]{1,10}") {
            prop_assume!(value != "." && value != "..");
            let encoded = value.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02x}"));
            prop_assert_eq!(matched("/{x}", &format!("/{encoded}")), Some(format!("x={value};")));
        }

        #[test]
        fn garbage_never_panics(text: String, path: String, part in "[{}./a%?]{0,12}") {
            let _ = Pattern::parse(&text);
            if let Ok(pattern) = Pattern::parse(&format!("/{part}")) {
                let _ = pattern.matches(&path);
                let _ = pattern.matches(&format!("/{path}"));
            }
        }
    }
}
