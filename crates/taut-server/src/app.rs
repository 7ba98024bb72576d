//! Apps: who may use this server, with which secret, within which limits.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One application that uses this server.
#[derive(Clone, Debug)]
pub struct App {
    /// Names the app in the paths of the HTTP API.
    pub id: String,
    /// Names the app to browsers; not secret.
    pub key: String,
    /// Signs for the app.
    pub secret: Secret,
    /// What the app's clients and publishers may use; `None`: what the configuration says for all apps.
    pub limits: Option<Limits>,
}

impl App {
    /// The app for trying things out: `app-id`, `app-key`, `app-secret`. Everybody knows its secret.
    pub fn development() -> Self {
        Self { id: "app-id".to_owned(), key: "app-key".to_owned(), secret: Secret("app-secret".into()), limits: None }
    }

    /// Reads `ID:KEY:SECRET`.
    ///
    /// The error repeats nothing of the text, since a part of it is a secret.
    pub fn parse(text: &str) -> Result<Self, InvalidApp> {
        let parts: Vec<&str> = text.trim().split(':').collect();
        let &[id, key, secret] = parts.as_slice() else {
            return Err(InvalidApp::Parts { found: parts.len() });
        };
        for (name, part) in [("id", id), ("key", key), ("secret", secret)] {
            if part.is_empty() {
                return Err(InvalidApp::Empty { name });
            }
        }
        for (name, part) in [("id", id), ("key", key)] {
            // Both stand in URLs, where nothing needs to be escaped if only RFC 3986's unreserved characters are used.
            if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
                return Err(InvalidApp::Character { name });
            }
        }
        if secret.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(InvalidApp::Space);
        }
        Ok(Self { id: id.to_owned(), key: key.to_owned(), secret: Secret(secret.into()), limits: None })
    }
}

/// An app's secret. `Debug` does not show it, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// The secret itself, to sign or verify with.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// What one app's clients and publishers may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; 0 means no limit, which is the default. The one too many is closed with 4004.
    pub connections: usize,
    /// Channels that one connection may be subscribed to; 1,000 by default.
    pub subscriptions: usize,
    /// Bytes of a channel's name; 200 by default, as the SDKs allow (Pusher's own documents say 164).
    pub channel_name: usize,
    /// Characters of an event's name; 200 by default.
    pub event_name: usize,
    /// Bytes of an event's data; 100 KiB by default, as other self-hosted servers allow (Pusher's cloud allows 10 KiB).
    pub event_data: usize,
    /// Channels in one publish; 100 by default, which is also what the SDKs allow.
    pub channels_per_publish: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 0,
            subscriptions: 1000,
            channel_name: 200,
            event_name: 200,
            event_data: 100 * 1024,
            channels_per_publish: 100,
        }
    }
}

/// An app while it is served.
#[derive(Debug)]
pub struct Tenant {
    app: App,
    index: usize,
    limits: Limits,
    connections: AtomicUsize,
}

impl Tenant {
    /// What was configured.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// The place of this app among all: 0, 1 and so on, for tables by app.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The limits that hold for this app.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Open connections of this app, on all shards.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts one more connection for as long as the admission lives; `None` when there are as many as may be.
    pub fn admit(self: &Arc<Self>) -> Option<Admission> {
        let most = if self.limits.connections == 0 { usize::MAX } else { self.limits.connections };
        let one_more = |count| (count < most).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Admission(Arc::clone(self)))
    }
}

/// One connection's place in its app, given back when dropped.
#[derive(Debug)]
pub struct Admission(Arc<Tenant>);

impl Deref for Admission {
    type Target = Arc<Tenant>;

    fn deref(&self) -> &Arc<Tenant> {
        &self.0
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All apps, found by id (publishers name that) or by key (clients name that).
#[derive(Clone, Debug)]
pub struct Apps {
    tenants: Vec<Arc<Tenant>>,
    by_id: HashMap<String, usize>,
    by_key: HashMap<String, usize>,
    development: bool,
}

impl Apps {
    /// Collects apps; no two may share an id or a key. `limits` are for those that have none of their own.
    pub fn new(apps: impl IntoIterator<Item = App>, limits: &Limits) -> Result<Self, DuplicateApp> {
        let mut all = Self { tenants: Vec::new(), by_id: HashMap::new(), by_key: HashMap::new(), development: false };
        for (index, app) in apps.into_iter().enumerate() {
            if all.by_id.insert(app.id.clone(), index).is_some() {
                return Err(DuplicateApp { name: "id", value: app.id });
            }
            if all.by_key.insert(app.key.clone(), index).is_some() {
                return Err(DuplicateApp { name: "key", value: app.key });
            }
            let limits = app.limits.unwrap_or(*limits);
            all.tenants.push(Arc::new(Tenant { app, index, limits, connections: AtomicUsize::new(0) }));
        }
        Ok(all)
    }

    /// Only the development app, which nobody has asked for by name.
    pub fn development(limits: &Limits) -> Self {
        let app = App::development();
        Self {
            by_id: HashMap::from([(app.id.clone(), 0)]),
            by_key: HashMap::from([(app.key.clone(), 0)]),
            tenants: vec![Arc::new(Tenant { app, index: 0, limits: *limits, connections: AtomicUsize::new(0) })],
            development: true,
        }
    }

    /// The app with this id.
    pub fn by_id(&self, id: &str) -> Option<&Arc<Tenant>> {
        self.by_id.get(id).map(|&index| &self.tenants[index])
    }

    /// The app with this key.
    pub fn by_key(&self, key: &str) -> Option<&Arc<Tenant>> {
        self.by_key.get(key).map(|&index| &self.tenants[index])
    }

    /// The development app, where that is served for want of another.
    pub fn development_app(&self) -> Option<&Arc<Tenant>> {
        self.tenants.first().filter(|_| self.development)
    }

    /// Every app once, in the order of their [indices](Tenant::index).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.tenants.iter()
    }
}

/// Why a text is no `ID:KEY:SECRET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidApp {
    /// There are not three parts.
    Parts {
        /// How many there are.
        found: usize,
    },
    /// A part is empty.
    Empty {
        /// Which one.
        name: &'static str,
    },
    /// The id or the key has a character that would have to be escaped in a URL.
    Character {
        /// Which one.
        name: &'static str,
    },
    /// The secret has a space or a control character in it.
    Space,
}

impl fmt::Display for InvalidApp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts { found } => {
                let found_parts = if *found == 1 { "is 1 part".to_owned() } else { format!("are {found} parts") };
                write!(
                    formatter,
                    "an app is written ID:KEY:SECRET, three parts with colons between them; here {found_parts}"
                )
            }
            Self::Empty { name } => write!(formatter, "the app's {name} is empty; an app is written ID:KEY:SECRET"),
            Self::Character { name } => {
                write!(
                    formatter,
                    "the app's {name} may hold only letters and digits of ASCII and - . _ ~, since it stands in URLs"
                )
            }
            Self::Space => formatter.write_str("the app's secret may hold no spaces and no control characters"),
        }
    }
}

impl std::error::Error for InvalidApp {}

/// Two apps with the same id or the same key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateApp {
    name: &'static str,
    value: String,
}

impl fmt::Display for DuplicateApp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "two apps have the {} {:?}; each app needs its own id and its own key", self.name, self.value)
    }
}

impl std::error::Error for DuplicateApp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_id_key_and_secret() {
        let app = App::parse(" 3:278d425bdf160c739803:7ad3773142a6692b25b8\n").expect("an app");
        assert_eq!((app.id.as_str(), app.key.as_str()), ("3", "278d425bdf160c739803"));
        assert_eq!(app.secret.reveal(), "7ad3773142a6692b25b8");
    }

    #[test]
    fn what_is_no_app_is_explained_without_repeating_it() {
        for (text, reason) in [
            ("", "here is 1 part"),
            ("hunter2", "here is 1 part"),
            ("1:hunter2", "here are 2 parts"),
            ("1:2:3:hunter2", "here are 4 parts"),
            (":key:hunter2", "the app's id is empty"),
            ("id::hunter2", "the app's key is empty"),
            ("id:key:", "the app's secret is empty"),
            ("i/d:key:hunter2", "the app's id may hold only"),
            ("id:k y:hunter2", "the app's key may hold only"),
            ("id:key:hunter2 x", "the app's secret may hold no spaces"),
        ] {
            let refused = App::parse(text).expect_err(text).to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    fn apps(texts: &[&str]) -> Result<Apps, DuplicateApp> {
        Apps::new(texts.iter().map(|text| App::parse(text).expect(text)), &Limits::default())
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let shown = format!("{:?}", Apps::development(&Limits::default()));
        assert!(shown.contains("app-key"), "{shown}");
        assert!(!shown.contains("app-secret"), "{shown}");
    }

    #[test]
    fn apps_are_found_by_id_and_by_key_and_not_crosswise() {
        let apps = apps(&["1:a:x", "2:b:y"]).expect("two apps");
        assert_eq!(apps.by_id("2").map(|tenant| tenant.app().key.as_str()), Some("b"));
        assert_eq!(apps.by_key("a").map(|tenant| tenant.app().id.as_str()), Some("1"));
        assert!(apps.by_id("a").is_none() && apps.by_key("1").is_none());
        assert_eq!(apps.iter().map(|tenant| tenant.index()).collect::<Vec<_>>(), [0, 1]);
        assert!(apps.development_app().is_none());
    }

    #[test]
    fn two_apps_with_one_id_or_one_key_are_refused() {
        for (second, reason) in [("1:b:y", "two apps have the id \"1\""), ("2:a:y", "two apps have the key \"a\"")] {
            let refused = apps(&["1:a:x", second]).expect_err(second);
            assert!(refused.to_string().contains(reason), "{refused}");
        }
    }

    #[test]
    fn an_apps_own_limits_go_before_those_for_all() {
        let mut app = App::development();
        let for_all = Limits { connections: 5, ..Limits::default() };
        let limits = |app: &App| *Apps::new([app.clone()], &for_all).expect("one app").tenants[0].limits();
        assert_eq!(limits(&app).connections, 5);
        app.limits = Some(Limits::default());
        assert_eq!(limits(&app).connections, 0);
    }

    #[test]
    fn as_many_connections_are_admitted_as_may_be_and_each_gives_its_place_back() {
        let for_all = Limits { connections: 2, ..Limits::default() };
        let apps = Apps::new([App::development()], &for_all).expect("one app");
        let tenant = apps.by_id("app-id").expect("the app");
        let first = tenant.admit();
        let second = tenant.admit();
        assert!(first.is_some() && second.is_some() && tenant.admit().is_none());
        assert_eq!(tenant.connections(), 2);
        drop(first);
        assert_eq!(tenant.connections(), 1);
        assert!(tenant.admit().is_some());
    }
}
