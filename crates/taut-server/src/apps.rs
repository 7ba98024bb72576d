//! The apps while they are served: found by id or key, counted, and replaced without a restart.

mod places;

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::app::{AppConfig, Limits};
use crate::place::AppIndex;
use crate::pusher::auth::{SigningKey, decode_percent};
use crate::refusals::Refusals;
pub use places::NoPlace;
use places::Places;

/// An app while it is served. It stays the same when its configuration is replaced.
#[derive(Debug)]
pub struct App {
    index: AppIndex,
    id: Box<str>,
    snapshot: ArcSwap<AppSnapshot>,
    places: Places,
    /// Clients that wait for a place to be granted.
    waiting: AtomicUsize,
    /// How often this node has asked for places.
    draws: AtomicU64,
    /// How many connections are carried by HTTP, as [`Fallback`] has them.
    carried: [AtomicUsize; Fallback::ALL.len()],
    channels: AtomicUsize,
    refusals: Refusals,
}

impl App {
    fn new(index: AppIndex, snapshot: AppSnapshot) -> Self {
        let id = snapshot.config.id.as_str().into();
        Self {
            index,
            id,
            snapshot: ArcSwap::from_pointee(snapshot),
            places: Places::new(),
            waiting: AtomicUsize::new(0),
            draws: AtomicU64::new(0),
            carried: Default::default(),
            channels: AtomicUsize::new(0),
            refusals: Refusals::default(),
        }
    }

    /// The place of this app among all: 0, 1 and so on, for tables by app.
    pub fn index(&self) -> AppIndex {
        self.index
    }

    /// What names the app in the paths of the HTTP API.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is configured now. The next call may give something else: one decision takes one look.
    pub fn snapshot(&self) -> impl Deref<Target = Arc<AppSnapshot>> {
        self.snapshot.load()
    }

    /// Open connections of this app, on all shards.
    pub fn connections(&self) -> usize {
        self.places.taken()
    }

    /// How many of the [`connections`](Self::connections) come by this way.
    pub(crate) fn carried(&self, fallback: Fallback) -> usize {
        self.carried[fallback as usize].load(Ordering::Relaxed)
    }

    /// Counts one more connection that comes by HTTP, for as long as the result lives.
    pub(crate) fn carry(self: &Arc<Self>, fallback: Fallback) -> Carried {
        self.carried[fallback as usize].fetch_add(1, Ordering::Relaxed);
        Carried(Arc::clone(self), fallback)
    }

    /// What the app's clients and backends were refused.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Counts one more channel with subscribers, of all shards; `false` if there are `most` already, where 0 means no limit.
    pub(crate) fn open_channel(&self, most: usize) -> bool {
        let most = if most == 0 { usize::MAX } else { most };
        let one_more = |count| (count < most).then_some(count + 1);
        self.channels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// A channel that was counted has lost its last subscriber.
    pub(crate) fn close_channel(&self) {
        self.channels.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one more connection for as long as the admission lives, unless there are as many as may be.
    pub fn admit(self: &Arc<Self>) -> Result<Admission, NoPlace> {
        self.places.take(self.snapshot().limits.connections)?;
        Ok(Admission(Arc::clone(self)))
    }

    /// This node may have so many connections of the app; `None`: as many as the limit says, whatever other nodes have.
    pub(crate) fn grant(&self, places: Option<usize>) {
        self.places.grant(places);
    }

    /// The places that this node was granted; `None` where it shares them with nobody.
    pub(crate) fn granted(&self) -> Option<usize> {
        self.places.granted()
    }

    /// This node asks for places: for the connections that it has, and for the clients that wait. What it does not need can be granted to others.
    pub(crate) fn draw(&self) -> Draw {
        // Before those who wait are counted: everybody who has waited since an earlier number is among them.
        let number = self.draws.fetch_add(1, Ordering::SeqCst) + 1;
        let waiting = self.waiting.load(Ordering::SeqCst);
        if waiting == 0 {
            let taken = self.places.reclaim();
            return Draw { number, taken, wanted: taken };
        }
        // Places may have been granted that nobody has had the time to take.
        let taken = self.places.taken();
        Draw { number, taken, wanted: (taken + waiting).max(self.granted().unwrap_or_default()) }
    }

    /// So many more clients wait for a place. Gives the number of the last draw, which does not count them.
    pub(crate) fn wait(&self, clients: usize) -> u64 {
        self.waiting.fetch_add(clients, Ordering::SeqCst);
        self.draws.load(Ordering::SeqCst)
    }

    /// So many clients wait no longer.
    pub(crate) fn stop_waiting(&self, clients: usize) {
        self.waiting.fetch_sub(clients, Ordering::SeqCst);
    }
}

/// Places for which a node asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    /// Counts the draws of this node for the app.
    pub(crate) number: u64,
    /// Connections that there are.
    pub(crate) taken: usize,
    pub(crate) wanted: usize,
}

/// What has come of a [`Draw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// All that was wanted; or nobody says how many there may be.
    All,
    /// Less: a client that has waited since before the draw of this number, and still finds no place, gets none.
    Less { number: u64 },
}

impl Granted {
    /// Whether a client that finds no place is not to wait on, if it has waited since the draw of this number.
    pub(crate) fn refuses(self, since: u64) -> bool {
        matches!(self, Self::Less { number } if since < number)
    }
}

/// On what terms an app is served.
#[derive(Clone, Debug)]
pub struct AppSnapshot {
    /// What was configured.
    pub config: AppConfig,
    /// The limits that hold: the app's own, or those for all apps.
    pub limits: Limits,
    /// Whether the app is configured at all. One that was taken out keeps its place, in case that it comes back.
    pub known: bool,
    /// Of the app's keys, in their order.
    signing_keys: Box<[SigningKey]>,
}

impl AppSnapshot {
    fn new(app: AppConfig, limits: &Limits) -> Self {
        let limits = app.limits.unwrap_or(*limits);
        let signing_keys = app.keys.iter().map(|key| SigningKey::new(key.secret.reveal())).collect();
        Self { config: app, limits, known: true, signing_keys }
    }

    /// What one of the app's keys signs with.
    pub fn signing_key(&self, key: &str) -> Option<&SigningKey> {
        let position = self.config.keys.iter().position(|known| known.key == key)?;
        self.signing_keys.get(position)
    }
}

/// One connection's place in its app, given back when dropped.
#[derive(Debug)]
pub struct Admission(Arc<App>);

impl Deref for Admission {
    type Target = Arc<App>;

    fn deref(&self) -> &Arc<App> {
        &self.0
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.places.give_back();
    }
}

/// How a client comes that has no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    XhrStreaming,
    XhrPolling,
    SockJs,
    /// A stream of a route.
    Stream,
}

impl Fallback {
    pub(crate) const ALL: [Self; 4] = [Self::XhrStreaming, Self::XhrPolling, Self::SockJs, Self::Stream];

    /// What metrics call it; a WebSocket is `ws`. The first three are pusher-js' names for its transports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::XhrStreaming => "xhr_streaming",
            Self::XhrPolling => "xhr_polling",
            Self::SockJs => "sockjs",
            Self::Stream => "sse",
        }
    }
}

/// A connection that is carried by HTTP, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Carried(Arc<App>, Fallback);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.carried[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// All apps, found by id (publishers name that) or by key (clients name that).
#[derive(Debug)]
pub struct Apps {
    directory: ArcSwap<Directory>,
    /// Held while the directory is replaced.
    replacing: Mutex<()>,
    /// What was refused to those who have named no app that there is.
    refusals: Refusals,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    /// By index; those that are configured no more keep their places.
    apps: Vec<Arc<App>>,
    /// By id, those that are configured no more included.
    places: HashMap<String, usize>,
    by_id: HashMap<String, usize>,
    by_key: HashMap<String, usize>,
    /// The development app, where that is served for want of another.
    development: Option<usize>,
}

impl Apps {
    /// Collects apps; no two may share an id or a key. `limits` are for those that have none of their own.
    pub fn new(apps: impl IntoIterator<Item = AppConfig>, limits: &Limits) -> Result<Self, DuplicateApp> {
        let all = Self::empty();
        all.replace(apps, limits)?;
        Ok(all)
    }

    /// Only the development app, which nobody has asked for by name.
    pub fn development(limits: &Limits) -> Self {
        let all = Self::empty();
        all.replace_by_development(limits);
        all
    }

    fn empty() -> Self {
        Self { directory: ArcSwap::default(), replacing: Mutex::new(()), refusals: Refusals::default() }
    }

    /// What was refused to those who have named no app that there is.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Puts the development app in the place of all.
    pub(crate) fn replace_by_development(&self, limits: &Limits) {
        // Alone it cannot be a duplicate.
        let _ = self.put([AppConfig::development()], limits, true);
    }

    /// Puts other apps in the place of all, or the same ones on other terms; nothing changes when two of them share an id or a key.
    ///
    /// An app that was there before, by its id, keeps its connections. Gives the apps that are there no more.
    pub fn replace(
        &self,
        apps: impl IntoIterator<Item = AppConfig>,
        limits: &Limits,
    ) -> Result<Vec<Arc<App>>, DuplicateApp> {
        self.put(apps, limits, false)
    }

    fn put(
        &self,
        apps: impl IntoIterator<Item = AppConfig>,
        limits: &Limits,
        is_development: bool,
    ) -> Result<Vec<Arc<App>>, DuplicateApp> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.directory.load_full();
        let mut after = Directory { apps: before.apps.clone(), places: before.places.clone(), ..Directory::default() };
        let mut changes = Vec::new();
        for app in apps {
            changes.extend(after.put(app, limits)?);
        }
        // Nothing can go wrong from here on.
        for (app, snapshot) in changes {
            app.snapshot.store(snapshot);
        }
        let mut gone = Vec::new();
        for app in &after.apps {
            if !after.by_id.contains_key(app.id()) && app.snapshot().known {
                let snapshot = AppSnapshot { known: false, ..AppSnapshot::clone(&app.snapshot()) };
                app.snapshot.store(Arc::new(snapshot));
                gone.push(Arc::clone(app));
            }
        }
        after.development = after.by_id.values().next().copied().filter(|_| is_development);
        self.directory.store(Arc::new(after));
        Ok(gone)
    }

    /// The app with this id.
    pub fn by_id(&self, id: &str) -> Option<Arc<App>> {
        let directory = self.directory.load();
        directory.by_id.get(id).map(|&index| Arc::clone(&directory.apps[index]))
    }

    /// The app with this key.
    pub fn by_key(&self, key: &str) -> Option<Arc<App>> {
        let directory = self.directory.load();
        directory.by_key.get(key).map(|&index| Arc::clone(&directory.apps[index]))
    }

    /// The app whose key stands in a path, raw or with escapes (RFC 3986 §2.1): clients write `+` and `=` either way.
    pub(crate) fn by_key_in_path(&self, segment: &str) -> Option<Arc<App>> {
        self.by_key(&decode_percent(segment))
    }

    /// The development app, where that is served for want of another.
    pub fn development_app(&self) -> Option<Arc<App>> {
        let directory = self.directory.load();
        directory.development.map(|index| Arc::clone(&directory.apps[index]))
    }

    /// The app with this index.
    pub(crate) fn by_index(&self, index: AppIndex) -> Option<Arc<App>> {
        self.directory.load().apps.get(index.get()).map(Arc::clone)
    }

    /// The only app that is served, if there is exactly one.
    pub fn only(&self) -> Option<Arc<App>> {
        let mut known = self.all().into_iter().filter(|app| app.snapshot().known);
        known.next().filter(|_| known.next().is_none())
    }

    /// Every app that is or was configured, in the order of their [indices](App::index).
    pub fn all(&self) -> Vec<Arc<App>> {
        self.directory.load().apps.clone()
    }
}

impl Directory {
    /// Adds an app; gives what its app's terms are to be, when it had others before.
    fn put(&mut self, app: AppConfig, limits: &Limits) -> Result<Option<Change>, DuplicateApp> {
        let known = self.places.get(&app.id).copied();
        let index = known.unwrap_or(self.apps.len());
        if self.by_id.insert(app.id.clone(), index).is_some() {
            return Err(DuplicateApp { name: "id", value: app.id });
        }
        for key in &app.keys {
            if self.by_key.insert(key.key.clone(), index).is_some() {
                return Err(DuplicateApp { name: "key", value: key.key.clone() });
            }
        }
        let snapshot = AppSnapshot::new(app, limits);
        if known.is_some() {
            return Ok(Some((Arc::clone(&self.apps[index]), Arc::new(snapshot))));
        }
        self.places.insert(snapshot.config.id.clone(), index);
        self.apps.push(Arc::new(App::new(AppIndex::new(index), snapshot)));
        Ok(None)
    }
}

/// An app that is to be served on other terms.
type Change = (Arc<App>, Arc<AppSnapshot>);

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
    use crate::app::Key;
    use crate::pusher::auth::Signature;

    fn apps(texts: &[&str]) -> Result<Apps, DuplicateApp> {
        Apps::new(texts.iter().map(|text| AppConfig::parse(text).expect(text)), &Limits::default())
    }

    #[test]
    fn apps_are_found_by_id_and_by_key_and_not_crosswise() {
        let apps = apps(&["1:a:x", "2:b:y"]).expect("two apps");
        assert_eq!(apps.by_id("2").map(|app| app.snapshot().config.key().key.clone()).as_deref(), Some("b"));
        assert_eq!(apps.by_key("a").map(|app| app.id().to_owned()).as_deref(), Some("1"));
        assert!(apps.by_id("a").is_none() && apps.by_key("1").is_none());
        assert_eq!(apps.all().iter().map(|app| app.index().get()).collect::<Vec<_>>(), [0, 1]);
        assert!(apps.development_app().is_none());
    }

    #[test]
    fn each_key_of_an_app_signs_with_its_own_secret_also_when_it_was_replaced() {
        let apps = apps(&["1:a:x"]).expect("one app");
        let signed = |key: &str| {
            let app = apps.by_id("1").expect("the app");
            let signature = app.snapshot().signing_key(key)?.sign(&[b"text"]).to_string();
            Some(signature)
        };
        let by = |secret: &str| Some(Signature::of(secret, &[b"text"]).to_string());
        assert_eq!((signed("a"), signed("b")), (by("x"), None));
        let mut app = AppConfig::parse("1:b:y").expect("an app");
        app.keys.push(Key { key: "a".to_owned(), secret: "z".into() });
        apps.replace([app], &Limits::default()).expect("one app");
        assert_eq!((signed("b"), signed("a"), signed("c")), (by("y"), by("z"), None));
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
        let mut app = AppConfig::development();
        let for_all = Limits { connections: 5, ..Limits::default() };
        let limits = |app: &AppConfig| Apps::new([app.clone()], &for_all).expect("one app").all()[0].snapshot().limits;
        assert_eq!(limits(&app).connections, 5);
        app.limits = Some(Limits::default());
        assert_eq!(limits(&app).connections, 0);
    }

    #[test]
    fn as_many_connections_are_admitted_as_may_be_and_each_gives_its_place_back() {
        let for_all = Limits { connections: 2, ..Limits::default() };
        let apps = Apps::new([AppConfig::development()], &for_all).expect("one app");
        let app = apps.by_id("1").expect("the app");
        let first = app.admit();
        let second = app.admit();
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(app.admit().err(), Some(NoPlace::Full));
        assert_eq!(app.connections(), 2);
        drop(first);
        assert_eq!(app.connections(), 1);
        assert!(app.admit().is_ok());
    }

    #[test]
    fn as_many_channels_are_open_as_may_be() {
        let app = Arc::clone(&apps(&["1:a:x"]).expect("an app").all()[0]);
        assert!(app.open_channel(2) && app.open_channel(2) && !app.open_channel(2));
        app.close_channel();
        assert!(app.open_channel(2) && !app.open_channel(2));
        assert!(app.open_channel(0) && app.open_channel(0), "without a limit");
        assert!(!app.open_channel(4) && app.open_channel(5), "those were counted, too");
    }

    #[test]
    fn a_node_asks_for_the_places_of_its_connections_and_of_the_clients_that_wait() {
        let app = Arc::clone(&apps(&["1:a:x"]).expect("an app").all()[0]);
        assert_eq!(app.draw(), Draw { number: 1, taken: 0, wanted: 0 });
        let _here = app.admit().expect("room");
        assert_eq!(app.wait(3), 1, "that draw did not count them");
        assert_eq!(app.draw(), Draw { number: 2, taken: 1, wanted: 4 });
        app.grant(Some(9));
        assert_eq!(app.draw(), Draw { number: 3, taken: 1, wanted: 9 }, "what nobody has had the time to take stays");
        app.stop_waiting(2);
        assert_eq!((app.wait(2), app.granted()), (3, Some(9)));
        app.stop_waiting(3);
        assert_eq!(app.draw(), Draw { number: 4, taken: 1, wanted: 1 });
        assert_eq!(app.granted(), Some(1), "the others may have what nobody waits for");
    }

    #[test]
    fn only_clients_that_a_draw_has_counted_are_refused_after_it() {
        let less = Granted::Less { number: 3 };
        assert_eq!([2, 3, 4].map(|since| less.refuses(since)), [true, false, false]);
        assert!(!Granted::All.refuses(0));
    }

    #[test]
    fn connections_by_http_are_counted_for_as_long_as_they_last() {
        let app = Arc::clone(&apps(&["1:a:x"]).expect("an app").all()[0]);
        let carried = |app: &App| Fallback::ALL.map(|fallback| app.carried(fallback));
        let (one, two) = (app.carry(Fallback::XhrPolling), app.carry(Fallback::XhrPolling));
        let other = app.carry(Fallback::SockJs);
        assert_eq!(carried(&app), [0, 2, 1, 0]);
        drop((one, other));
        assert_eq!(carried(&app), [0, 1, 0, 0]);
        drop(two);
        assert_eq!(carried(&app), [0; 4]);
    }

    #[test]
    fn an_app_is_found_by_its_index_and_by_its_key_as_it_stands_in_a_path() {
        let apps = apps(&["1:a+b:x", "2:c:y"]).expect("two apps");
        let id = |app: Option<Arc<App>>| app.map(|app| app.id().to_owned());
        assert_eq!(id(apps.by_key_in_path("a%2Bb")).as_deref(), Some("1"));
        assert_eq!(id(apps.by_key_in_path("a+b")).as_deref(), Some("1"));
        assert_eq!(id(apps.by_index(AppIndex::new(1))).as_deref(), Some("2"));
        assert!(apps.by_index(AppIndex::new(2)).is_none() && apps.development_app().is_none());
    }

    #[test]
    fn the_development_app_is_served_until_there_are_others() {
        let limits = Limits::default();
        let apps = Apps::development(&limits);
        let app = apps.development_app().expect("the development app");
        assert_eq!(apps.by_id(app.id()).map(|app| app.index()), Some(app.index()));
        apps.replace([AppConfig::parse("7:a:x").expect("an app")], &limits).expect("one app");
        assert!(apps.development_app().is_none());
        apps.replace_by_development(&limits);
        assert!(apps.development_app().is_some() && apps.by_id("7").is_none());
    }

    #[test]
    fn apps_are_replaced_without_losing_their_places_or_connections() {
        let apps = apps(&["1:a:x", "2:b:y"]).expect("two apps");
        let first = apps.by_id("1").expect("the first");
        let place = first.admit().expect("room");
        let parse = |text| AppConfig::parse(text).expect(text);
        let gone = apps.replace([parse("3:c:z"), parse("1:d:w")], &Limits::default()).expect("others");
        assert_eq!(gone.iter().map(|app| app.id()).collect::<Vec<_>>(), ["2"]);
        assert!(apps.by_key("a").is_none() && apps.by_key("b").is_none() && apps.by_id("2").is_none());
        assert_eq!(apps.by_key("d").map(|app| app.index().get()), Some(0));
        assert_eq!(apps.by_key("c").map(|app| app.index().get()), Some(2));
        assert_eq!((first.connections(), place.snapshot().config.key().key.as_str()), (1, "d"));
        assert!(!gone[0].snapshot().known);
        apps.replace([parse("2:b:y")], &Limits::default()).expect("back");
        assert!(gone[0].snapshot().known && apps.by_id("2").map(|app| app.index().get()) == Some(1));
    }

    #[test]
    fn a_replacement_that_cannot_be_changes_nothing() {
        let apps = apps(&["1:a:x", "2:b:y"]).expect("two apps");
        let parse = |text| AppConfig::parse(text).expect(text);
        apps.replace([parse("1:c:x"), parse("3:c:y")], &Limits::default()).expect_err("one key for two");
        assert_eq!(apps.by_id("1").map(|app| app.snapshot().config.key().key.clone()).as_deref(), Some("a"));
        assert!(apps.by_key("b").is_some() && apps.by_id("3").is_none());
    }
}
