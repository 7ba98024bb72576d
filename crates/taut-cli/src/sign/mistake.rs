//! Finds out why a signature is wrong: signs what endpoints are known to sign by mistake, and compares.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use taut_pusher::auth::{SigningKey, subscription_text, user_text};
use taut_pusher::hex;

/// What a signature is for.
pub(super) enum Signed {
    Subscription { channel: String, socket_id: String, data: Option<String> },
    User { socket_id: String, data: String },
}

impl Signed {
    /// The text that is signed.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Subscription { channel, socket_id, data } => subscription_text(socket_id, channel, data.as_deref()),
            Self::User { socket_id, data } => user_text(socket_id, data),
        }
    }

    fn data(&self) -> Option<&str> {
        match self {
            Self::Subscription { data, .. } => data.as_deref(),
            Self::User { data, .. } => Some(data),
        }
    }

    /// The same with other data.
    fn with_data(&self, data: String) -> Self {
        match self {
            Self::Subscription { channel, socket_id, .. } => {
                Self::Subscription { channel: channel.clone(), socket_id: socket_id.clone(), data: Some(data) }
            }
            Self::User { socket_id, .. } => Self::User { socket_id: socket_id.clone(), data },
        }
    }
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    KeyMissing,
    OtherKey,
    UpperCase,
    Base64,
    Form,
    LineEnd,
    DataNotSigned,
    OtherData,
    OtherIdType,
    Swapped,
    WithoutPrefix,
    SingleColons,
    KeyAsSecret,
    SecretWithSpace,
    Unknown,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::KeyMissing => "the key is missing. The field auth is KEY:SIGNATURE; the signature itself is right",
            Self::OtherKey => "it has the key of another app; the signature itself is right",
            Self::UpperCase => "its hexadecimal digits are in upper case, and have to be in lower case",
            Self::Base64 => "it is in base64, and has to be in hexadecimal digits",
            Self::Form => "a signature has 64 hexadecimal digits: HMAC-SHA256, written in lower case",
            Self::LineEnd => "a line end was signed with the text; `echo` adds one: use printf",
            Self::DataNotSigned => "the data is not in the signed text: sign SOCKET_ID:CHANNEL:CHANNEL_DATA",
            Self::OtherData => {
                "the signed data is the same JSON written differently (spaces, order or escapes): sign exactly the \
                 text that is answered, and encode it once only"
            }
            Self::OtherIdType => {
                "the id is a number in one and a text in the other: sign exactly the text that is answered"
            }
            Self::Swapped => "socket id and channel are swapped: sign SOCKET_ID:CHANNEL",
            Self::WithoutPrefix => "the channel was signed without its prefix: the whole name counts",
            Self::SingleColons => "there are two colons around user: sign SOCKET_ID::user::USER_DATA",
            Self::KeyAsSecret => "it was signed with the app's key: sign with its secret",
            Self::SecretWithSpace => "the secret has a space or a line end at one end: trim what is read from a file",
            Self::Unknown => {
                "it was made with another secret, or of another text (channel, socket id or data); none of the usual \
                 mistakes explains it"
            }
        })
    }
}

/// The mistake that makes this text wrong; `None` if it is right.
pub(super) fn find(given: &str, signed: &Signed, key: &str, secret: &str) -> Option<Mistake> {
    let (given_key, digits) = given.rsplit_once(':').map_or((None, given), |(key, digits)| (Some(key), digits));
    let text = signed.text();
    if SigningKey::new(secret).sign(&[text.as_bytes()]).matches(digits) {
        return match given_key {
            Some(given) if given == key => None,
            Some(_) => Some(Mistake::OtherKey),
            None => Some(Mistake::KeyMissing),
        };
    }
    if let Some(mistake) = wrong_form(digits, secret, &text) {
        return Some(mistake);
    }
    // In upper case it may have another mistake as well: that is told first.
    let digits = digits.to_lowercase();
    let is_of = |secret: &str, text: &str| SigningKey::new(secret).sign(&[text.as_bytes()]).matches(&digits);
    let others = other_texts(signed);
    let other = others.into_iter().find(|(_, other)| *other != text && is_of(secret, other));
    let other = other.map(|(mistake, _)| mistake);
    let padded = ["\n", "\r\n", " "].iter().flat_map(|space| [format!("{secret}{space}"), format!("{space}{secret}")]);
    let other_secret = || {
        let is_key = is_of(key, &text).then_some(Mistake::KeyAsSecret);
        is_key.or_else(|| padded.into_iter().any(|secret| is_of(&secret, &text)).then_some(Mistake::SecretWithSpace))
    };
    other.or_else(other_secret).or(Some(Mistake::Unknown))
}

/// The right signature in another form, or something that is none.
fn wrong_form(given: &str, secret: &str, text: &str) -> Option<Mistake> {
    let right = SigningKey::new(secret).sign(&[text.as_bytes()]);
    if right.matches(&given.to_lowercase()) {
        return Some(Mistake::UpperCase);
    }
    if STANDARD.decode(given).is_ok_and(|bytes| right.is(&bytes)) {
        return Some(Mistake::Base64);
    }
    hex::decode::<32>(&given.to_lowercase()).is_none().then_some(Mistake::Form)
}

/// What is signed by mistake in place of the text.
fn other_texts(signed: &Signed) -> Vec<(Mistake, String)> {
    let text = signed.text();
    let mut others = vec![(Mistake::LineEnd, format!("{text}\n")), (Mistake::LineEnd, format!("{text}\r\n"))];
    match signed {
        Signed::Subscription { channel, socket_id, data } => {
            others.push((Mistake::Swapped, format!("{channel}:{socket_id}")));
            if let Some(data) = data {
                others.push((Mistake::DataNotSigned, format!("{socket_id}:{channel}")));
                others.push((Mistake::Swapped, format!("{channel}:{socket_id}:{data}")));
            }
            let data = data.as_ref().map(|data| format!(":{data}")).unwrap_or_default();
            for (position, _) in channel.match_indices('-') {
                let short = &channel[position + 1..];
                others.push((Mistake::WithoutPrefix, format!("{socket_id}:{short}{data}")));
            }
        }
        Signed::User { socket_id, data } => {
            others.push((Mistake::SingleColons, format!("{socket_id}:user:{data}")));
            others.push((Mistake::SingleColons, format!("{socket_id}:{data}")));
        }
    }
    let Some(data) = signed.data() else { return others };
    let with_other_id = with_id_of_other_type(data);
    let with_other_id = with_other_id.iter().flat_map(|data| rewritten(data));
    let changed = rewritten(data).into_iter().map(|data| (Mistake::OtherData, data));
    let changed = changed.chain(with_other_id.map(|data| (Mistake::OtherIdType, data)));
    others.extend(changed.map(|(mistake, data)| (mistake, signed.with_data(data).text())));
    others
}

/// JSON as the libraries of several languages write it, and encoded twice.
fn rewritten(json: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(json) else { return Vec::new() };
    let compact = crate::json::compact(json);
    let sorted = value.to_string();
    let mut forms = Vec::new();
    for form in [compact, sorted] {
        let spaced = spaced(&form);
        let (ascii, spaced_ascii) = (escaped(&form), escaped(&spaced));
        forms.extend([form.replace('/', "\\/"), ascii.replace('/', "\\/")]);
        forms.extend([Value::from(form.as_str()).to_string(), form, spaced, ascii, spaced_ascii]);
    }
    forms
}

/// As Python writes it: with a space behind commas and colons.
fn spaced(compact: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let (mut is_text, mut is_escaped) = (false, false);
    for character in compact.chars() {
        out.push(character);
        if is_text {
            is_text = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
        } else if matches!(character, ',' | ':') {
            out.push(' ');
        } else {
            is_text = character == '"';
        }
    }
    out
}

/// As PHP, Ruby and Python write it: all but ASCII escaped.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for unit in json.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => out.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            _ => drop(write!(out, "\\u{unit:04x}")),
        }
    }
    out
}

/// With a number for a text as the user's id, or the other way round.
fn with_id_of_other_type(json: &str) -> Vec<String> {
    let Ok(value) = serde_json::from_str::<Value>(json) else { return Vec::new() };
    let changed = |name: &str| {
        let other = match &value[name] {
            Value::String(text) => text.parse::<u64>().ok().map(Value::from)?,
            Value::Number(number) => Value::from(number.to_string()),
            _ => return None,
        };
        let mut changed = value.clone();
        changed[name] = other;
        Some(changed)
    };
    // The usual order is that of Pusher's documentation, which is not the alphabet's.
    let in_order = |value: &Value| match value.get("user_info") {
        Some(info) => format!(r#"{{"user_id":{},"user_info":{info}}}"#, value["user_id"]),
        None => value.to_string(),
    };
    let changed: Vec<Value> = ["user_id", "id"].into_iter().filter_map(changed).collect();
    changed.iter().flat_map(|value| [value.to_string(), in_order(value)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "app-key";
    const SECRET: &str = "app-secret";
    const DATA: &str = r#"{"user_id":"7","user_info":{"name":"Ärger/2"}}"#;

    fn subscription(data: Option<&str>) -> Signed {
        let data = data.map(str::to_owned);
        Signed::Subscription { channel: "presence-cache-room".into(), socket_id: "1.2".into(), data }
    }

    fn signature(secret: &str, text: &str) -> String {
        SigningKey::new(secret).sign(&[text.as_bytes()]).to_string()
    }

    /// What is said of the signature of a text.
    fn found(signed: &Signed, secret: &str, text: &str) -> Option<Mistake> {
        find(&format!("{KEY}:{}", signature(secret, text)), signed, KEY, SECRET)
    }

    #[test]
    fn a_right_signature_has_no_mistake() {
        for signed in [subscription(None), subscription(Some(DATA))] {
            assert_eq!(found(&signed, SECRET, &signed.text()), None);
        }
        let user = Signed::User { socket_id: "1.2".into(), data: r#"{"id":"7"}"#.into() };
        assert_eq!(found(&user, SECRET, r#"1.2::user::{"id":"7"}"#), None);
    }

    #[test]
    fn the_form_of_a_signature_is_looked_at() {
        let signed = subscription(None);
        let right = signature(SECRET, &signed.text());
        let bytes = hex::decode::<32>(&right).unwrap();
        for (given, mistake) in [
            (right.clone(), Mistake::KeyMissing),
            (format!("other-key:{right}"), Mistake::OtherKey),
            (format!("{KEY}:{}", right.to_uppercase()), Mistake::UpperCase),
            (format!("{KEY}:{}", STANDARD.encode(bytes)), Mistake::Base64),
            (format!("{KEY}:{}", &right[..40]), Mistake::Form),
            (format!("{KEY}:"), Mistake::Form),
            (String::new(), Mistake::Form),
            (format!("{KEY}:{}", "0".repeat(64)), Mistake::Unknown),
        ] {
            assert_eq!(find(&given, &signed, KEY, SECRET), Some(mistake), "{given}");
        }
    }

    #[test]
    fn the_usual_mistakes_in_the_text_are_found() {
        let plain = subscription(None);
        let presence = subscription(Some(DATA));
        for (signed, text, mistake) in [
            (&plain, "1.2:presence-cache-room\n", Mistake::LineEnd),
            (&plain, "presence-cache-room:1.2", Mistake::Swapped),
            (&plain, "1.2:room", Mistake::WithoutPrefix),
            (&presence, "1.2:presence-cache-room", Mistake::DataNotSigned),
            (&presence, "1.2:other", Mistake::Unknown),
        ] {
            assert_eq!(found(signed, SECRET, text), Some(mistake), "{text}");
        }
        let user = Signed::User { socket_id: "1.2".into(), data: r#"{"id":"7"}"#.into() };
        assert_eq!(found(&user, SECRET, r#"1.2:user:{"id":"7"}"#), Some(Mistake::SingleColons));
    }

    #[test]
    fn the_same_data_written_differently_is_found() {
        let presence = subscription(Some(DATA));
        for data in [
            r#"{"user_id": "7", "user_info": {"name": "Ärger/2"}}"#,
            r#"{"user_id": "7", "user_info": {"name": "\u00c4rger/2"}}"#,
            r#"{"user_id":"7","user_info":{"name":"\u00c4rger\/2"}}"#,
            r#""{\"user_id\":\"7\",\"user_info\":{\"name\":\"Ärger/2\"}}""#,
        ] {
            let text = format!("1.2:presence-cache-room:{data}");
            assert_eq!(found(&presence, SECRET, &text), Some(Mistake::OtherData), "{data}");
        }
        let numbered = subscription(Some(r#"{"user_id":10,"user_info":{"name":"A \"B, C\""}}"#));
        let text = r#"1.2:presence-cache-room:{"user_id": 10, "user_info": {"name": "A \"B, C\""}}"#;
        assert_eq!(found(&numbered, SECRET, text), Some(Mistake::OtherData));
    }

    #[test]
    fn an_id_that_is_a_number_in_one_and_a_text_in_the_other_is_found() {
        let presence = subscription(Some(DATA));
        for data in [
            r#"{"user_id":7,"user_info":{"name":"Ärger/2"}}"#,
            r#"{"user_id": 7, "user_info": {"name": "\u00c4rger/2"}}"#,
        ] {
            let text = format!("1.2:presence-cache-room:{data}");
            assert_eq!(found(&presence, SECRET, &text), Some(Mistake::OtherIdType), "{data}");
        }
        let number = subscription(Some(r#"{"user_id":10,"user_info":{"name":"A \"B, C\""}}"#));
        let text = r#"1.2:presence-cache-room:{"user_id":"10","user_info":{"name":"A \"B, C\""}}"#;
        assert_eq!(found(&number, SECRET, text), Some(Mistake::OtherIdType));
    }

    #[test]
    fn a_mistake_is_found_in_upper_case_too() {
        let digits = signature(SECRET, "1.2:presence-cache-room\n").to_uppercase();
        assert_eq!(find(&format!("{KEY}:{digits}"), &subscription(None), KEY, SECRET), Some(Mistake::LineEnd));
    }

    #[test]
    fn the_wrong_secret_is_told_where_it_can_be() {
        let signed = subscription(None);
        assert_eq!(found(&signed, KEY, &signed.text()), Some(Mistake::KeyAsSecret));
        assert_eq!(found(&signed, "app-secret\n", &signed.text()), Some(Mistake::SecretWithSpace));
        assert_eq!(found(&signed, "another", &signed.text()), Some(Mistake::Unknown));
    }
}
