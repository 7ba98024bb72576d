//! A node of a cluster, as those meet it who speak HTTP to it. The engine answers from tables.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use md5::{Digest, Md5};
use serde_json::{Value, json};

use super::*;
use crate::app::PublishAway;
use crate::cluster::testing::{TestEngine, node};
use crate::cluster::{Broker, Phase};
use crate::pusher::auth::Signature;
use crate::query::{CachedEvent, ChannelState, Occupancy};

const TOKEN: &str = "the-token-of-the-tests";

/// A node with the app `1:key:secret`, in a cluster that this engine holds together.
fn start(engine: &Arc<TestEngine>, change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        apps: vec![AppConfig::parse("1:key:secret").expect("an app")],
        shards: 1,
        metrics_token: Some(TOKEN.into()),
        cluster: Some("redis://me:hunter2@redis.example:6379/0".into()),
        cluster_name: "here".to_owned(),
        ..Config::default()
    };
    change(&mut config);
    let engine = Arc::clone(engine) as Arc<dyn Broker>;
    Server::start_with(&config, Sockets::default(), |_| Some(engine)).expect("a server")
}

/// The head and the content of the answer to one request.
fn request(running: &Running, method: &str, target: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(running.addresses()[0]).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head[9..12].parse().expect("a status"), head.to_lowercase(), body.to_owned())
}

/// A request that the app's backend has signed.
fn signed(running: &Running, method: &str, path: &str, query: &str, body: &str) -> (u16, String, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut parameters =
        vec!["auth_key=key".to_owned(), format!("auth_timestamp={now}"), "auth_version=1.0".to_owned()];
    if !body.is_empty() {
        let digest = u128::from_be_bytes(Md5::digest(body).into());
        parameters.push(format!("body_md5={digest:032x}"));
    }
    parameters.extend(query.split('&').filter(|part| !part.is_empty()).map(str::to_owned));
    parameters.sort_unstable();
    let query = parameters.join("&");
    let signature = Signature::of("secret", &[format!("{method}\n{path}\n{query}").as_bytes()]);
    request(running, method, &format!("{path}?{query}&auth_signature={signature}"), "", body)
}

fn publish(running: &Running) -> (u16, String, String) {
    let body = json!({ "name": "event", "channels": ["chat", "cache-chat"], "data": "x" }).to_string();
    signed(running, "POST", "/apps/1/events", "", &body)
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).expect(body)
}

#[test]
fn a_publish_is_refused_while_the_engine_is_away_unless_the_app_wants_it_here_alone() {
    for phase in [Phase::Starting, Phase::Away, Phase::Rejoining] {
        let engine = TestEngine::in_phase(phase);
        let running = start(&engine, |_| {});
        let (status, head, body) = publish(&running);
        assert_eq!((status, head.contains("retry-after: 1\r\n")), (503, true), "{head}");
        assert!(body.contains("delivered nowhere"), "{body}");
        let event = json!({ "name": "event", "channel": "chat", "data": "x" });
        let batch = json!({ "batch": [event] }).to_string();
        let (status, _, body) = signed(&running, "POST", "/apps/1/batch_events", "", &batch);
        assert!(status == 503 && body.contains("delivered nowhere"), "{status} {body}");
        let metrics = metrics(&running);
        assert!(metrics.contains("taut_events_published_total{app=\"1\"} 0\n"), "{metrics}");
        let local = start(&engine, |config| config.limits.publish_away = PublishAway::Local);
        assert_eq!(publish(&local).0, 200);
    }
}

#[test]
fn a_publish_is_answered_when_the_engine_has_it_or_has_failed() {
    let engine = TestEngine::in_phase(Phase::Joined);
    let running = start(&engine, |_| {});
    let (status, _, body) = publish(&running);
    assert_eq!((status, body.as_str()), (200, "{}"));
    engine.tables().is_silent = true;
    let (status, head, body) = publish(&running);
    assert!(status == 503 && body.contains("may have been delivered"), "{body}");
    assert!(!head.contains("retry-after"), "nobody is invited to publish it twice: {head}");
}

#[test]
fn queries_are_about_the_cluster_while_the_node_is_joined_and_about_itself_otherwise() {
    let engine = TestEngine::in_phase(Phase::Joined);
    let running = start(&engine, |config| config.apps[0].features.subscription_count = true);
    let get = |path: &str, query: &str| {
        let (status, _, body) = signed(&running, "GET", path, query, "");
        assert_eq!(status, 200, "{body}");
        json_of(&body)
    };
    {
        let mut tables = engine.tables();
        let public = Occupancy { subscriptions: 7, users: None };
        let presence = Occupancy { subscriptions: 2, users: Some(2) };
        tables.channels = [("chat".into(), public), ("presence-a".into(), presence)].into();
        tables.channel = ChannelState {
            occupancy: presence,
            cached: Some(CachedEvent { data: "x".into(), ttl: Duration::from_secs(9) }),
        };
        tables.users = vec!["ann".into(), "ben".into()];
    }
    let of_presence = json!({ "channels": { "presence-a": { "user_count": 2 } } });
    assert_eq!(get("/apps/1/channels", "filter_by_prefix=presence-&info=user_count"), of_presence);
    let all = json!({ "channels": { "chat": { "subscription_count": 7 }, "presence-a": { "subscription_count": 2 } } });
    assert_eq!(get("/apps/1/channels", "info=subscription_count"), all);
    let one = json!({ "occupied": true, "user_count": 2, "cache": { "data": "x", "ttl": 9 } });
    assert_eq!(get("/apps/1/channels/presence-cache-a", "info=user_count,cache"), one);
    let users = json!({ "users": [{ "id": "ann" }, { "id": "ben" }] });
    assert_eq!(get("/apps/1/channels/presence-a/users", ""), users);
    let event = json!({ "name": "e", "channel": "presence-a", "data": "", "info": "user_count" }).to_string();
    let (_, _, body) = signed(&running, "POST", "/apps/1/events", "", &event);
    assert_eq!(json_of(&body), of_presence);

    // It is lost while it is asked, and then known to be away: nobody is here.
    engine.tables().is_silent = true;
    let vacant = json!({ "occupied": false, "user_count": 0 });
    assert_eq!(get("/apps/1/channels", ""), json!({ "channels": {} }));
    assert_eq!(get("/apps/1/channels/presence-a", "info=user_count"), vacant);
    *engine.tables() = cluster::testing::Tables::default();
    engine.tables().state.phase = Phase::Away;
    let asked = engine.asked();
    assert_eq!(get("/apps/1/channels/presence-a", "info=user_count"), vacant);
    assert_eq!(get("/apps/1/channels/presence-a/users", ""), json!({ "users": [] }));
    assert_eq!(engine.asked(), asked, "an engine that is away is not asked");
}

#[test]
fn terminating_a_user_tells_the_other_nodes_or_says_that_it_could_not() {
    let engine = TestEngine::in_phase(Phase::Joined);
    let running = start(&engine, |_| {});
    let terminate = || signed(&running, "POST", "/apps/1/users/ann/terminate_connections", "", "");
    assert_eq!(terminate().0, 200);
    assert_eq!(engine.tables().terminated, [Arc::<str>::from("ann")]);
    engine.tables().state.phase = Phase::Away;
    let (status, head, body) = terminate();
    assert!(status == 503 && head.contains("retry-after: 1"), "{head}");
    assert!(body.contains("on this node are closed") && body.contains("on other nodes are not"), "{body}");
    assert_eq!(engine.tables().terminated.len(), 1);
}

#[test]
fn a_node_without_its_engine_is_ready_unless_it_is_told_otherwise() {
    let engine = TestEngine::in_phase(Phase::Joined);
    let (patient, strict) = (start(&engine, |_| {}), start(&engine, |config| config.cluster_ready = true));
    let ready = |running| request(running, "GET", "/ready", "", "");
    assert_eq!((ready(&patient).0, ready(&strict).0), (200, 200));
    engine.tables().state.phase = Phase::Away;
    assert_eq!(ready(&patient).0, 200);
    let (status, _, body) = ready(&strict);
    assert!(status == 503 && body.contains("The engine of the cluster cannot be reached."), "{body}");
}

fn metrics(running: &Running) -> String {
    let (status, _, body) = request(running, "GET", "/metrics", &format!("authorization: Bearer {TOKEN}\r\n"), "");
    assert_eq!(status, 200, "{body}");
    body
}

#[test]
fn the_metrics_show_how_it_stands_with_the_engine_and_how_many_nodes_there_are() {
    let engine = TestEngine::in_phase(Phase::Joined);
    engine.tables().nodes = vec![node("here", 5, true), node("there", 7, false)];
    {
        let state = &mut engine.tables().state;
        (state.losses, state.waiting, state.held_back, state.lag) = (3, 11, 7, Duration::from_micros(250));
    }
    let running = start(&engine, |_| {});
    let shown = metrics(&running);
    for line in [
        "taut_cluster_state{state=\"joined\"} 1\n",
        "taut_cluster_state{state=\"away\"} 0\n",
        "taut_cluster_losses_total 3\n",
        "taut_cluster_waiting 11\n",
        "taut_cluster_held_back 7\n",
        "taut_cluster_lag_seconds 0.00025\n",
        "taut_cluster_nodes 2\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    engine.tables().state.phase = Phase::Away;
    let shown = metrics(&running);
    assert!(
        shown.contains("taut_cluster_state{state=\"away\"} 1\n") && !shown.contains("taut_cluster_nodes"),
        "{shown}"
    );
}

#[test]
fn operators_see_the_engine_without_its_password_and_the_nodes_and_others_see_neither() {
    let engine = TestEngine::in_phase(Phase::Joined);
    engine.tables().nodes = vec![node("there", 7, false), node("here", 5, true)];
    let running = start(&engine, |config| config.console_password = Some("correct horse battery".into()));
    let (status, _, body) = request(&running, "GET", "/nodes", "", "");
    assert!(status == 401 && body.contains("The nodes require the bearer token"), "{body}");
    assert_eq!(request(&running, "GET", "/console/api/nodes", "", "").0, 401);
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    let nodes = || json_of(&request(&running, "GET", "/nodes", &token, "").2);
    let shown = nodes();
    let engine_shown =
        json!({ "address": "redis://redis.example:6379/0", "state": "joined", "losses": 0, "waiting": 0, "lag": 0.0 });
    assert_eq!(shown["engine"], engine_shown);
    let here = json!(
        { "name": "here", "incarnation": "here-1", "version": "1.2.3", "here": true, "connections": 5, "lease": 7.5 }
    );
    assert_eq!(shown["nodes"][0], here);
    assert_eq!((&shown["nodes"][1]["name"], &shown["nodes"][1]["here"]), (&json!("there"), &json!(false)));
    engine.tables().state.phase = Phase::Away;
    let shown = nodes();
    assert_eq!(shown["engine"]["state"], "away");
    let alone = json!({ "name": "here", "version": env!("CARGO_PKG_VERSION"), "here": true, "connections": 0 });
    assert_eq!(shown["nodes"], json!([alone]));
}

#[test]
fn the_console_shows_the_cluster() {
    let engine = TestEngine::in_phase(Phase::Joined);
    {
        let mut tables = engine.tables();
        tables.nodes = vec![node("here", 5, true)];
        tables.channels = [("chat".into(), Occupancy { subscriptions: 7, users: None })].into();
        tables.channel.occupancy = Occupancy { subscriptions: 2, users: Some(2) };
        tables.users = vec!["ben".into(), "ann".into()];
    }
    let running = start(&engine, |config| config.console_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let get = |path: &str| {
        let mut stream = TcpStream::connect(running.console_address().expect("a console")).expect("connected");
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        json_of(answer.split_once("\r\n\r\n").expect("a head").1)
    };
    assert_eq!(get("/console/api/overview")["cluster"], "joined");
    assert_eq!(get("/console/api/nodes")["nodes"][0]["name"], "here");
    let channels = json!({ "total": 1, "channels": [{ "name": "chat", "subscriptions": 7 }] });
    assert_eq!(get("/console/api/apps/1/channels"), channels);
    let channel = get("/console/api/apps/1/channels/presence-a");
    let member = |id: &str| json!({ "user_id": id, "connections": 0 });
    assert_eq!((&channel["users"], &channel["members"]), (&json!(2), &json!([member("ann"), member("ben")])));
}

#[test]
fn a_node_leaves_the_cluster_when_it_drains() {
    let engine = TestEngine::in_phase(Phase::Joined);
    let running = start(&engine, |_| {});
    assert!(!engine.tables().has_left);
    running.drain(Duration::from_secs(5)).expect("drained");
    assert!(engine.tables().has_left);
}

#[test]
fn a_node_that_is_alone_says_so() {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        metrics_token: Some(TOKEN.into()),
        cluster_name: "here".to_owned(),
        ..Config::default()
    };
    let running = Server::start(&config).expect("a server");
    assert!(!metrics(&running).contains("taut_cluster"));
    let (_, _, body) = request(&running, "GET", "/nodes", &format!("authorization: Bearer {TOKEN}\r\n"), "");
    let shown = json_of(&body);
    assert_eq!((&shown["engine"], &shown["nodes"][0]["name"]), (&Value::Null, &json!("here")));
}
