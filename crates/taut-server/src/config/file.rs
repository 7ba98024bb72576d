//! The configuration file, in TOML.

use std::fs;
use std::path::{Path, PathBuf};

use super::Config;
use super::apps::{self, PartialApp};
use super::diagnostic::Diagnostic;
use super::routes as tables;
use super::settings::{RETIRED, SETTINGS, Setting};
use super::value::{Diagnostics, Located, Source};
use crate::gateway::RouteConfig;

/// What a configuration file says.
#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    text: String,
    /// Each with its text and its place.
    settings: Vec<(&'static Setting, String, usize)>,
    pub(crate) apps: Vec<PartialApp>,
    pub(crate) routes: Vec<RouteConfig>,
    /// Whether it says which apps there are, were it none.
    pub(crate) names_apps: bool,
}

impl File {
    /// Reads it; as much as can be understood, and what is wrong with the rest.
    pub(crate) fn read(path: &Path) -> Result<(Self, Vec<Diagnostic>), Diagnostic> {
        let text = fs::read_to_string(path).map_err(|error| {
            Diagnostic::new(path.display().to_string(), format!("the configuration file cannot be read: {error}"))
        })?;
        let mut complaints = Diagnostics::about(Source::File { path, text: &text });
        let contents = Located::from_toml(&text, &mut complaints);
        let mut settings = Vec::new();
        let (mut apps, mut routes) = (Vec::new(), Vec::new());
        let names_apps = contents.table().is_ok_and(|entries| entries.iter().any(|entry| entry.name == "apps"));
        if complaints.mistakes.is_empty() {
            read_contents(&contents, &mut settings, &mut apps, &mut routes, &mut complaints);
        }
        let mistakes = complaints.mistakes;
        Ok((Self { path: path.to_owned(), text, settings, apps, routes, names_apps }, mistakes))
    }

    /// Where something is.
    pub(crate) fn place(&self, at: usize) -> String {
        Diagnostics::about(Source::File { path: &self.path, text: &self.text }).place(at)
    }

    /// The texts that a setting is given, with their places.
    pub(crate) fn values(&self, setting: &Setting) -> impl Iterator<Item = (&str, usize)> {
        self.settings
            .iter()
            .filter(move |(known, ..)| known.name == setting.name)
            .map(|(_, text, at)| (text.as_str(), *at))
    }
}

fn read_contents(
    contents: &Located,
    settings: &mut Vec<(&'static Setting, String, usize)>,
    apps: &mut Vec<PartialApp>,
    routes: &mut Vec<RouteConfig>,
    complaints: &mut Diagnostics<'_>,
) {
    let Ok(entries) = contents.table() else { return };
    for entry in entries {
        match entry.name.as_str() {
            "apps" if entry.value.elements().is_empty() => complaints.complain(
                entry.at,
                "apps is empty: write [[apps]] on a line of its own, and below it id, key and secret; to serve the development app, leave apps out",
            ),
            "apps" => apps.extend(entry.value.elements().iter().filter_map(|table| apps::read(table, complaints))),
            "routes" => {
                routes.extend(entry.value.elements().iter().filter_map(|table| tables::read(table, complaints)));
            }
            "cluster" if entry.value.table().is_ok() => {
                read_table(&entry.value, "setting of the cluster", &in_cluster(), settings, complaints);
            }
            "limits" if entry.value.table().is_ok() => {
                read_table(&entry.value, "limit", &limits(), settings, complaints);
            }
            "limits" => complaints.complain(entry.at, "limits is a table: write [limits] on a line of its own"),
            name => {
                if let Some(setting) = in_file().chain(RETIRED).find(|setting| setting.name == name) {
                    read_setting(setting, &entry.value, settings, complaints);
                } else {
                    let known = in_file().map(|setting| setting.name).chain(["apps", "limits", "routes"]);
                    complaints.unknown(entry, "setting", known.collect::<Vec<_>>());
                }
            }
        }
    }
}

/// A file does not name another one to be read in its place, nor one that goes before it.
fn in_file() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| !["config", "env-file"].contains(&setting.name))
}

/// Settings by their names in a table.
type Named = Vec<(&'static str, &'static Setting)>;

/// In the table `[limits]`.
fn limits() -> Named {
    SETTINGS.iter().filter_map(|setting| Some((setting.limit()?, setting))).collect()
}

/// In the table `[cluster]`, where `url` is the setting `cluster`.
fn in_cluster() -> Named {
    let named = |setting: &'static Setting| match setting.name {
        "cluster" => Some(("url", setting)),
        name => Some((name.strip_prefix("cluster-")?, setting)),
    };
    SETTINGS.iter().filter_map(named).collect()
}

fn read_table(
    table: &Located,
    what: &str,
    known: &[(&'static str, &'static Setting)],
    settings: &mut Vec<(&'static Setting, String, usize)>,
    complaints: &mut Diagnostics<'_>,
) {
    for entry in table.table().unwrap_or_default() {
        if let Some((_, setting)) = known.iter().find(|(name, _)| *name == entry.name) {
            read_setting(setting, &entry.value, settings, complaints);
        } else {
            complaints.unknown(entry, what, known.iter().map(|(name, _)| *name));
        }
    }
}

fn read_setting(
    setting: &'static Setting,
    value: &Located,
    settings: &mut Vec<(&'static Setting, String, usize)>,
    complaints: &mut Diagnostics<'_>,
) {
    if let Some((.., at)) = settings.iter().find(|(known, ..)| known.name == setting.name) {
        let first = complaints.place(*at);
        complaints.complain(value.at, format!("{} was already set at {first}", setting.name));
        return;
    }
    let elements = if setting.repeatable { value.elements() } else { std::slice::from_ref(value) };
    for element in elements {
        // Tried out here, so that a mistake is found even where a flag or a variable goes before it.
        let outcome = element.text().and_then(|text| setting.apply(&mut Config::default(), &text).map(|()| text));
        match outcome {
            Ok(text) => settings.push((setting, text, element.at)),
            Err(reason) => complaints.complain(element.at, format!("{}: {reason}", setting.name)),
        }
    }
}
