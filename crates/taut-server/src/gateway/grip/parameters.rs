//! Header values with parameters: `value; name=text; name="quoted text"`, in lists with commas.

use std::borrow::Cow;

/// One value and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters<'a> {
    /// The text before the first semicolon, without spaces around it.
    pub(crate) value: &'a str,
    /// In order. The text of a parameter without `=` is empty.
    parameters: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Parameters<'a> {
    /// Reads a value and its parameters; `None` if a quoted text does not end, or is followed by more.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (value, rest) = text.split_once(';').unwrap_or((text, ""));
        Some(Self { value: trim(value), parameters: parameters(rest)? })
    }

    /// Reads a value that is itself `name=text`.
    pub(crate) fn parse_pair(text: &'a str) -> Option<(&'a str, Cow<'a, str>)> {
        parameters(text)?.into_iter().next()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, text)| &**text)
    }
}

/// The elements of a comma-separated list, without empty ones. Commas in quoted text do not count.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (element, after) = rest.split_at(unquoted(rest, ','));
            rest = after.strip_prefix(',').unwrap_or(after);
            let element = trim(element);
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    })
}

/// Whether this is the media type of a `Content-Type`, parameters aside.
pub(crate) fn is_media_type(content_type: &[u8], media_type: &str) -> bool {
    let end = content_type.iter().position(|byte| *byte == b';').unwrap_or(content_type.len());
    content_type[..end].trim_ascii().eq_ignore_ascii_case(media_type.as_bytes())
}

fn parameters(text: &str) -> Option<Vec<(&str, Cow<'_, str>)>> {
    let mut parameters = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (parameter, after) = rest.split_at(unquoted(rest, ';'));
        rest = after.strip_prefix(';').unwrap_or(after);
        let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = trim(name);
        if !name.is_empty() {
            parameters.push((name, unquote(trim(text))?));
        }
    }
    Some(parameters)
}

/// The position of the first such character outside quoted text, or the end.
fn unquoted(text: &str, wanted: char) -> usize {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let found = text.char_indices().find(|(_, character)| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match character {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if !was_escaped && is_quoted => is_escaped = true,
            character => return !is_quoted && *character == wanted,
        }
        false
    });
    found.map_or(text.len(), |(at, _)| at)
}

fn unquote(text: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = text.strip_prefix('"') else { return Some(Cow::Borrowed(text)) };
    let mut out = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => break,
            '\\' => out.push(characters.next()?),
            character => out.push(character),
        }
    }
    characters.as_str().is_empty().then_some(Cow::Owned(out))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_found_by_name() {
        let read = Parameters::parse(r#"grip; message-prefix="a\"; b" ;X=1; flag; x=2"#).expect("parameters");
        assert_eq!(read.value, "grip");
        assert_eq!(read.get("message-prefix"), Some("a\"; b"));
        assert_eq!(read.all("x").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(read.get("flag"), Some(""));
        assert_eq!(read.get("y"), None);
        assert_eq!(Parameters::parse("a; b=\"c"), None);
        assert_eq!(Parameters::parse("a; b=\"c\"d"), None);
    }

    #[test]
    fn commas_divide_outside_of_quotes() {
        assert_eq!(list(r#"a; x="b, c" , , d"#).collect::<Vec<_>>(), [r#"a; x="b, c""#, "d"]);
        assert_eq!(list(" ,").count(), 0);
    }

    #[test]
    fn a_media_type_may_have_parameters() {
        let is_events = |text: &str| is_media_type(text.as_bytes(), "application/websocket-events");
        assert!(is_events("application/websocket-events"));
        assert!(is_events("Application/WebSocket-Events ; charset=utf-8"), "O4");
        assert!(!is_events("text/html"), "O3");
        assert!(!is_events("application/websocket-events2"));
    }

    proptest! {
        #[test]
        fn quoted_text_reads_back(text: String) {
            let quoted = format!("v; a=\"{}\"; b=1", text.replace('\\', "\\\\").replace('"', "\\\""));
            let read = Parameters::parse(&quoted).expect("parameters");
            prop_assert_eq!(read.get("a"), Some(&*text));
            prop_assert_eq!(read.get("b"), Some("1"));
            prop_assert_eq!(list(&quoted).collect::<Vec<_>>(), vec![&*quoted]);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = Parameters::parse(&text);
            let _ = list(&text).count();
        }
    }
}
