//! What JetStream is asked, and what it answers: JSON, as <https://docs.nats.io/reference/reference-protocols/nats_api_reference> has it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Doubt;
use super::names::Names;
use super::protocol::Headers;
use crate::hub::engine::Epoch;

/// A subject, and what is said there.
pub(super) type Request = (String, Vec<u8>);

/// An answer, or what stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Without an answer, why there is none; 503: nobody hears this.
    pub(super) status: Option<u16>,
    pub(super) payload: Vec<u8>,
}

/// An error of JetStream.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(in crate::cluster) struct Failure {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u16,
    #[serde(default)]
    pub(super) description: String,
}

impl Failure {
    /// The stream that was asked for is not there.
    pub(super) fn is_no_stream(&self) -> bool {
        self.err_code == 10059
    }

    /// The last entry of the subject is another one than was expected.
    pub(super) fn is_wrong_sequence(&self) -> bool {
        self.err_code == 10071
    }

    /// There are too few servers for so many replicas.
    pub(super) fn is_too_few_servers(&self) -> bool {
        self.err_code == 10005
    }

    /// It is one server by itself, which knows no replicas.
    pub(super) fn is_one_server(&self) -> bool {
        self.err_code == 10074
    }

    /// There is no such message.
    pub(super) fn is_no_message(&self) -> bool {
        self.err_code == 10037
    }
}

/// A stream as it is.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Stream {
    created: String,
    config: Config,
    state: StreamState,
}

#[derive(Clone, Debug, Deserialize)]
struct Config {
    #[serde(default)]
    description: String,
    #[serde(default)]
    num_replicas: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct StreamState {
    #[serde(default)]
    last_seq: u64,
}

impl Stream {
    /// Another one if the stream was made anew.
    pub(super) fn epoch(&self) -> Epoch {
        let hash = Sha256::digest(self.created.as_bytes());
        let (first, _) = hash.split_first_chunk().expect("it has 32 bytes");
        Epoch(u64::from_le_bytes(*first))
    }

    pub(super) fn last(&self) -> u64 {
        self.state.last_seq
    }

    /// How many servers have it.
    pub(super) fn replicas(&self) -> u64 {
        self.config.num_replicas.max(1)
    }

    /// Whether nodes of this version have made it.
    pub(super) fn is_ours(&self) -> bool {
        self.config.description == DESCRIPTION
    }
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    /// Milliseconds since 1970 by the server's clock.
    pub(super) until: u64,
    pub(super) payload: Vec<u8>,
}

/// The answer, unless it is an error.
pub(super) fn read<T: for<'a> Deserialize<'a>>(answer: &Answer) -> Result<Result<T, Failure>, Doubt> {
    if answer.status.is_some() {
        return Err(Doubt::NoJetStream);
    }
    let value: Value = serde_json::from_slice(&answer.payload).map_err(|_| Doubt::Unexpected)?;
    if let Some(failure) = value.get("error") {
        return Ok(Err(Failure::deserialize(failure).map_err(|_| Doubt::Unexpected)?));
    }
    T::deserialize(value).map(Ok).map_err(|_| Doubt::Unexpected)
}

/// The sequence of what was published into a stream.
pub(super) fn read_acknowledgement(answer: &Answer) -> Result<Result<u64, Failure>, Doubt> {
    #[derive(Deserialize)]
    struct Acknowledgement {
        seq: u64,
    }
    Ok(read::<Acknowledgement>(answer)?.map(|acknowledgement| acknowledgement.seq))
}

/// The message that was asked for.
pub(super) fn read_stored(answer: &Answer) -> Result<Result<Stored, Failure>, Doubt> {
    #[derive(Deserialize)]
    struct Response {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        seq: u64,
        #[serde(default)]
        hdrs: String,
        #[serde(default)]
        data: String,
    }
    let Message { seq, hdrs, data } = match read::<Response>(answer)? {
        Ok(response) => response.message,
        Err(failure) => return Ok(Err(failure)),
    };
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| Doubt::Unexpected);
    let headers = String::from_utf8(bytes(&hdrs)?).map_err(|_| Doubt::Unexpected)?;
    let until = Headers::new(&headers).number(UNTIL).unwrap_or(0);
    Ok(Ok(Stored { sequence: seq, until, payload: bytes(&data)? }))
}

pub(super) fn stream(name: &str) -> Request {
    (format!("$JS.API.STREAM.INFO.{name}"), Vec::new())
}

/// Makes the log. It is in memory: what it holds is told again by those who hold it.
pub(super) fn create_log(names: &Names, replicas: u64) -> Request {
    let config = json!({
        "name": names.log(),
        "description": DESCRIPTION,
        "subjects": [names.log_subjects()],
        "retention": "limits",
        "discard": "old",
        "storage": "memory",
        "max_msgs_per_subject": 1,
        "num_replicas": replicas,
    });
    (format!("$JS.API.STREAM.CREATE.{}", names.log()), config.to_string().into_bytes())
}

/// Makes the stream with last events that are kept for at most so many seconds.
pub(super) fn create_last(names: &Names, seconds: u64, replicas: u64) -> Request {
    let (source, destination) = names.last_subjects(seconds);
    let config = json!({
        "name": names.last(seconds),
        "description": DESCRIPTION,
        "subjects": [source],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "max_msgs_per_subject": 1,
        "max_age": nanoseconds(Duration::from_secs(seconds)),
        "num_replicas": replicas,
        "republish": { "src": source, "dest": destination },
    });
    (format!("$JS.API.STREAM.CREATE.{}", names.last(seconds)), config.to_string().into_bytes())
}

/// Makes the stream with the users whose connections were closed on all nodes. If it is there, nothing changes.
pub(super) fn create_terminated(names: &Names, replicas: u64) -> Request {
    let config = json!({
        "name": names.terminated(),
        "description": DESCRIPTION,
        "subjects": [names.terminated_subjects()],
        "retention": "limits",
        "discard": "old",
        "storage": "memory",
        "max_msgs_per_subject": 1,
        "max_msgs": MOST_TERMINATED,
        "max_age": nanoseconds(TERMINATED),
        "num_replicas": replicas,
    });
    (format!("$JS.API.STREAM.CREATE.{}", names.terminated()), config.to_string().into_bytes())
}

/// Delivers the log, from a sequence on, to a subject, as fast as this node takes it. It ends by itself once nobody hears it.
pub(super) fn consume(stream: &str, subject: &str, from: u64, patience: Duration) -> Request {
    let config = json!({
        "stream_name": stream,
        "config": {
            "deliver_subject": subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": from,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": nanoseconds(patience),
            "inactive_threshold": nanoseconds(patience),
            "mem_storage": true,
            "num_replicas": 1,
        },
    });
    (format!("$JS.API.CONSUMER.CREATE.{stream}"), config.to_string().into_bytes())
}

/// The last message of a subject.
pub(super) fn last_of(stream: &str, subject: &str) -> Request {
    let which = json!({ "last_by_subj": subject });
    (format!("$JS.API.STREAM.MSG.GET.{stream}"), which.to_string().into_bytes())
}

/// The first message of these subjects whose sequence is at least this one.
pub(super) fn next_of(stream: &str, subjects: &str, from: u64) -> Request {
    let which = json!({ "seq": from, "next_by_subj": subjects });
    (format!("$JS.API.STREAM.MSG.GET.{stream}"), which.to_string().into_bytes())
}

/// Takes a message out of a stream, if it is still there.
pub(super) fn delete(stream: &str, sequence: u64) -> Request {
    let which = json!({ "seq": sequence, "no_erase": true });
    (format!("$JS.API.STREAM.MSG.DELETE.{stream}"), which.to_string().into_bytes())
}

/// Takes all messages of these subjects out of a stream.
pub(super) fn purge(stream: &str, subjects: &str) -> Request {
    let which = json!({ "filter": subjects });
    (format!("$JS.API.STREAM.PURGE.{stream}"), which.to_string().into_bytes())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(i64::MAX as u64).min(i64::MAX as u64)
}

/// What is expected to be the last sequence of a subject.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// Where an announced message of a stream has its sequence, and its stream.
pub(super) const SEQUENCE: &str = "Nats-Sequence";
pub(super) const STREAM: &str = "Nats-Stream";

/// How many servers of a NATS cluster have each stream: one of them may die. In a cluster of fewer servers, it is one.
pub(super) const REPLICAS: u64 = 3;

/// Until when a message is kept.
pub(super) const UNTIL: &str = "Taut-Until";

/// What webhooks have been told beyond what the entry says.
pub(super) const TOLD: &str = "Taut-Told";

/// For how long it is known that a user's connections were closed, and of how many users.
pub(super) const TERMINATED: Duration = Duration::from_secs(60);
const MOST_TERMINATED: u64 = 1000;

/// What is written on our streams: nodes that write something else must not share them.
const DESCRIPTION: &str = "Taut, format 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer { status: None, payload: text.into() }
    }

    #[test]
    fn what_jetstream_answers_is_read() {
        assert!(matches!(read_acknowledgement(&answer(r#"{"stream":"a","seq":7}"#)), Ok(Ok(7))));
        let text =
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"a","seq":0}"#;
        let Ok(Err(failure)) = read_acknowledgement(&answer(text)) else { panic!("it has failed") };
        assert!(failure.is_wrong_sequence() && failure.description.ends_with('5'));
        let text = r#"{"type":"x","config":{"name":"a"},"created":"2026-01-01T00:00:00Z","state":{"last_seq":3}}"#;
        let Ok(Ok(found)) = read::<Stream>(&answer(text)) else { panic!("a stream") };
        assert_eq!((found.last(), found.is_ours()), (3, false));
        let Ok(Ok(other)) = read::<Stream>(&answer(&text.replace("00Z", "01Z"))) else { panic!("a stream") };
        assert_ne!(found.epoch(), other.epoch());
        let text = r#"{"message":{"subject":"a","seq":4,"hdrs":"TkFUUy8xLjANClRhdXQtVW50aWw6IDcNCg0K","data":"aGk=","time":""}}"#;
        let stored = read_stored(&answer(text)).expect("an answer").expect("a message");
        assert_eq!(stored, Stored { sequence: 4, until: 7, payload: b"hi".to_vec() });
    }

    #[test]
    fn what_is_no_answer_is_a_doubt() {
        let nobody = Answer { status: Some(503), payload: Vec::new() };
        assert!(matches!(read_acknowledgement(&nobody), Err(Doubt::NoJetStream)));
        for text in ["", "{}", "[]", r#"{"seq":-1}"#] {
            assert!(matches!(read_acknowledgement(&answer(text)), Err(Doubt::Unexpected)), "{text}");
        }
    }
}
