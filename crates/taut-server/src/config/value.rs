//! A value of a configuration with its place, whatever it was written in.

use std::ops::Range;
use std::path::Path;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::text;

/// A value, and where it begins in its source.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Located {
    pub(crate) value: Value,
    pub(crate) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    /// As it was written.
    Number(String),
    Switch(bool),
    List(Vec<Located>),
    Table(Vec<Entry>),
    /// Of a database or of JSON: not given.
    #[cfg_attr(not(feature = "database"), allow(dead_code, reason = "only databases hold such"))]
    Nothing,
    /// A date or a time, which nothing here takes.
    Time,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// With dashes: `client_events` is `client-events`.
    pub(crate) name: String,
    pub(crate) written: String,
    pub(crate) at: usize,
    pub(crate) value: Located,
}

impl Entry {
    fn new(written: &str, at: usize, value: Located) -> Self {
        Self { name: written.replace('_', "-"), written: written.to_owned(), at, value }
    }
}

impl Located {
    /// Reads a table of TOML; what is wrong with its form is complained about.
    pub(crate) fn from_toml(text: &str, complaints: &mut Diagnostics<'_>) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            // The message alone: the whole error repeats the line, and that may be one with a secret.
            complaints
                .complain(error.span().map_or(0, |span| span.start), format!("this is no TOML: {}", error.message()));
        }
        let at = table.span().start;
        Self { value: Value::Table(entries(table.into_inner(), text)), at }
    }

    #[cfg_attr(not(feature = "database"), allow(dead_code, reason = "only databases hold such"))]
    /// Takes over a value of JSON, which has no places.
    pub(crate) fn from_json(json: Json) -> Self {
        let value = match json {
            Json::Null => Value::Nothing,
            Json::Bool(on) => Value::Switch(on),
            Json::Number(number) => Value::Number(number.to_string()),
            Json::String(text) => Value::Text(text),
            Json::Array(values) => Value::List(values.into_iter().map(Self::from_json).collect()),
            Json::Object(entries) => Value::Table(
                entries.into_iter().map(|(name, value)| Entry::new(&name, 0, Self::from_json(value))).collect(),
            ),
        };
        Self { value, at: 0 }
    }

    /// The text that a [`Setting`](super::Setting) reads, of what is a single value.
    pub(crate) fn text(&self) -> Result<String, String> {
        match &self.value {
            Value::Text(text) | Value::Number(text) => Ok(text.clone()),
            Value::Switch(on) => Ok(if *on { "on" } else { "off" }.to_owned()),
            Value::List(_) => Err("it takes a single value, and this is a list".to_owned()),
            Value::Table(_) => Err("it takes a single value, and this is a table".to_owned()),
            Value::Nothing => Err("it takes a value, and this is none".to_owned()),
            Value::Time => Err("it takes no date and no time of day: put a text into quotes".to_owned()),
        }
    }

    /// On or off: `true`, `false`, `"on"`, `"off"`, and 0 and 1 as databases have them.
    pub(crate) fn switch(&self) -> Result<bool, String> {
        match &self.value {
            Value::Switch(on) => Ok(*on),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            Value::Number(number) if number == "1" => Ok(true),
            Value::Number(number) if number == "0" => Ok(false),
            Value::Text(text) => text::switch(text),
            _ => Err("it is either true or false".to_owned()),
        }
    }

    /// The elements of a list; a single value is a list of one.
    pub(crate) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::List(elements) => elements,
            Value::Nothing => &[],
            _ => std::slice::from_ref(self),
        }
    }

    pub(crate) fn table(&self) -> Result<&[Entry], String> {
        match &self.value {
            Value::Table(entries) => Ok(entries),
            _ => Err("it is a table: names and their values".to_owned()),
        }
    }
}

fn entries(table: DeTable<'_>, source: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(name, value)| {
            let at = name.span().start;
            Entry::new(name.get_ref(), at, from_toml(value, source))
        })
        .collect();
    // As they were written, not by name.
    entries.sort_by_key(|entry| entry.at);
    entries
}

fn from_toml(value: Spanned<DeValue<'_>>, source: &str) -> Located {
    let Range { start: at, end } = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Value::Number(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let whole = i64::from_str_radix(number.as_str(), number.radix());
            Value::Number(
                whole.map_or_else(|_| source.get(at..end).unwrap_or_default().to_owned(), |whole| whole.to_string()),
            )
        }
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(on) => Value::Switch(on),
        DeValue::Datetime(_) => Value::Time,
        DeValue::Array(values) => Value::List(values.into_iter().map(|value| from_toml(value, source)).collect()),
        DeValue::Table(table) => Value::Table(entries(table, source)),
    };
    Located { value, at }
}

/// The mistakes of one source.
#[derive(Debug)]
pub(crate) struct Diagnostics<'s> {
    source: Source<'s>,
    pub(crate) mistakes: Vec<Diagnostic>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'s> {
    File {
        path: &'s Path,
        text: &'s str,
    },
    #[cfg_attr(not(feature = "database"), allow(dead_code, reason = "only databases hold such"))]
    Named(&'s str),
}

impl<'s> Diagnostics<'s> {
    pub(crate) fn about(source: Source<'s>) -> Self {
        Self { source, mistakes: Vec::new() }
    }

    pub(crate) fn complain(&mut self, at: usize, reason: impl Into<String>) {
        let place = self.place(at);
        self.mistakes.push(Diagnostic::new(place, reason));
    }

    pub(crate) fn place(&self, at: usize) -> String {
        match self.source {
            Source::File { path, text } => {
                let before = text.get(..at).unwrap_or(text);
                let line = 1 + before.matches('\n').count();
                format!("{}, line {line}", path.display())
            }
            Source::Named(name) => name.to_owned(),
        }
    }

    /// An unknown name, with the one that was probably meant.
    pub(crate) fn unknown<'a>(&mut self, entry: &Entry, what: &str, known: impl IntoIterator<Item = &'a str> + Clone) {
        let remedy = match text::nearest(&entry.name, known.clone()) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => format!("there are: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.complain(entry.at, format!("there is no {what} {:?}; {remedy}", entry.name));
    }
}
