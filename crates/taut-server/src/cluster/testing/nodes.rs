//! Nodes with drivers for tests, what their owners have seen, and what can be asked of them.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::app::{AppConfig, Features, Limits, Webhook};
use crate::apps::{Admission, App, Apps, Granted, NoPlace};
use crate::cluster::{self, Broker, Done, Happened, Owners, Phase, Question, Settings, State};
use crate::events::Event;
use crate::hub::command::{Event as Published, PresenceMember, Publication};
use crate::hub::engine::{Difference, Request, Snapshot, Standing, Update};
use crate::hub::receipt::Receipt;
use crate::pusher::payload::Payload;

/// The app of all tests.
pub(crate) const APP: &str = "1";

/// After this nothing comes any more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a receipt has failed and what it stands for is dropped.
pub(crate) fn failed(waited: oneshot::Receiver<()>, receipt: Receipt) {
    let end = Instant::now() + PATIENCE;
    // A receipt tells nobody but its token, and this clone keeps that.
    while !receipt.has_failed() {
        assert!(Instant::now() < end, "it has not failed");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(receipt);
    assert!(waited.blocking_recv().is_err(), "the token is dropped");
}

/// A driver with one thread, and what its owners have seen.
pub(crate) struct Node {
    runtime: Option<Runtime>,
    broker: Option<Arc<dyn Broker>>,
    app: Arc<App>,
    seen: Mutex<mpsc::Receiver<Seen>>,
    /// What it has told webhooks.
    told: Mutex<mpsc::Receiver<Happened>>,
}

#[derive(Debug)]
pub(crate) enum Seen {
    Update(Update),
    Standing(Standing),
    Terminated(Arc<str>, Duration),
    Granted(Granted),
    /// A line of the log.
    Warned(String),
}

impl Node {
    /// A node that is not waited for.
    pub(crate) fn start(url: &str, name: &str, lease: Duration, limits: &Limits, features: Features) -> Self {
        Self::start_app(url, name, lease, limits, AppConfig { features, ..config() })
    }

    /// A node of an app with a webhook, so that removals are held back.
    pub(crate) fn start_with_webhook(url: &str, name: &str, lease: Duration) -> Self {
        let webhooks = vec![Webhook::new("http://127.0.0.1/")];
        Self::start_app(url, name, lease, &Limits::default(), AppConfig { webhooks, ..config() })
    }

    fn start_app(url: &str, name: &str, lease: Duration, limits: &Limits, config: AppConfig) -> Self {
        let apps = Arc::new(Apps::new([config], limits).expect("one app"));
        let ((sender, seen), (teller, told)) = (mpsc::channel(), mpsc::channel());
        let log = tracing::Dispatch::new(Log(Mutex::new(sender.clone())));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            // For as long as the thread lives.
            .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&log)))
            .build()
            .expect("a runtime");
        // Other tests take the processors for as long as they like.
        let response_timeout = lease / 2;
        let settings =
            Settings { url: url.to_owned(), name: name.to_owned(), lease, response_timeout, ..Settings::default() };
        let owners = Arc::new(Recorder(Mutex::new(sender), Mutex::new(teller)));
        let broker = cluster::start(settings, Arc::clone(&apps), owners, runtime.handle());
        let app = apps.by_id(APP).expect("the app");
        let broker = Some(broker.expect("an engine"));
        Self { runtime: Some(runtime), broker, app, seen: Mutex::new(seen), told: Mutex::new(told) }
    }

    /// Waits until it has joined.
    pub(crate) fn wait_until_joined(&self) {
        standing(self, Standing::Joined);
        assert_eq!(self.state().phase, Phase::Joined);
    }

    fn broker(&self) -> &Arc<dyn Broker> {
        self.broker.as_ref().expect("it lives")
    }

    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    pub(crate) fn send(&self, request: Request) {
        self.broker().send(&self.app, request);
    }

    pub(crate) fn ask(&self, question: Question) {
        self.broker().ask(question);
    }

    pub(crate) fn state(&self) -> State {
        self.broker().state()
    }

    /// A client comes, and waits for its place as shards do; `None`: there is none.
    pub(crate) fn come(&self) -> Option<Admission> {
        let (mut granted, mut since) = (Granted::All, 0);
        loop {
            match self.app.admit() {
                Ok(admission) => return Some(admission),
                Err(NoPlace::NotGranted) if !granted.refuses(since) => {}
                Err(_) => return None,
            }
            since = self.app.wait(1);
            self.broker().draw(&self.app);
            granted = self.until(|seen| match seen {
                Seen::Granted(granted) => Some(*granted),
                Seen::Standing(_) => Some(Granted::All),
                _ => None,
            });
            self.app.stop_waiting(1);
        }
    }

    /// Waits for something, and forgets what comes before it.
    pub(crate) fn until<T>(&self, mut wanted: impl FnMut(&Seen) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let seen = self.seen.lock().expect("not poisoned");
        loop {
            let seen = seen.recv_timeout(end.saturating_duration_since(Instant::now()));
            if let Some(found) = wanted(&seen.expect("it comes in time")) {
                return found;
            }
        }
    }

    /// What was seen up to now, and is forgotten.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").try_iter().collect()
    }

    /// What it has told webhooks since the last call.
    pub(crate) fn told(&self) -> Vec<Event> {
        self.told.lock().expect("not poisoned").try_iter().map(|happened| happened.event).collect()
    }

    /// The node does nothing until the result is dropped, as if its process were stopped.
    pub(crate) fn pause(&self) -> mpsc::Sender<()> {
        let (wake, asleep) = mpsc::channel::<()>();
        let (sleeping, sleeps) = mpsc::channel();
        self.runtime.as_ref().expect("it lives").spawn(async move {
            sleeping.send(()).expect("somebody waits");
            let _ = asleep.recv();
        });
        sleeps.recv().expect("it falls asleep");
        wake
    }

    /// The node ends without a word.
    pub(crate) fn kill(mut self) {
        self.runtime.take().expect("it lives").shutdown_background();
    }

    /// The node ends without a word, and has ended. Gives what it had told webhooks.
    pub(crate) fn killed(mut self) -> Vec<Event> {
        self.runtime.take().expect("it lives").shutdown_timeout(PATIENCE);
        self.told()
    }

    /// The node ends as it should, and has ended.
    pub(crate) fn leave(self) {
        let (done, left) = oneshot::channel();
        self.broker().leave(done);
        left.blocking_recv().expect("it has left");
    }

    /// Nobody needs the node any more.
    pub(crate) fn drop_broker(mut self) {
        self.broker = None;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            if self.broker.is_none() {
                // It is leaving, and takes a moment.
                std::thread::spawn(move || {
                    runtime.block_on(tokio::time::sleep(Duration::from_secs(2)));
                });
                return;
            }
            runtime.shutdown_background();
        }
    }
}

fn config() -> AppConfig {
    AppConfig::parse(&format!("{APP}:key:secret")).expect("an app")
}

/// Takes warnings.
#[derive(Debug)]
struct Log(Mutex<mpsc::Sender<Seen>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            write!(line, "{field}={value:?} ").expect("a string takes everything");
        });
        let _ = self.0.lock().expect("not poisoned").send(Seen::Warned(line));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[derive(Debug)]
struct Recorder(Mutex<mpsc::Sender<Seen>>, Mutex<mpsc::Sender<Happened>>);

impl Recorder {
    fn record(&self, seen: Seen) {
        let _ = self.0.lock().expect("not poisoned").send(seen);
    }
}

impl Owners for Recorder {
    fn update(&self, app: &Arc<App>, update: Update) {
        assert_eq!(app.id(), APP);
        self.record(Seen::Update(update));
    }

    fn standing(&self, standing: Standing) {
        self.record(Seen::Standing(standing));
    }

    fn granted(&self, _: &Arc<App>, granted: Granted) {
        self.record(Seen::Granted(granted));
    }

    fn terminate(&self, _: &Arc<App>, user_id: &Arc<str>, age: Duration, done: Done) {
        self.record(Seen::Terminated(Arc::clone(user_id), age));
        drop(done);
    }

    fn happened(&self, _: &Arc<App>, happened: Happened) {
        let _ = self.1.lock().expect("not poisoned").send(happened);
    }
}

pub(crate) fn subscribe(channel: &str) -> Request {
    Request::Subscribe { channel: channel.into() }
}

pub(crate) fn unsubscribe(channel: &str) -> Request {
    Request::Unsubscribe { channel: channel.into(), waited: Duration::ZERO }
}

pub(crate) fn join(channel: &str, user_id: &str, most: usize) -> Request {
    let user_info = Some(format!(r#"{{"name":"{user_id}"}}"#).into());
    let member = PresenceMember { user_id: user_id.into(), user_info };
    Request::Join { channel: channel.into(), member, number: 7, most }
}

pub(crate) fn leave(channel: &str, user_id: &str) -> Request {
    Request::Leave { channel: channel.into(), user_id: user_id.into(), waited: Duration::ZERO }
}

pub(crate) fn publication(channel: &str, data: &str) -> Publication {
    let event = Published::published("event", &Payload::from(data));
    Publication { channel: channel.into(), event, excluded: None, at: Instant::now(), receipt: None }
}

pub(crate) fn publish(channel: &str, data: &str) -> Request {
    Request::Publish { publication: publication(channel, data), kept: false, receipt: None }
}

pub(crate) fn keep(channel: &str, data: &str) -> Request {
    Request::Publish { publication: publication(channel, data), kept: true, receipt: None }
}

/// The data of the next event.
pub(crate) fn event(node: &Node) -> (String, Option<u64>) {
    node.until(|seen| match seen {
        Seen::Update(Update::Published { publication, kept }) => {
            Some((publication.data().into_owned(), kept.map(|position| position.number)))
        }
        _ => None,
    })
}

/// The next member that comes (+) or goes (-).
pub(crate) fn change(node: &Node) -> String {
    node.until(|seen| match seen {
        Seen::Update(Update::Changed { change, .. }) => Some(match &change.difference {
            Difference::Added(member) => format!("+{}", member.user_id),
            Difference::Removed(user_id) => format!("-{user_id}"),
        }),
        _ => None,
    })
}

pub(crate) fn subscribed(node: &Node, channel: &str) {
    node.send(subscribe(channel));
    node.until(|seen| {
        matches!(seen, Seen::Update(Update::Subscribed { channel: it }) if **it == *channel).then_some(())
    });
}

pub(crate) fn joined(node: &Node, channel: &str, user_id: &str) -> bool {
    node.send(join(channel, user_id, 0));
    node.until(|seen| match seen {
        Seen::Update(Update::Joined { user_id: it, outcome, .. }) if **it == *user_id => Some(outcome.is_ok()),
        _ => None,
    })
}

pub(crate) fn snapshot(node: &Node, channel: &str) -> Snapshot {
    node.send(Request::Members { channel: channel.into() });
    node.until(|seen| match seen {
        Seen::Update(Update::Members { snapshot, .. }) => Some(snapshot.clone()),
        _ => None,
    })
}

pub(crate) fn members(node: &Node, channel: &str) -> Vec<String> {
    let mut members: Vec<_> =
        snapshot(node, channel).members.into_iter().map(|member| member.user_id.to_string()).collect();
    members.sort();
    members
}

pub(crate) fn standing(node: &Node, wanted: Standing) {
    node.until(|seen| matches!(seen, Seen::Standing(it) if *it == wanted).then_some(()));
}

pub(crate) fn ask<T>(node: &Node, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
    let (answer, received) = oneshot::channel();
    node.ask(question(answer));
    received.blocking_recv().ok()
}

/// The next thing that the node tells webhooks, and for how long it was held back.
pub(crate) fn happened_late(node: &Node) -> Happened {
    node.told.lock().expect("not poisoned").recv_timeout(PATIENCE).expect("it comes in time")
}

/// The next thing that the node tells webhooks.
pub(crate) fn happened(node: &Node) -> Event {
    happened_late(node).event
}

pub(crate) fn counted(node: &Node, wanted: usize) {
    node.until(|seen| match seen {
        Seen::Update(Update::Counted { subscribers, .. }) if *subscribers == wanted => Some(()),
        _ => None,
    });
}

pub(crate) fn online(node: &Node, user_ids: &[&str]) -> Vec<String> {
    let user_ids: Arc<[Arc<str>]> = user_ids.iter().map(|it| Arc::from(*it)).collect();
    node.send(Request::Online { user_ids, number: 9 });
    node.until(|seen| match seen {
        Seen::Update(Update::Online { number: 9, online }) => Some(online.iter().map(ToString::to_string).collect()),
        _ => None,
    })
}

pub(crate) fn status(node: &Node) -> (String, bool) {
    node.until(|seen| match seen {
        Seen::Update(Update::Status { user_id, is_online }) => Some((user_id.to_string(), *is_online)),
        _ => None,
    })
}
