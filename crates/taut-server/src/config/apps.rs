//! An app as a table: in the configuration file, and in the column `options` of a database.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::field::Field;
use super::settings::{SETTINGS, Setting};
use super::text;
use super::upgrade;
use super::value::{Diagnostics, Entry, Located, Value};
use crate::address;
use crate::app::{AppConfig, Features, Key, Limits, Secret, Webhook, WebhookEvent};

/// What an app's table, `[[apps]]`, may hold.
pub const APP_FIELDS: &[Field] = &[
    field(
        "id",
        "TEXT",
        "",
        "Names the app in the paths of the HTTP API. Use digits: some of Pusher's server libraries (Python's) take nothing else",
    ),
    field("key", "TEXT", "", "Names the app to clients; not secret"),
    field("secret", "TEXT", "", "Signs for the app"),
    field(
        "keys",
        "LIST",
        "",
        "Instead of key and secret: several, all of them good, as { key = \"…\", secret = \"…\" }; the first, the oldest, signs webhooks",
    ),
    field(
        "enabled",
        "true|false",
        "true",
        "Whether the app is served; clients of one that is not are closed with 4003",
    ),
    field(
        "client-events",
        "true|false",
        "true",
        "Whether clients may send events to the other members of private and presence channels",
    ),
    field(
        "subscription-count",
        "true|false|info",
        "false",
        "Whether subscribers are told how many they are, and backends that ask; with info, backends alone, as Soketi and Reverb have it",
    ),
    field(
        "watchlist",
        "true|false",
        "false",
        "Whether signed-in users are told when those on their watchlists come and go",
    ),
    field(
        "authorization-timeout",
        "SECONDS",
        "0",
        "How long a connection may stay without signing in or subscribing to a private or presence channel (0: for ever)",
    ),
    field(
        "presence-grace",
        "SECONDS",
        "0",
        "How long a user who lost its last connection stays in presence channels, and online for watchlists, before others are told (0: at once, most: 60)",
    ),
    field(
        "fallback",
        "true|false",
        "true",
        "Whether clients that cannot have a WebSocket may come by HTTP; others are closed with 4005. The server's own fallback has to be on",
    ),
    field(
        "origins",
        "LIST",
        "",
        "The origins whose pages may connect, such as https://example.com or https://*.example.com; null and file:// are pages without a host (sandboxed frames, Electron, Cordova). With none, all may",
    ),
    field("limits", "TABLE", "", "Limits of its own; what is not named is as for all apps"),
    field("webhooks", "TABLES", "", "Whom to tell what happens"),
    field("upgrade", "TABLE", "", "How clients show who they are before they are let in; with none, nothing is asked"),
];

/// What a webhook's table, `[[apps.webhooks]]`, may hold.
pub const WEBHOOK_FIELDS: &[Field] = &[
    field("url", "URL", "", "Where requests go, by POST: http:// or https://"),
    field("events", "LIST", "", WebhookEvent::HELP),
    field("channel-prefix", "TEXT", "", "Only of channels whose names begin so"),
    field("channel-suffix", "TEXT", "", "Only of channels whose names end so"),
    field("headers", "TABLE", "", "Further headers of each request"),
    field("batching", "true|false", "false", "Whether events that happen at about the same time come in one request"),
];

const fn field(name: &'static str, value: &'static str, default: &'static str, help: &'static str) -> Field {
    Field { name, value, default, help }
}

/// An app, once all limits for all apps are known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PartialApp {
    pub(crate) app: AppConfig,
    /// Where it is.
    pub(crate) at: usize,
    /// By their names in `[limits]`.
    limits: Vec<(&'static str, String)>,
    /// Whether a webhook was left out, since it cannot be used.
    pub(crate) lacks_webhooks: bool,
}

impl PartialApp {
    pub(crate) fn new(app: AppConfig, at: usize) -> Self {
        Self { app, at, limits: Vec::new(), lacks_webhooks: false }
    }

    /// The app, with those of its limits that it names and the others as they are for all.
    pub(crate) fn finish(self, for_all: &Limits) -> AppConfig {
        let mut limits = *for_all;
        for (name, text) in &self.limits {
            // Each was accepted before.
            let _ = find_limit(name).and_then(|(_, setting)| setting.apply_limit(&mut limits, text));
        }
        AppConfig { limits: (!self.limits.is_empty()).then_some(limits), ..self.app }
    }

    /// The app's own limits, by their names in `[limits]`, and their texts.
    pub(crate) fn own_limits(&self) -> &[(&'static str, String)] {
        &self.limits
    }

    /// Sets one of the app's own limits.
    pub(crate) fn limit(&mut self, name: &str, text: String) -> Result<(), String> {
        let (name, setting) = find_limit(name)?;
        setting.apply_limit(&mut Limits::default(), &text)?;
        self.limits.retain(|(known, _)| *known != name);
        self.limits.push((name, text));
        Ok(())
    }

    /// Takes over what a table says about the app, except for who it is.
    pub(crate) fn read_options(&mut self, entries: &[Entry], complaints: &mut Diagnostics<'_>) {
        for entry in entries.iter().filter(|entry| !IDENTITY.contains(&entry.name.as_str())) {
            let value = &entry.value;
            let features = &mut self.app.features;
            let outcome = match entry.name.as_str() {
                "enabled" => value.switch().map(|on| self.app.enabled = on),
                "client-events" => value.switch().map(|on| features.client_events = on),
                "subscription-count" => subscription_count(value).map(|(told, in_info)| {
                    features.subscription_count = told;
                    features.subscription_count_in_info = in_info;
                }),
                "watchlist" => value.switch().map(|on| features.watchlist = on),
                "authorization-timeout" => {
                    seconds_or_none(value).map(|timeout| features.authorization_timeout = timeout)
                }
                "presence-grace" => value
                    .text()
                    .and_then(|text| text::seconds_between(&text, 0, LONGEST_GRACE))
                    .map(|grace| features.presence_grace = grace),
                "fallback" => value.switch().map(|on| features.fallback = on),
                "origins" => {
                    self.app.origins = value.elements().iter().filter_map(|value| origin(value, complaints)).collect();
                    Ok(())
                }
                "limits" => value.table().map(|entries| self.read_limits(entries, complaints)),
                "webhooks" => {
                    let tables = value.elements();
                    self.app.webhooks = tables.iter().filter_map(|value| webhook(value, complaints)).collect();
                    self.lacks_webhooks |= self.app.webhooks.len() < tables.len();
                    Ok(())
                }
                "upgrade" => {
                    self.app.upgrade = upgrade::read(value, complaints);
                    Ok(())
                }
                _ => {
                    complaints.unknown(entry, "setting of an app", APP_FIELDS.iter().map(|field| field.name));
                    Ok(())
                }
            };
            if let Err(reason) = outcome {
                complaints.complain(value.at, format!("{}: {reason}", entry.name));
            }
        }
    }

    fn read_limits(&mut self, entries: &[Entry], complaints: &mut Diagnostics<'_>) {
        for entry in entries {
            if limits().any(|name| name == entry.name) {
                if let Err(reason) = entry.value.text().and_then(|text| self.limit(&entry.name, text)) {
                    complaints.complain(entry.value.at, format!("{}: {reason}", entry.name));
                }
            } else {
                complaints.unknown(entry, "limit", limits().collect::<Vec<_>>());
            }
        }
    }
}

fn find_limit(name: &str) -> Result<(&'static str, &'static Setting), String> {
    let mut limits = SETTINGS.iter().filter_map(|setting| Some((setting.limit()?, setting)));
    limits.find(|(known, _)| *known == name).ok_or_else(|| format!("there is no limit {name:?}"))
}

/// The names of all limits that an app can have of its own.
pub(crate) fn limits() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(Setting::limit)
}

/// Reads an app's table; nothing, when it does not even say who it is.
pub(crate) fn read(table: &Located, complaints: &mut Diagnostics<'_>) -> Option<PartialApp> {
    let Ok(entries) = table.table() else {
        complaints.complain(
            table.at,
            "an app is a table: write [[apps]] on a line of its own, and below it id, key and secret",
        );
        return None;
    };
    let id = identity(entries, "id", complaints);
    let keys = keys(table, entries, complaints);
    let mut draft = PartialApp::new(
        AppConfig {
            id: id.unwrap_or_default(),
            keys: keys.unwrap_or_default(),
            enabled: true,
            limits: None,
            features: Features::default(),
            origins: Vec::new(),
            webhooks: Vec::new(),
            upgrade: None,
        },
        table.at,
    );
    draft.read_options(entries, complaints);
    if !entries.iter().any(|entry| entry.name == "id") {
        complaints.complain(table.at, "this app has no id: write id = \"…\"");
    }
    if draft.app.id.is_empty() || draft.app.keys.is_empty() {
        return None;
    }
    if let Err(invalid) = draft.app.check() {
        complaints.complain(table.at, invalid.to_string());
        return None;
    }
    Some(draft)
}

/// Whether subscribers are told how many they are, and whether backends alone may ask.
fn subscription_count(value: &Located) -> Result<(bool, bool), String> {
    match &value.value {
        Value::Text(text) if text == "info" => Ok((false, true)),
        Value::Text(text) if !["true", "false", "on", "off"].contains(&text.as_str()) => {
            Err(format!("{text:?} is neither true, false nor info"))
        }
        _ => value.switch().map(|on| (on, false)),
    }
}

/// Seconds. Who is not back after a minute has gone.
const LONGEST_GRACE: u32 = 60;

/// What says who an app is.
const IDENTITY: [&str; 4] = ["id", "key", "secret", "keys"];

fn identity(entries: &[Entry], name: &str, complaints: &mut Diagnostics<'_>) -> Option<String> {
    let entry = entries.iter().find(|entry| entry.name == name)?;
    match &entry.value.value {
        Value::Text(text) if !text.is_empty() => return Some(text.clone()),
        Value::Text(_) => complaints.complain(entry.value.at, format!("{name} is empty")),
        // Not repeated: it may be a secret.
        Value::Number(number) if name == "id" => {
            complaints.complain(entry.value.at, format!("id is a text: put it into quotes, id = \"{number}\""));
        }
        _ => complaints.complain(entry.value.at, format!("{name} is a text: put it into quotes, {name} = \"…\"")),
    }
    None
}

fn keys(table: &Located, entries: &[Entry], complaints: &mut Diagnostics<'_>) -> Option<Vec<Key>> {
    let single = entries.iter().find(|entry| ["key", "secret"].contains(&entry.name.as_str()));
    let Some(several) = entries.iter().find(|entry| entry.name == "keys") else {
        if single.is_none() {
            complaints.complain(table.at, "this app has no key: write key = \"…\" and secret = \"…\"");
            return None;
        }
        return Some(vec![key(table, entries, complaints)?]);
    };
    if let Some(single) = single {
        complaints
            .complain(single.at, format!("{} and keys cannot both be given: put all keys into keys", single.name));
    }
    let mut keys = Vec::new();
    for element in several.value.elements() {
        let Ok(entries) = element.table() else {
            complaints.complain(element.at, "each of the keys is written { key = \"…\", secret = \"…\" }");
            continue;
        };
        for entry in entries.iter().filter(|entry| !["key", "secret"].contains(&entry.name.as_str())) {
            complaints.unknown(entry, "part of a key", ["key", "secret"]);
        }
        keys.extend(key(element, entries, complaints));
    }
    if several.value.elements().is_empty() {
        complaints.complain(several.at, "keys is empty: an app has at least one key");
    }
    Some(keys)
}

fn key(table: &Located, entries: &[Entry], complaints: &mut Diagnostics<'_>) -> Option<Key> {
    for name in ["key", "secret"] {
        if !entries.iter().any(|entry| entry.name == name) {
            complaints.complain(table.at, format!("there is no {name} here: write {name} = \"…\""));
        }
    }
    let key = identity(entries, "key", complaints);
    let secret = identity(entries, "secret", complaints);
    Some(Key { key: key?, secret: Secret::from(secret?) })
}

fn seconds_or_none(value: &Located) -> Result<Duration, String> {
    text::seconds_or_none(&value.text()?)
}

fn origin(value: &Located, complaints: &mut Diagnostics<'_>) -> Option<String> {
    let text = match value.text() {
        Ok(text) => text,
        Err(reason) => {
            complaints.complain(value.at, format!("origins: {reason}"));
            return None;
        }
    };
    if crate::origin::check(&text) {
        return Some(text);
    }
    complaints.complain(
        value.at,
        format!("{text:?} is not an origin: write a scheme and a host without a path, for instance https://example.com or https://*.example.com, or null or file:// for pages that have no host; to let in all pages, leave origins out"),
    );
    None
}

fn webhook(table: &Located, complaints: &mut Diagnostics<'_>) -> Option<Webhook> {
    let Ok(entries) = table.table() else {
        complaints.complain(
            table.at,
            "a webhook is a table: write [[apps.webhooks]] on a line of its own, and below it url = \"…\"",
        );
        return None;
    };
    let mut webhook = Webhook::new("");
    for entry in entries {
        let value = &entry.value;
        let outcome = match entry.name.as_str() {
            "url" => value.text().and_then(|text| {
                address::parse(&text).map_err(|invalid| invalid.to_string())?;
                webhook.url = text;
                Ok(())
            }),
            "events" => {
                webhook.events = value.elements().iter().filter_map(|value| webhook_event(value, complaints)).collect();
                Ok(())
            }
            "channel-prefix" => value.text().map(|text| webhook.channel_prefix = text),
            "channel-suffix" => value.text().map(|text| webhook.channel_suffix = text),
            "headers" => value.table().map(|entries| {
                webhook.headers = entries.iter().filter_map(|entry| header(entry, complaints)).collect();
            }),
            "batching" => value.switch().map(|on| webhook.batching = on),
            _ => {
                complaints.unknown(entry, "setting of a webhook", WEBHOOK_FIELDS.iter().map(|field| field.name));
                Ok(())
            }
        };
        if let Err(reason) = outcome {
            complaints.complain(value.at, format!("{}: {reason}", entry.name));
        }
    }
    if !entries.iter().any(|entry| entry.name == "url") {
        complaints.complain(table.at, "this webhook has no url: write url = \"https://…\"");
    }
    if webhook.url.is_empty() {
        return None;
    }
    crate::webhooks::check(&webhook).map_err(|invalid| complaints.complain(table.at, invalid.to_string())).ok()?;
    Some(webhook)
}

pub(crate) fn event_by_name(name: &str) -> Result<WebhookEvent, String> {
    let found = WebhookEvent::ALL.iter().copied().find(|event| event.name() == name);
    found.ok_or_else(|| format!("there is no event {name:?} for webhooks; there are: {}", WebhookEvent::NAMES))
}

fn webhook_event(value: &Located, complaints: &mut Diagnostics<'_>) -> Option<WebhookEvent> {
    value.text().and_then(|name| event_by_name(&name)).map_err(|reason| complaints.complain(value.at, reason)).ok()
}

fn header(entry: &Entry, complaints: &mut Diagnostics<'_>) -> Option<(String, String)> {
    if HeaderName::from_bytes(entry.written.as_bytes()).is_err() {
        complaints.complain(entry.at, format!("{:?} is no name of a header", entry.written));
        return None;
    }
    // Not repeated: it may be a secret.
    match entry.value.text() {
        Ok(text) if HeaderValue::from_str(&text).is_ok() => Some((entry.written.clone(), text)),
        _ => {
            complaints.complain(entry.value.at, format!("the header {} takes a text of one line", entry.written));
            None
        }
    }
}
