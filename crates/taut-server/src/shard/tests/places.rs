//! Clients that wait for a place, where the nodes of a cluster share an app's connections.

use super::*;
use crate::apps::{App, Draw, Granted};
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

fn grant(app: &App, bus: &ShardBus, stages: &mut [Stage<PusherHandler>], places: usize, granted: Granted) {
    app.grant(Some(places));
    bus.tell_all(|| Mail::Granted { app: APP, granted });
    stages[0].settle();
}

/// How many connections there are, and for how many more this node asks.
fn drawn(app: &App) -> (usize, usize) {
    let Draw { taken, wanted, .. } = app.draw();
    (taken, wanted - taken)
}

#[test]
fn a_client_without_a_place_waits_until_there_is_one_or_there_are_no_more() {
    let (app, bus, mut stages, engine) = sharing();
    let mut peers: Vec<_> = (0..3).map(|_| come(&mut stages[0])).collect();
    assert!(peers.iter_mut().all(|peer| answered(peer).is_empty()));
    assert_eq!(drawn(&app), (0, 3), "three wait");
    assert_eq!(engine.tables().drawn.len(), 3);
    grant(&app, &bus, &mut stages, 2, Granted::Less { number: 0 });
    for peer in &mut peers[..2] {
        assert_eq!(answered(peer), ["pusher:connection_established"], "who came first is let in first");
    }
    assert_eq!(answered(&mut peers[2]), [""; 0]);
    assert_eq!(engine.tables().drawn.len(), 4, "it came after that draw: more is wanted");
    let Draw { number, taken, wanted } = app.draw();
    assert_eq!((taken, wanted), (2, 3));
    grant(&app, &bus, &mut stages, 2, Granted::Less { number });
    assert_eq!((answered(&mut peers[2]), drawn(&app)), (vec!["pusher:error".to_owned()], (2, 0)));
    assert_eq!(engine.tables().drawn.len(), 4);
}

#[test]
fn who_goes_while_it_waits_takes_no_place() {
    let (app, bus, mut stages, _) = sharing();
    let gone = come(&mut stages[0]);
    let mut other = come(&mut stages[0]);
    gone.remote.reset(true);
    stages[0].settle();
    grant(&app, &bus, &mut stages, 2, Granted::All);
    assert_eq!(answered(&mut other), ["pusher:connection_established"]);
    assert_eq!(drawn(&app), (1, 0));
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

// The driver's clock may draw anew at any time.
#[test]
fn what_was_granted_for_clients_is_not_given_back_before_they_have_it() {
    let (app, bus, mut stages, _) = sharing();
    let mut peer = come(&mut stages[0]);
    let Draw { number, .. } = app.draw();
    app.grant(Some(1));
    assert_eq!(app.draw().wanted, 1);
    bus.tell_all(|| Mail::Granted { app: APP, granted: Granted::Less { number } });
    stages[0].settle();
    assert_eq!(answered(&mut peer), ["pusher:connection_established"]);
}
