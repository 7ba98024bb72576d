//! Clients that wait for a place, where the nodes of a cluster share an app's connections.

use super::*;
use crate::apps::App;
use crate::cluster::Phase;
use crate::cluster::testing::TestEngine;
use crate::hub::engine::Standing;

/// A shard whose app may have three connections on all nodes together, none of them here so far.
fn sharing() -> (Arc<App>, Arc<ShardBus>, Vec<Stage<PusherHandler>>, Arc<TestEngine>) {
    let limits = Limits { connections: 3, ..Limits::default() };
    let config = AppConfig { limits: Some(limits), ..AppConfig::parse("1:key:secret").expect("an app") };
    let (node, bus, stages, _) = node_of(1, config);
    let engine = TestEngine::in_phase(Phase::Joined);
    bus.set_broker(Arc::clone(&engine) as _);
    let app = node.apps().by_id("1").expect("the app");
    app.grant(Some(0));
    (app, bus, stages, engine)
}

fn come(stage: &mut Stage<PusherHandler>) -> Peer {
    let mut peer = Peer::new(&stage.network);
    peer.write(&peer.request("/app/key"));
    stage.settle();
    peer
}

/// What a client hears once its handshake is answered; nothing if it is not.
fn answered(peer: &mut Peer) -> Vec<String> {
    while !peer.is_open() && peer.remote.waiting() > 0 {
        peer.read(1);
    }
    if peer.is_open() { heard(peer) } else { Vec::new() }
}

fn grant(app: &App, bus: &ShardBus, stages: &mut [Stage<PusherHandler>], places: usize, is_full: bool) {
    app.grant(Some(places));
    bus.tell_all(|| Mail::Granted { app: APP, is_full });
    stages[0].settle();
}

#[test]
fn a_client_without_a_place_waits_until_there_is_one_or_there_are_no_more() {
    let (app, bus, mut stages, engine) = sharing();
    let mut peers: Vec<_> = (0..3).map(|_| come(&mut stages[0])).collect();
    assert!(peers.iter_mut().all(|peer| answered(peer).is_empty()));
    assert_eq!(app.reclaim_places(), (0, 3), "three wait");
    assert_eq!(engine.tables().drawn.len(), 3);
    grant(&app, &bus, &mut stages, 2, false);
    for peer in &mut peers[..2] {
        assert_eq!(answered(peer), ["pusher:connection_established"], "who came first is let in first");
    }
    assert_eq!((answered(&mut peers[2]), app.reclaim_places()), (vec![], (2, 1)));
    assert_eq!(engine.tables().drawn.len(), 4, "more is wanted");
    grant(&app, &bus, &mut stages, 2, true);
    assert_eq!((answered(&mut peers[2]), app.reclaim_places()), (vec!["pusher:error".to_owned()], (2, 0)));
    assert_eq!(engine.tables().drawn.len(), 4);
}

#[test]
fn who_goes_while_it_waits_takes_no_place() {
    let (app, bus, mut stages, _) = sharing();
    let gone = come(&mut stages[0]);
    let mut other = come(&mut stages[0]);
    gone.remote.reset(true);
    stages[0].settle();
    grant(&app, &bus, &mut stages, 2, false);
    assert_eq!(answered(&mut other), ["pusher:connection_established"]);
    assert_eq!((app.connections(), app.reclaim_places()), (1, (1, 0)));
}

#[test]
fn nobody_waits_for_an_engine_that_is_away() {
    let (app, bus, mut stages, engine) = sharing();
    let mut waiting = come(&mut stages[0]);
    app.grant(None);
    bus.tell_all(|| Mail::Standing(Standing::Away));
    stages[0].settle();
    assert_eq!(answered(&mut waiting), ["pusher:connection_established"]);
    assert_eq!(answered(&mut come(&mut stages[0])), ["pusher:connection_established"]);
    assert_eq!(engine.tables().drawn.len(), 1);
}
