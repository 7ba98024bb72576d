//! Files of variables as Laravel and soketi have them: `.env`, in the syntax of phpdotenv.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::diagnostic::{ConfigError, Diagnostic};

/// Reads a file of variables by name, for programs that look for an app in it. `${NAME}` stands for what the environment or
/// a line further up says.
///
/// # Errors
/// Each line that cannot be read, without repeating it, since secrets stand there.
pub fn env_file(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<HashMap<String, String>, ConfigError> {
    let environment = environment.into_iter().collect();
    let variables = read(path, &environment).map_err(ConfigError::of)?;
    Ok(variables.into_iter().map(|Variable { name, value, .. }| (name, value)).collect())
}

/// A variable of such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The line on which it begins.
    pub(crate) line: usize,
}

/// Reads a file of variables. `${NAME}` stands for what the environment or a line further up says; the environment goes first.
///
/// # Errors
/// Each line that cannot be read, without repeating it, since secrets stand there.
pub(crate) fn read(path: &Path, environment: &HashMap<String, String>) -> Result<Vec<Variable>, Vec<Diagnostic>> {
    let place = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        vec![Diagnostic::new(place.to_string(), format!("the file of variables cannot be read: {error}"))]
    })?;
    let (variables, wrong) = parse(&text, environment);
    if wrong.is_empty() {
        return Ok(variables);
    }
    Err(wrong.into_iter().map(|(line, reason)| Diagnostic::new(format!("{place}, line {line}"), reason)).collect())
}

fn parse(text: &str, environment: &HashMap<String, String>) -> (Vec<Variable>, Vec<(usize, &'static str)>) {
    let mut parser = Parser { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let (mut variables, mut wrong) = (Vec::<Variable>::new(), Vec::new());
    while let Some((line, entry)) = parser.entry() {
        match entry {
            Ok((name, Some(parts))) => {
                let known = |wanted: &str| {
                    let above = || variables.iter().rev().find(|above| above.name == wanted).map(|above| &*above.value);
                    environment.get(wanted).map(String::as_str).or_else(above)
                };
                let value = parts.iter().map(|part| part.resolve(known)).collect::<String>();
                if let Some(value) = as_laravel_reads(value) {
                    variables.push(Variable { name, value, line });
                }
            }
            // A name alone sets nothing.
            Ok((_, None)) => {}
            Err(reason) => wrong.push((line, reason)),
        }
    }
    (variables, wrong)
}

/// Laravel's `env()` takes these words, whatever their case, for a value of PHP.
fn as_laravel_reads(value: String) -> Option<String> {
    match value.to_ascii_lowercase().as_str() {
        "null" | "(null)" => None,
        "empty" | "(empty)" => Some(String::new()),
        "(true)" => Some("true".to_owned()),
        "(false)" => Some("false".to_owned()),
        _ => Some(value),
    }
}

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `${NAME}`.
    Reference(String),
}

impl Part {
    fn resolve<'v>(&self, known: impl Fn(&str) -> Option<&'v str>) -> String {
        match self {
            Self::Text(text) => text.clone(),
            // One that is not set stays as it is written.
            Self::Reference(name) => known(name).map_or_else(|| format!("${{{name}}}"), str::to_owned),
        }
    }
}

type Entry = Result<(String, Option<Vec<Part>>), &'static str>;

struct Parser<'t> {
    rest: &'t str,
    line: usize,
}

impl Parser<'_> {
    /// The next line that says something, and its number.
    fn entry(&mut self) -> Option<(usize, Entry)> {
        loop {
            self.skip_space();
            match self.peek()? {
                '\n' => drop(self.next()),
                '#' => self.skip_line(),
                _ => break,
            }
        }
        let line = self.line;
        let entry = self.assignment();
        if entry.is_err() {
            self.skip_line();
        }
        Some((line, entry))
    }

    fn assignment(&mut self) -> Entry {
        let end = self.rest.find(['=', '\n', '#']).unwrap_or(self.rest.len());
        let written = self.rest[..end].trim();
        let name =
            written.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(written).trim();
        let name = name.strip_prefix(['\'', '"']).and_then(|name| name.strip_suffix(['\'', '"'])).unwrap_or(name);
        if name.is_empty() || !name.chars().all(|letter| letter.is_alphanumeric() || "_.".contains(letter)) {
            return Err("a line is NAME=value, and a name holds letters, digits and _");
        }
        let name = name.to_owned();
        self.rest = &self.rest[end..];
        if self.peek() != Some('=') {
            self.skip_line();
            return Ok((name, None));
        }
        self.next();
        self.skip_space();
        let parts = match self.peek() {
            Some('\'') => self.single_quoted()?,
            Some('"') => self.double_quoted()?,
            _ => self.unquoted(),
        };
        self.skip_space();
        match self.peek() {
            None | Some('\n') => {}
            Some('#') => self.skip_line(),
            Some(_) => return Err("there is more after the value: put a value with spaces into quotes"),
        }
        Ok((name, Some(parts)))
    }

    /// Up to a space or a comment.
    fn unquoted(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        while let Some(letter) = self.peek().filter(|letter| !letter.is_whitespace() && *letter != '#') {
            self.take(letter, &mut parts);
        }
        parts
    }

    /// As it stands, up to the next quote.
    fn single_quoted(&mut self) -> Result<Vec<Part>, &'static str> {
        self.next();
        let end = self.rest.find('\'').ok_or(UNCLOSED)?;
        let text = self.rest[..end].to_owned();
        self.line += text.matches('\n').count();
        self.rest = &self.rest[end + 1..];
        Ok(vec![Part::Text(text)])
    }

    fn double_quoted(&mut self) -> Result<Vec<Part>, &'static str> {
        self.next();
        let mut parts = Vec::new();
        loop {
            match self.peek().ok_or(UNCLOSED)? {
                '"' => {
                    self.next();
                    return Ok(parts);
                }
                '\\' => {
                    self.next();
                    let letter = match self.next().ok_or(UNCLOSED)? {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'f' => '\u{c}',
                        'v' => '\u{b}',
                        letter @ ('"' | '\\' | '$') => letter,
                        _ => {
                            return Err(
                                "between double quotes \\ stands before one of \" \\ $ n r t f v; between single quotes it is a letter",
                            );
                        }
                    };
                    push(&mut parts, letter);
                }
                letter => self.take(letter, &mut parts),
            }
        }
    }

    /// Takes a letter, or a whole `${NAME}`. A `$` without braces is a letter: passwords have it.
    fn take(&mut self, letter: char, parts: &mut Vec<Part>) {
        let reference = self.rest.strip_prefix("${").and_then(|rest| rest.split_once('}')).map(|(name, _)| name);
        let is_name = |name: &&str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
        };
        if let Some(name) = reference.filter(is_name) {
            parts.push(Part::Reference(name.to_owned()));
            self.rest = &self.rest[name.len() + "${}".len()..];
        } else {
            push(parts, letter);
            self.next();
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = &self.rest[letter.len_utf8()..];
        self.line += usize::from(letter == '\n');
        Some(letter)
    }

    /// Within the line; the `\r` of `\r\n` is space as well.
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches(|letter: char| letter.is_whitespace() && letter != '\n');
    }

    fn skip_line(&mut self) {
        self.rest = self.rest.find('\n').map_or("", |end| &self.rest[end..]);
    }
}

fn push(parts: &mut Vec<Part>, letter: char) {
    if let Some(Part::Text(text)) = parts.last_mut() {
        text.push(letter);
    } else {
        parts.push(Part::Text(letter.to_string()));
    }
}

const UNCLOSED: &str = "the quote is not closed";

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let environment = HashMap::from([("HOME".to_owned(), "/home/ada".to_owned())]);
        let (variables, wrong) = parse(text, &environment);
        assert!(wrong.is_empty(), "{text}: {wrong:?}");
        variables.into_iter().map(|variable| (variable.name, variable.value)).collect()
    }

    #[test]
    fn a_value_is_read_as_phpdotenv_and_laravel_read_it() {
        for (text, value) in [
            ("A=b", "b"),
            ("A = b", "b"),
            ("  export A=b", "b"),
            ("export\tA=b", "b"),
            ("A=b # comment", "b"),
            ("A=b#comment", "b"),
            ("A=", ""),
            ("A= # comment", ""),
            ("A=\"\"", ""),
            ("A=\"b c\" # comment", "b c"),
            ("A='b # c'", "b # c"),
            ("A='b\\n${HOME}'", "b\\n${HOME}"),
            ("A=\"b\\n\\\"c\\\"\\\\\"", "b\n\"c\"\\"),
            ("A=\"b\nc\"", "b\nc"),
            ("A=${HOME}/x", "/home/ada/x"),
            ("A=\"${HOME}/x\"", "/home/ada/x"),
            ("A=\"\\${HOME}\"", "${HOME}"),
            ("A=${NOBODY}", "${NOBODY}"),
            ("A=$HOME", "$HOME"),
            ("A=pa$$word", "pa$$word"),
            ("A=a=b==", "a=b=="),
            ("A=\\n", "\\n"),
            ("A=(true)", "true"),
            ("A=(empty)", ""),
            ("A=b\r\n", "b"),
            ("\u{feff}A=b", "b"),
        ] {
            assert_eq!(values(text), [("A".to_owned(), value.to_owned())], "{text:?}");
        }
        for text in ["", "# A=b", "A", "export A", "A=null", "A=(NULL)", "\n \n\t#\n"] {
            assert_eq!(values(text), [], "{text:?}");
        }
    }

    #[test]
    fn a_reference_is_to_the_environment_or_to_a_line_above() {
        let text = "A=1\nHOME=2\nB=${A}${HOME}${C}\nC=3\nA=4\nD=${A}\n";
        let all = values(text);
        let value = |name: &str| all.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!((value("B"), value("D")), (Some("1/home/ada${C}"), Some("4")));
    }

    #[test]
    fn what_cannot_be_read_is_told_by_line_and_not_repeated() {
        let (variables, wrong) =
            parse("A=1\nB=hunter2 hunter3\nC=2\n=x\nD=\"\\x\"\nE='hunter2\nF=3\n", &HashMap::new());
        assert_eq!(
            variables.iter().map(|variable| (&*variable.name, variable.line)).collect::<Vec<_>>(),
            [("A", 1), ("C", 3), ("F", 7)]
        );
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5, 6]);
        assert!(!format!("{wrong:?}").contains("hunter"), "{wrong:?}");
        let (variables, _) = parse("A=\"1\n2\n\"\nB=3", &HashMap::new());
        assert_eq!(variables[1].line, 4);
        let refused = read(Path::new("/nowhere/.env"), &HashMap::new()).expect_err("no file");
        assert!(
            refused[0].to_string().starts_with("/nowhere/.env: the file of variables cannot be read: "),
            "{refused:?}"
        );
    }
}
