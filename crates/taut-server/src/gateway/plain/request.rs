//! What the backend is told: the body of a request.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::gateway::event::{Event, User};

/// The fields that every event of a connection has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection<'a> {
    pub(crate) id: &'a str,
    pub(crate) route: &'a str,
    pub(crate) params: &'a [(Box<str>, Box<str>)],
    /// As the client sent it, without its query.
    pub(crate) path: &'a str,
    pub(crate) user: Option<&'a User>,
    pub(crate) meta: &'a Map<String, Value>,
    /// Only [`Event::Open`] tells of it.
    pub(crate) upgrade: Upgrade<'a>,
}

/// The client's request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upgrade<'a> {
    /// As the client sent it, without the question mark.
    pub(crate) query: &'a str,
    /// Those that the route forwards. Names with `_` and `Proxy` are dropped here in any case: CGI cannot tell them
    /// from others.
    pub(crate) headers: &'a [(&'a str, &'a [u8])],
    pub(crate) address: &'a str,
    pub(crate) protocols: &'a [&'a str],
    pub(crate) is_secure: bool,
    /// What the client asks for: `websocket` or `sse`.
    pub(crate) transport: &'a str,
}

/// Writes the request of events: a list of them if it is a batch, and otherwise the only one. `seq` is that of the
/// first, 1 for [`Event::Open`]; `attempt` is 1 for the first.
pub(crate) fn write(connection: &Connection<'_>, events: &[Event], is_batch: bool, seq: u64, attempt: u32) -> Vec<u8> {
    #[derive(Serialize)]
    struct Batch<'a> {
        v: u8,
        events: Vec<Body<'a>>,
    }
    let mut bodies = events.iter().zip(seq..).map(|(event, seq)| Body::new(connection, event, seq, attempt));
    match bodies.next() {
        Some(body) if !is_batch => json(&Body { v: Some(VERSION), ..body }),
        first => json(&Batch { v: VERSION, events: first.into_iter().chain(bodies).collect() }),
    }
}

const VERSION: u8 = 1;

fn json(request: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(request).expect("its names are text, and memory can be written to")
}

/// The fields in the order of the documentation.
#[derive(Serialize)]
struct Body<'a> {
    /// Of a batch it is said once.
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<u8>,
    event: &'static str,
    connection: &'a str,
    seq: u64,
    attempt: u32,
    route: &'a str,
    params: Params<'a>,
    path: &'a str,
    user: Option<UserBody<'a>>,
    meta: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<UpgradeBody<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<Base64<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clean: Option<bool>,
}

impl<'a> Body<'a> {
    fn new(connection: &Connection<'a>, event: &'a Event, seq: u64, attempt: u32) -> Self {
        let &Connection { id, route, params, path, user, meta, upgrade } = connection;
        let body = Self {
            v: None,
            event: "open",
            connection: id,
            seq,
            attempt,
            route,
            params: Params(params),
            path,
            user: user.map(UserBody::new),
            meta,
            transport: None,
            request: None,
            data: None,
            data_base64: None,
            code: None,
            reason: None,
            clean: None,
        };
        match event {
            Event::Open => {
                Self { transport: Some(upgrade.transport), request: Some(UpgradeBody::new(&upgrade)), ..body }
            }
            Event::Text(text) => Self { event: "text", data: Some(text), ..body },
            Event::Binary(bytes) => Self { event: "binary", data_base64: Some(Base64(bytes)), ..body },
            Event::Timer => Self { event: "timer", ..body },
            Event::Close { code, reason, is_clean } => {
                Self { event: "close", code: Some(*code), reason: Some(reason), clean: Some(*is_clean), ..body }
            }
        }
    }
}

#[derive(Serialize)]
struct UserBody<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

impl<'a> UserBody<'a> {
    fn new(user: &'a User) -> Self {
        // What is not JSON would spoil the whole request.
        let info = user.info.as_deref().and_then(|info| serde_json::from_str(info).ok());
        Self { id: &user.id, info }
    }
}

#[derive(Serialize)]
struct UpgradeBody<'a> {
    query: Fields<'a>,
    headers: Fields<'a>,
    address: &'a str,
    protocols: &'a [&'a str],
    secure: bool,
}

impl<'a> UpgradeBody<'a> {
    fn new(upgrade: &Upgrade<'a>) -> Self {
        let &Upgrade { query, headers, address, protocols, is_secure, transport: _ } = upgrade;
        Self {
            query: Fields::of_query(query),
            headers: Fields::of_headers(headers),
            address,
            protocols,
            secure: is_secure,
        }
    }
}

/// Names with their values, in the order in which the names came first.
#[derive(Default)]
struct Fields<'a> {
    fields: Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)>,
    indexes: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Fields<'a> {
    /// As forms are read (WHATWG URL §5.1).
    fn of_query(query: &'a str) -> Self {
        let mut fields = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.push(form_decoded(name), form_decoded(value));
        }
        fields
    }

    /// One value per name: several are joined as RFC 9110 §5.3 and RFC 6265 §5.4 have it.
    fn of_headers(headers: &[(&'a str, &'a [u8])]) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if !name.contains('_') && name != "proxy" {
                fields.push(name.into(), String::from_utf8_lossy(value));
            }
        }
        for (name, values) in &mut fields.fields {
            if values.len() > 1 {
                *values = vec![values.join(if name == "cookie" { "; " } else { ", " }).into()];
            }
        }
        fields
    }

    fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        if let Some(&index) = self.indexes.get(&name) {
            self.fields[index].1.push(value);
        } else {
            self.indexes.insert(name.clone(), self.fields.len());
            self.fields.push((name, vec![value]));
        }
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, values) in &self.fields {
            match &values[..] {
                [value] => object.serialize_entry(name, value)?,
                values => object.serialize_entry(name, values)?,
            }
        }
        object.end()
    }
}

fn form_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('+', " ");
    Cow::Owned(percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned())
}

struct Params<'a>(&'a [(Box<str>, Box<str>)]);

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const UPGRADE: Upgrade<'_> = Upgrade {
        query: "",
        headers: &[],
        address: "192.0.2.1",
        protocols: &[],
        is_secure: false,
        transport: "websocket",
    };

    fn meta(value: Value) -> Map<String, Value> {
        if let Value::Object(fields) = value { fields } else { panic!("{value}") }
    }

    fn user(id: &str, info: Option<&str>) -> User {
        User { id: id.into(), info: info.map(Into::into) }
    }

    fn connection<'a>(user: Option<&'a User>, meta: &'a Map<String, Value>) -> Connection<'a> {
        Connection { id: "c7", route: "chat", params: &[], path: "/chat", user, meta, upgrade: UPGRADE }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_batch_is_a_list_however_many_there_are() {
        let meta = Map::new();
        let connection = connection(None, &meta);
        let events = ["a", "b"].map(|text| Event::Text(text.into()));
        let read = |events: &[Event]| -> Value {
            serde_json::from_slice(&write(&connection, events, true, 7, 1)).expect("JSON")
        };
        let both = read(&events);
        assert_eq!(both["v"], 1);
        let told: Vec<_> =
            both["events"].as_array().expect("a list").iter().map(|it| (&it["seq"], &it["data"])).collect();
        assert_eq!(told, [(&7.into(), &"a".into()), (&8.into(), &"b".into())]);
        assert_eq!(read(&events[..1])["events"][0], both["events"][0]);
    }

    #[test]
    fn every_event_has_its_fields_in_their_order() {
        let params = [("room".into(), "4\"2".into()), ("b".into(), "ü".into())];
        let (user, meta) = (user("7", None), meta(json!({"room":"42"})));
        let connection = Connection { params: &params, path: "/chat/4%222", ..connection(Some(&user), &meta) };
        let start = |event, seq| {
            format!(
                r#"{{"v":1,"event":"{event}","connection":"c7","seq":{seq},"attempt":1,"route":"chat","params":{{"room":"4\"2","b":"ü"}},"path":"/chat/4%222","user":{{"id":"7"}},"meta":{{"room":"42"}}"#
            )
        };
        let close = Event::Close { code: 1006, reason: "a\n".into(), is_clean: false };
        for (event, name, rest) in [
            (Event::Text("hé\"\0\u{2028}".into()), "text", ",\"data\":\"hé\\\"\\u0000\u{2028}\"}"),
            (Event::Text("".into()), "text", r#","data":""}"#),
            (Event::Binary([0, 255, 254, 1].into()), "binary", r#","data_base64":"AP/+AQ=="}"#),
            (Event::Binary([].into()), "binary", r#","data_base64":""}"#),
            (Event::Timer, "timer", "}"),
            (close, "close", r#","code":1006,"reason":"a\n","clean":false}"#),
            (
                Event::Open,
                "open",
                concat!(
                    r#","transport":"websocket","request":{"query":{},"headers":{},"address":"192.0.2.1","#,
                    r#""protocols":[],"secure":false}}"#
                ),
            ),
        ] {
            assert_eq!(text(write(&connection, &[event], false, 2, 1)), [&*start(name, 2), rest].concat());
        }
    }

    #[test]
    fn open_tells_of_the_request() {
        let meta = Map::new();
        let upgrade = Upgrade {
            query: "token=a+b%2B%C3%A9&t[]=1&x&t[]=2&=e&t[]=%FF&&x=&b=1=2",
            headers: &[
                ("Cookie", b"a=1"),
                ("X-A", b"1"),
                ("cookie", b"b=2"),
                ("x-a", "zo\u{eb}".as_bytes()),
                ("X_A", b"3"),
                ("Proxy", b"evil"),
                ("Origin", b"http://a\xff"),
            ],
            address: "2001:db8::1",
            protocols: &["a", "b"],
            is_secure: true,
            transport: "sse",
        };
        let connection = Connection { upgrade, ..connection(None, &meta) };
        assert_eq!(
            text(write(&connection, &[Event::Open], false, 1, 3)),
            concat!(
                r#"{"v":1,"event":"open","connection":"c7","seq":1,"attempt":3,"route":"chat","params":{},"path":"/chat","#,
                r#""user":null,"meta":{},"transport":"sse","request":{"query":{"token":"a b+é","t[]":["1","2","�"],"x":["",""],"":"e","b":"1=2"},"#,
                r#""headers":{"cookie":"a=1; b=2","x-a":"1, zoë","origin":"http://a�"},"#,
                r#""address":"2001:db8::1","protocols":["a","b"],"secure":true}}"#
            )
        );
    }

    #[test]
    fn a_users_info_is_passed_as_it_is_unless_it_is_not_json() {
        let meta = Map::new();
        for (info, written) in [
            (
                Some(r#"{"n":1.0,"id":12345678901234567890123}"#),
                r#""user":{"id":"7","info":{"n":1.0,"id":12345678901234567890123}}"#,
            ),
            (Some("null"), r#""user":{"id":"7","info":null}"#),
            (Some(r#"1},"v":2"#), r#""user":{"id":"7"}"#),
            (Some(""), r#""user":{"id":"7"}"#),
            (None, r#""user":{"id":"7"}"#),
        ] {
            let body = text(write(&connection(Some(&user("7", info)), &meta), &[Event::Timer], false, 4, 1));
            assert!(body.contains(&format!("{written},\"meta\"")), "{body}");
        }
    }

    #[test]
    fn many_names_in_a_query_do_not_take_long() {
        let query = (0..50_000).map(|number| number.to_string()).collect::<Vec<_>>().join("&");
        let fields = Fields::of_query(&query);
        assert_eq!(fields.fields.len(), 50_000);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Open),
            Just(Event::Timer),
            any::<String>().prop_map(|text| Event::Text(text.into())),
            any::<Vec<u8>>().prop_map(|bytes| Event::Binary(bytes.into())),
            any::<(u16, String, bool)>().prop_map(|(code, reason, is_clean)| Event::Close {
                code,
                reason: reason.into(),
                is_clean
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_json_that_says_the_same(
            event in any_event(),
            (id, route, path, address) in any::<(String, String, String, String)>(),
            (user_id, info, seq, attempt) in any::<(String, Option<String>, u64, u32)>(),
            kept in prop::collection::btree_map(any::<String>(), any::<Option<String>>(), 0..3),
            params in prop::collection::btree_map("[a-z0-9_]{1,5}", any::<String>(), 0..3),
            pairs in prop::collection::vec(("[a-c%+&=é]{0,2}", any::<String>()), 0..5),
            headers in prop::collection::vec(("[a-cA-C_-]{1,2}", any::<Vec<u8>>()), 0..4),
            protocols in prop::collection::vec(any::<String>(), 0..4),
            is_secure in any::<bool>(),
        ) {
            let encoded = |text: &str| -> String { text.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02X}")) };
            let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
            let query = query.join("&");
            let protocols: Vec<&str> = protocols.iter().map(|protocol| &**protocol).collect();
            let header_refs: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let upgrade = Upgrade {
                query: &query,
                headers: &header_refs,
                address: &address,
                protocols: &protocols,
                is_secure,
                transport: "sse",
            };
            let kept = json!(kept);
            let meta = meta(kept.clone());
            let info = info.map(|info| json!(info));
            let user = User { id: (&*user_id).into(), info: info.as_ref().map(|info| info.to_string().into()) };
            let boxed: Vec<_> = params.iter().map(|(name, value)| ((&**name).into(), (&**value).into())).collect();
            let connection =
                Connection { id: &id, route: &route, params: &boxed, path: &path, user: Some(&user), meta: &meta, upgrade };
            let written: Value = serde_json::from_slice(&write(&connection, std::slice::from_ref(&event), false, seq, attempt)).expect("JSON");

            let mut expected = json!({
                "v": 1, "connection": id, "seq": seq, "attempt": attempt, "route": route, "params": params, "path": path,
                "user": {"id": user_id}, "meta": kept,
            });
            if let Some(info) = info {
                expected["user"]["info"] = info;
            }
            match event {
                Event::Text(text) => expected["data"] = json!(text),
                Event::Binary(bytes) => {
                    let read = STANDARD.decode(written["data_base64"].as_str().expect("a text")).expect("base64");
                    prop_assert_eq!(&read[..], &*bytes);
                    expected["data_base64"] = written["data_base64"].clone();
                }
                Event::Close { code, reason, is_clean } => {
                    expected["code"] = json!(code);
                    expected["reason"] = json!(reason);
                    expected["clean"] = json!(is_clean);
                }
                Event::Open => {
                    let mut fields = json!({});
                    for (name, value) in &pairs {
                        match &mut fields[name] {
                            Value::Array(values) => values.push(json!(value)),
                            field @ Value::Null => *field = json!(value),
                            field => *field = json!([field.clone(), value]),
                        }
                    }
                    let mut joined = json!({});
                    for (name, value) in headers.iter().filter(|(name, _)| !name.contains('_')) {
                        let (name, value) = (name.to_lowercase(), String::from_utf8_lossy(value));
                        joined[&name] = match &joined[&name] {
                            Value::String(before) => json!(format!("{before}, {value}")),
                            _ => json!(value),
                        };
                    }
                    expected["transport"] = json!("sse");
                    expected["request"] = json!({
                        "query": fields, "headers": joined, "address": address, "protocols": protocols, "secure": is_secure,
                    });
                }
                Event::Timer => {}
            }
            expected["event"] = written["event"].clone();
            prop_assert_eq!(written, expected);
        }

        #[test]
        fn no_query_makes_it_panic(query: String, bytes: Vec<u8>) {
            let meta = Map::new();
            let headers = [(&*query, &bytes[..])];
            let upgrade = Upgrade { query: &query, headers: &headers, ..UPGRADE };
            let connection = Connection { upgrade, ..connection(None, &meta) };
            let written: Value = serde_json::from_slice(&write(&connection, &[Event::Open], false, 1, 1)).expect("JSON");
            prop_assert!(written["request"]["query"].is_object());
        }
    }
}
