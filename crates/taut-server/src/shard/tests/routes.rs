//! Connections of routes: how they wait for a place. The test is the backend.

use super::*;
use crate::apps::{App, Draw, Granted};
use crate::cluster::Phase;
use crate::cluster::testing::TestEngine;
use crate::gateway::{Backend, Job, Jobs, Outcome, RouteConfig, Routes};

struct Routed {
    stage: Stage<PusherHandler>,
    bus: Arc<ShardBus>,
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
            .with_gateway(gateway, false);
        let stage = Stage::new(handler, Settings::default());
        bus.connect(vec![stage.shard.mailbox()]);
        Self { stage, bus, jobs, apps }
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

    fn answer(&mut self, job: &Job) {
        let mail = Mail::Routed { whose: job.asker.whose, outcome: Outcome::Answered(Box::default()) };
        self.bus.tell(job.asker.shard, mail);
        self.stage.settle();
    }

    /// By which route the next events are told, and what they are.
    fn told(&mut self) -> Vec<(String, &'static str)> {
        std::iter::from_fn(|| self.jobs.next()).map(|job| (job.route.path().to_owned(), job.exchange.kind())).collect()
    }
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

const OLD: &str = "/chat";
