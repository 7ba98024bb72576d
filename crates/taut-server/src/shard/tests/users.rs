//! Users whose connections are closed by a backend.

use super::*;

// A node that was away hears late of what a backend has closed; a user may have come back since.
#[test]
fn only_connections_that_were_there_are_closed_later() {
    let (_, bus, mut stages, _entries) = node_of(1, app_for(9));
    let come = |stages: &mut Vec<Stage<PusherHandler>>| {
        let (mut peer, socket_id) = greeted(&mut stages[0]);
        sign_in(&mut peer, &socket_id, r#"{"id":"7"}"#);
        stages[0].settle();
        heard(&mut peer);
        peer
    };
    let mut before = come(&mut stages);
    stages[0].network.advance(Duration::from_secs(10));
    stages[0].settle();
    let mut after = come(&mut stages);
    stages[0].network.advance(Duration::from_secs(4));
    stages[0].settle();
    let (age, done) = (Duration::from_secs(5), unwatched());
    bus.tell(ShardIndex::new(0), Mail::Terminate { app: APP, user_id: "7".into(), age, done });
    stages[0].settle();
    assert_eq!((heard(&mut before), heard(&mut after)), (vec!["pusher:error".to_owned()], vec![]));
}
