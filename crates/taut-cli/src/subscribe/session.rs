//! What a subscriber says and understands, without a socket: messages in, steps out.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde_json::Value;
use taut_pusher::channel::{Channel, Kind};
use taut_pusher::client::{self, Received, Reconnect};
use taut_pusher::encryption::MasterKey;

use crate::app::App;
use crate::sign::{auth, channel_data};

/// What is known of a connection and of the channels that are wanted on each.
pub(super) struct Session {
    app: App,
    channels: Vec<String>,
    channel_data: Option<String>,
    key: Option<MasterKey>,
    /// The server has said the connection's name.
    is_established: bool,
    /// The subscriptions that the server has confirmed on this connection.
    confirmed: BTreeSet<String>,
    /// Channels of which an event could not be decrypted; that is told once of each.
    unreadable: BTreeSet<String>,
    /// There was a connection before.
    is_again: bool,
}

/// What has to be done about a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The server accepts the connection.
    Established,
    Send(String),
    Show(Shown),
    /// Something that the person should know.
    Tell(String),
    /// A subscription is refused.
    Refused(String),
    /// The server ends the connection before it has begun.
    Ended {
        code: u16,
        reason: String,
    },
}

/// An event to be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) time: SystemTime,
    pub(super) channel: String,
    /// As pusher-js names it.
    pub(super) name: String,
    pub(super) data: Option<String>,
    /// Who sent a client event in a presence channel.
    pub(super) user_id: Option<String>,
    /// It is shown only to those who ask for it by name.
    pub(super) is_hidden: bool,
}

impl Shown {
    /// The protocol's own, and not an application's.
    pub(super) fn is_of_protocol(&self) -> bool {
        self.name.starts_with("pusher:")
    }
}

impl Session {
    /// # Errors
    /// A channel cannot be subscribed to with what is given.
    pub(super) fn new(
        app: App,
        channels: &[String],
        member: Option<(&str, Option<&str>)>,
        key: Option<MasterKey>,
    ) -> Result<Self, String> {
        let channel_data = member.map(|(id, info)| channel_data(id, info)).transpose()?;
        let mut distinct = BTreeSet::new();
        let channels: Vec<_> = channels.iter().filter(|channel| distinct.insert(*channel)).cloned().collect();
        for channel in &channels {
            let kind = Channel::parse(channel, usize::MAX).map_err(|invalid| format!("{channel}: {invalid}"))?.kind();
            if kind.needs_signature() {
                app.secret().map_err(|missing| format!("{channel} needs a signature: {missing}"))?;
            }
            if kind.is_presence() && channel_data.is_none() {
                return Err(format!("{channel} is a presence channel: say who you are with --user-id"));
            }
        }
        Ok(Self {
            app,
            channels,
            channel_data,
            key,
            is_established: false,
            confirmed: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            is_again: false,
        })
    }

    /// There is a new connection.
    pub(super) fn opened(&mut self) {
        self.is_again |= self.is_established;
        self.is_established = false;
        self.confirmed.clear();
    }

    /// Takes a message of the server.
    pub(super) fn receive(&mut self, message: &str) -> Vec<Step> {
        let Some(received) = Received::parse(message) else {
            return vec![Step::Tell(
                "the server sent something that is not an event; is this a Pusher server?".to_owned(),
            )];
        };
        match &*received.event {
            "pusher:connection_established" => self.subscribe(&received),
            "pusher:ping" => vec![Step::Send(client::PONG.to_owned())],
            "pusher:error" => self.error(&received),
            "pusher:subscription_error" => {
                let data = json(&received);
                let reason = data["error"].as_str().or(received.data.as_deref()).unwrap_or_default();
                vec![Step::Refused(format!("{}: {reason}", channel(&received)))]
            }
            "pusher_internal:subscription_succeeded" => self.subscribed(&received),
            _ => self.event(&received),
        }
    }

    fn subscribe(&mut self, received: &Received<'_>) -> Vec<Step> {
        let data = json(received);
        let Some(socket_id) = data["socket_id"].as_str() else {
            return vec![Step::Refused("it sent no socket id".to_owned())];
        };
        self.is_established = true;
        let signed = |channel: &String| {
            let kind = Kind::of(channel);
            let data = self.channel_data.as_deref().filter(|_| kind.is_presence());
            let auth = kind.needs_signature().then(|| auth(&self.app, socket_id, channel, data)).transpose()?;
            Ok(Step::Send(client::subscribe(channel, auth.as_deref(), data)))
        };
        let sent = self.channels.iter().map(signed);
        [Step::Established].into_iter().chain(sent.map(|sent| sent.unwrap_or_else(Step::Refused))).collect()
    }

    /// `pusher:error`: before the connection is established it ends it, and so does a code that asks to connect again,
    /// which some servers send before they close. Others may be about a subscription that is refused, of which Pusher
    /// and Reverb do not say which.
    fn error(&self, received: &Received<'_>) -> Vec<Step> {
        let data = json(received);
        let code = data["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
        let reason = data["message"].as_str().unwrap_or("it gives no reason").to_owned();
        let is_to_come_back = matches!(Reconnect::after(code), Some(Reconnect::AfterBackoff | Reconnect::AtOnce));
        if !self.is_established || is_to_come_back {
            return vec![Step::Ended { code, reason }];
        }
        if self.confirmed.len() < self.channels.len() && !(4300..4400).contains(&code) {
            return vec![Step::Refused(reason)];
        }
        vec![Step::Tell(format!("the server says: {reason}"))]
    }

    fn subscribed(&mut self, received: &Received<'_>) -> Vec<Step> {
        let channel = channel(received);
        self.confirmed.insert(channel.clone());
        let again = if self.is_again { " again" } else { "" };
        let data = json(received);
        let Some(ids) = data["presence"]["ids"].as_array() else {
            return vec![Step::Tell(format!("subscribed{again} to {channel}"))];
        };
        let ids: Vec<_> = ids.iter().map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned)).collect();
        let (count, mut list) = (ids.len(), ids[..ids.len().min(MOST_NAMES)].join(", "));
        if count > MOST_NAMES {
            list.push_str(" …");
        }
        vec![Step::Tell(format!("subscribed{again} to {channel}, users: {count} ({list})"))]
    }

    fn event(&mut self, received: &Received<'_>) -> Vec<Step> {
        let channel = channel(received);
        let (name, is_hidden) = match received.event.strip_prefix("pusher_internal:") {
            Some(name) => (format!("pusher:{name}"), !name.starts_with("member_")),
            None => {
                (received.event.to_string(), received.event.starts_with("pusher:") && &*received.event != CACHE_MISS)
            }
        };
        let is_encrypted = Kind::of(&channel).is_encrypted() && !name.starts_with("pusher:");
        let mut data = received.data.as_deref().map(str::to_owned);
        let mut steps = Vec::new();
        if let (true, Some(key), Some(text)) = (is_encrypted, &self.key, &mut data) {
            match key.shared_secret(&channel).decrypt(text) {
                Ok(plain) => *text = plain,
                Err(error) if self.unreadable.insert(channel.clone()) => {
                    steps.push(Step::Tell(format!("{channel}: {error}; shown as it came")));
                }
                Err(_) => {}
            }
        }
        let user_id = received.user_id.as_deref().map(str::to_owned);
        steps.push(Step::Show(Shown { time: SystemTime::now(), channel, name, data, user_id, is_hidden }));
        steps
    }
}

fn channel(received: &Received<'_>) -> String {
    received.channel.as_deref().unwrap_or_default().to_owned()
}

fn json(received: &Received<'_>) -> Value {
    received.data.as_deref().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default()
}

const CACHE_MISS: &str = "pusher:cache_miss";

/// Users of a presence channel that are named; the others are counted.
const MOST_NAMES: usize = 20;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::app::AppArguments;

    const ESTABLISHED: &str =
        r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        app: AppArguments,
    }

    fn app(text: &str) -> App {
        Line::try_parse_from(["x", "--app", text]).expect("a good line").app.resolve().expect("an app")
    }

    fn session(channels: &[&str]) -> Session {
        let channels: Vec<String> = channels.iter().map(|channel| (*channel).to_owned()).collect();
        Session::new(app("1:app-key:app-secret"), &channels, Some(("7", None)), None).expect("good channels")
    }

    fn subscribe(channel: &str) -> Step {
        Step::Send(client::subscribe(channel, None, None))
    }

    fn shown(session: &mut Session, message: &str) -> Shown {
        match session.receive(message).pop() {
            Some(Step::Show(shown)) => shown,
            other => panic!("not shown: {other:?}"),
        }
    }

    #[test]
    fn each_channel_is_subscribed_to_as_its_kind_asks() {
        let mut session = session(&["news", "private-a", "presence-b"]);
        let steps = session.receive(ESTABLISHED);
        let app = app("1:app-key:app-secret");
        let data = r#"{"user_id":"7"}"#;
        let private = auth(&app, "1.2", "private-a", None).unwrap();
        let presence = auth(&app, "1.2", "presence-b", Some(data)).unwrap();
        let expected = vec![
            Step::Established,
            Step::Send(client::subscribe("news", None, None)),
            Step::Send(client::subscribe("private-a", Some(&private), None)),
            Step::Send(client::subscribe("presence-b", Some(&presence), Some(data))),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn what_cannot_be_subscribed_to_is_refused_before_there_is_a_connection() {
        let wrong =
            |app: App, channel: &str| Session::new(app, &[channel.to_owned()], None, None).err().expect("a mistake");
        assert!(wrong(app("1:k:s"), "presence-a").contains("--user-id"));
        assert!(wrong(app("1:k:s"), "a b").starts_with("a b: The channel name contains"));
        assert!(wrong(app("pusher://k@a/1"), "private-a").starts_with("private-a needs a signature"));
        assert!(Session::new(app("pusher://k@a/1"), &["news".to_owned()], None, None).is_ok());
    }

    #[test]
    fn an_error_ends_the_connection_refuses_or_is_told() {
        let error = |code: &str| format!(r#"{{"event":"pusher:error","data":{{"code":{code},"message":"no"}}}}"#);
        let mut session = session(&["news"]);
        assert_eq!(session.receive(&error("4001")), [Step::Ended { code: 4001, reason: "no".to_owned() }]);
        session.receive(ESTABLISHED);
        assert_eq!(session.receive(&error("4301")), [Step::Tell("the server says: no".to_owned())]);
        assert_eq!(session.receive(&error("null")), [Step::Refused("no".to_owned())]);
        // Of a server that restarts, before it closes.
        for code in [4100, 4200] {
            let ended = Step::Ended { code, reason: "no".to_owned() };
            assert_eq!(session.receive(&error(&code.to_string())), [ended]);
        }
        let succeeded = r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#;
        assert_eq!(session.receive(succeeded), [Step::Tell("subscribed to news".to_owned())]);
        assert_eq!(session.receive(&error("null")), [Step::Tell("the server says: no".to_owned())]);
        let refused = r#"{"event":"pusher:subscription_error","channel":"news","data":{"error":"why","status":401}}"#;
        assert_eq!(session.receive(refused), [Step::Refused("news: why".to_owned())]);
        session.opened();
        session.receive(ESTABLISHED);
        assert_eq!(session.receive(succeeded), [Step::Tell("subscribed again to news".to_owned())]);
    }

    #[test]
    fn a_channel_that_is_named_twice_is_subscribed_to_once() {
        let mut session = session(&["news", "a", "news"]);
        let sent = [Step::Established, subscribe("news"), subscribe("a")];
        assert_eq!(session.receive(ESTABLISHED), sent);
        for channel in ["news", "a"] {
            session.receive(&format!(
                r#"{{"event":"pusher_internal:subscription_succeeded","channel":"{channel}","data":"{{}}"}}"#
            ));
        }
        // All are confirmed, so it is not about one of them.
        let error = r#"{"event":"pusher:error","data":{"code":null,"message":"no"}}"#;
        assert_eq!(session.receive(error), [Step::Tell("the server says: no".to_owned())]);
    }

    #[test]
    fn pings_are_answered_and_members_named() {
        let mut session = session(&["presence-a"]);
        assert_eq!(session.receive(r#"{"event":"pusher:ping","data":{}}"#), [Step::Send(client::PONG.to_owned())]);
        let data = r#"{\"presence\":{\"ids\":[\"a\",7],\"hash\":{},\"count\":2}}"#;
        let succeeded =
            format!(r#"{{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","data":"{data}"}}"#);
        assert_eq!(session.receive(&succeeded), [Step::Tell("subscribed to presence-a, users: 2 (a, 7)".to_owned())]);
        let added = r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":\"b\"}"}"#;
        let added = shown(&mut session, added);
        assert!(added.name == "pusher:member_added" && !added.is_hidden && added.is_of_protocol());
        let count =
            r#"{"event":"pusher_internal:subscription_count","channel":"a","data":"{\"subscription_count\":2}"}"#;
        assert!(shown(&mut session, count).is_hidden);
        assert!(!shown(&mut session, r#"{"event":"pusher:cache_miss","channel":"cache-a"}"#).is_hidden);
    }

    #[test]
    fn encrypted_events_are_read_with_the_key_and_shown_as_they_are_without() {
        let name = "private-encrypted-a";
        let key = MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let data = key.shared_secret(name).encrypt(r#"{"x":1}"#, [7; 24]);
        let message = serde_json::json!({"event": "e", "channel": name, "data": data}).to_string();
        let of = |key| Session::new(app("1:k:s"), &[name.to_owned()], None, key).unwrap();
        assert_eq!(shown(&mut of(Some(key)), &message).data.as_deref(), Some(r#"{"x":1}"#));
        assert_eq!(shown(&mut of(None), &message).data.as_deref(), Some(&*data));
        let mut wrong = of(Some(MasterKey::from_base64("HxwdHh8bGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=").unwrap()));
        let [Step::Tell(told), Step::Show(event)] = &wrong.receive(&message)[..] else { panic!("it is told") };
        assert_eq!(told, "private-encrypted-a: the data was encrypted with another key; shown as it came");
        assert_eq!(event.data.as_deref(), Some(&*data));
        assert!(matches!(wrong.receive(&message)[..], [Step::Show(_)]), "once");
    }
}
