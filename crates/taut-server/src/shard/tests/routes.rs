//! Connections of routes: how they wait for a place, and what a reload makes of them. The test is the backend.

use super::*;
use crate::apps::{App, Draw, Granted};
use crate::cluster::Phase;
use crate::cluster::testing::TestEngine;
use crate::gateway::{Backend, Job, Jobs, Outcome, RouteConfig, Routes};

struct Routed {
    stage: Stage<PusherHandler>,
    bus: Arc<ShardBus>,
    gateway: Arc<Gateway>,
    jobs: Jobs,
    apps: Arc<Apps>,
}

fn apps(limits: Limits) -> Arc<Apps> {
    Arc::new(Apps::new(["1:a:x", "2:b:y"].map(|text| AppConfig::parse(text).expect(text)), &limits).expect("two apps"))
}

/// The route of the tests, with this path.
fn chat(app: &str, path: &str) -> RouteConfig {
    let backend = Backend::Http { url: "http://a.example/".to_owned() };
    RouteConfig { name: "chat".to_owned(), ..RouteConfig::new(path, app, backend) }
}

impl Routed {
    fn new(apps: Arc<Apps>, route: RouteConfig) -> Self {
        let (gateway, jobs) = Gateway::new(Routes::new(&[route]).expect("a route"));
        let bus = Arc::new(ShardBus::new(1));
        let (events, _) = EventBus::new();
        let shard = ShardIndex::new(0);
        let handler = PusherHandler::new(shard, Arc::clone(&apps), Arc::clone(&bus), events, "", 120, 1 << 20, drop)
            .with_gateway(Arc::clone(&gateway), false);
        let stage = Stage::new(handler, Settings::default());
        bus.connect(vec![stage.shard.mailbox()]);
        Self { stage, bus, gateway, jobs, apps }
    }

    fn app(&self) -> Arc<App> {
        self.apps.by_id("1").expect("the app")
    }

    /// A client that asks for the route.
    fn come(&mut self) -> Peer {
        let mut peer = Peer::new(&self.stage.network);
        peer.write(&peer.request(OLD));
        self.stage.settle();
        peer
    }

    /// One that its backend has let in.
    fn connected(&mut self) -> Peer {
        let mut peer = self.come();
        let job = self.jobs.next().expect("the backend is asked");
        self.answer(&job);
        peer.read(usize::MAX);
        assert!(peer.is_open());
        peer
    }

    fn answer(&mut self, job: &Job) {
        let mail = Mail::Routed { whose: job.asker.whose, outcome: Outcome::Answered(Box::default()) };
        self.bus.tell(job.asker.shard, mail);
        self.stage.settle();
    }

    fn reload(&mut self, routes: &[RouteConfig]) {
        self.gateway.replace(Routes::new(routes).expect("routes"));
        self.bus.tell_all(|| Mail::AppsChanged);
        self.stage.settle();
    }

    /// By which route the next events are told, and what they are.
    fn told(&mut self) -> Vec<(String, &'static str)> {
        std::iter::from_fn(|| self.jobs.next()).map(|job| (job.route.path().to_owned(), job.exchange.kind())).collect()
    }
}

/// With which code a client was closed, if it was.
fn closed(peer: &mut Peer) -> Option<u16> {
    peer.read(usize::MAX);
    peer.closed().map(|close| close.code().as_u16())
}

#[test]
fn a_client_of_a_route_waits_for_a_place_and_the_backend_is_asked_once_there_is_one() {
    let mut routed = Routed::new(apps(Limits { connections: 3, ..Limits::default() }), chat("1", OLD));
    let engine = TestEngine::in_phase(Phase::Joined);
    routed.bus.set_broker(Arc::clone(&engine) as _);
    let app = routed.app();
    app.grant(Some(0));
    let (mut first, mut second) = (routed.come(), routed.come());
    let Draw { number, wanted, .. } = app.draw();
    assert_eq!((routed.told(), wanted), (vec![], 2), "two wait, and nobody is asked");
    app.grant(Some(1));
    routed.bus.tell_all(|| Mail::Granted { app: app.index(), granted: Granted::Less { number } });
    routed.stage.settle();
    second.read(usize::MAX);
    assert_eq!(second.status(), Some(503), "there is no place for it");
    let job = routed.jobs.next().expect("the backend is asked about the first");
    assert_eq!((app.connections(), routed.told()), (1, vec![]));
    routed.answer(&job);
    first.read(usize::MAX);
    assert!(first.is_open());
}

#[test]
fn connections_go_on_by_the_new_settings_of_their_route_and_what_is_under_way_stays() {
    let mut routed = Routed::new(apps(Limits::default()), chat("1", OLD));
    let mut peer = routed.connected();
    peer.send("one");
    peer.send("two");
    routed.stage.settle();
    let under_way = routed.jobs.next().expect("the first message");
    routed.reload(&[chat("1", NEW)]);
    assert_eq!(under_way.route.path(), OLD);
    routed.answer(&under_way);
    assert_eq!(routed.told(), [(NEW.to_owned(), "text")]);
    assert_eq!(closed(&mut peer), None, "the path it came by does not matter");
    let counted: Vec<usize> = routed.gateway.routes().all().map(|route| route.statistics().connections()).collect();
    assert_eq!((counted, under_way.route.statistics().connections()), (vec![1], 0));
}

#[test]
fn connections_of_a_route_that_is_gone_or_has_moved_to_another_app_are_closed() {
    let another = RouteConfig { name: "another".to_owned(), ..chat("1", NEW) };
    for after in [vec![], vec![another], vec![chat("2", OLD)]] {
        let mut routed = Routed::new(apps(Limits::default()), chat("1", OLD));
        let mut peer = routed.connected();
        let mut coming = routed.come();
        let opening = routed.jobs.next().expect("the backend is asked");
        routed.reload(&after);
        assert_eq!(closed(&mut peer), Some(1001));
        peer.remote.finish();
        routed.stage.settle();
        assert_eq!(routed.told(), [(OLD.to_owned(), "close")]);
        // It was let in by a backend that is not asked any more.
        routed.answer(&opening);
        assert_eq!(closed(&mut coming), Some(1001));
        coming.remote.finish();
        routed.stage.settle();
        assert_eq!(routed.told(), [(OLD.to_owned(), "close")]);
    }
}

#[test]
fn many_connections_of_a_route_that_is_gone_are_closed_some_at_a_time() {
    let mut routed = Routed::new(apps(Limits::default()), chat("1", OLD));
    let mut peers: Vec<Peer> = (0..1001).map(|_| routed.connected()).collect();
    let mut count = |routed: &mut Routed| {
        routed.stage.settle();
        peers.iter_mut().filter_map(closed).filter(|code| *code == 1001).count()
    };
    routed.reload(&[]);
    assert_eq!(count(&mut routed), 500);
    // It is back for those that are still here.
    routed.reload(&[chat("1", NEW)]);
    routed.bus.tell_all(|| Mail::Tick);
    assert_eq!(count(&mut routed), 500);
    routed.reload(&[]);
    assert_eq!(count(&mut routed), 1000);
    routed.bus.tell_all(|| Mail::Tick);
    assert_eq!(count(&mut routed), 1001);
}

const OLD: &str = "/chat";
const NEW: &str = "/talk";
