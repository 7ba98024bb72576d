//! Who somebody is: what a backend has vouched for.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{from_object, owned, without_lone_surrogates};
use crate::number::as_javascript_prints;

/// A member of a presence channel, as `channel_data` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Always a text. Some backends send a number: then it is what JavaScript prints, since pusher-js looks itself up
    /// by that.
    pub user_id: Cow<'a, str>,
    /// JSON text of what the member says of itself; `None` where that is absent or `null`.
    pub user_info: Option<Cow<'a, str>>,
}

impl<'a> Member<'a> {
    /// Reads `channel_data`.
    pub fn parse(channel_data: &'a str) -> Result<Self, InvalidMember> {
        match without_lone_surrogates(channel_data) {
            Cow::Borrowed(channel_data) => Self::parse_whole(channel_data),
            Cow::Owned(channel_data) => Member::parse_whole(&channel_data).map(Member::into_owned),
        }
    }

    fn parse_whole(channel_data: &'a str) -> Result<Self, InvalidMember> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            user_id: &'a RawValue,
            #[serde(borrow)]
            user_info: Option<&'a RawValue>,
        }
        let Fields { user_id, user_info } = object(channel_data, "channel_data")?;
        let user_id = identifier(user_id).ok_or(InvalidMember::Identifier { field: "user_id" })?;
        Ok(Self { user_id, user_info: user_info.map(|info| info.get().into()) })
    }

    fn into_owned<'b>(self) -> Member<'b> {
        let Self { user_id, user_info } = self;
        Member { user_id: owned(user_id), user_info: user_info.map(owned) }
    }
}

/// A user who has signed in, as `user_data` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// Never empty.
    pub id: Cow<'a, str>,
    /// JSON text of what the user says of itself; `None` where that is absent or `null`.
    pub user_info: Option<Cow<'a, str>>,
    /// Whose coming and going the user wants to know.
    pub watchlist: Vec<String>,
}

impl<'a> User<'a> {
    /// Reads `user_data`.
    pub fn parse(user_data: &'a str) -> Result<Self, InvalidMember> {
        match without_lone_surrogates(user_data) {
            Cow::Borrowed(user_data) => Self::parse_whole(user_data),
            Cow::Owned(user_data) => User::parse_whole(&user_data).map(User::into_owned),
        }
    }

    fn parse_whole(user_data: &'a str) -> Result<Self, InvalidMember> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
            #[serde(borrow)]
            user_info: Option<&'a RawValue>,
            watchlist: Option<Vec<String>>,
        }
        let Fields { id, user_info, watchlist } = object(user_data, "user_data")?;
        // pusher-js drops a user whose id is not a string, so a number would be of no use to anybody.
        let id = Some(id).filter(|id| id.get().starts_with('"')).and_then(identifier);
        Ok(Self {
            id: id.ok_or(InvalidMember::Identifier { field: "id" })?,
            user_info: user_info.map(|info| info.get().into()),
            watchlist: watchlist.unwrap_or_default(),
        })
    }

    fn into_owned<'b>(self) -> User<'b> {
        let Self { id, user_info, watchlist } = self;
        User { id: owned(id), user_info: user_info.map(owned), watchlist }
    }
}

/// Why a text does not say who somebody is. It repeats nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidMember {
    /// It is not a JSON object with the fields that are needed.
    Form {
        /// What was to be read.
        what: &'static str,
        /// Where it goes wrong.
        column: usize,
    },
    /// The id is neither a text nor a number, or is empty.
    Identifier {
        /// The field's name.
        field: &'static str,
    },
}

impl fmt::Display for InvalidMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form { what, column } => {
                write!(formatter, "Invalid {what}: it must be a JSON object that says who this is (column {column}).")
            }
            Self::Identifier { field: field @ "id" } => {
                write!(formatter, "Invalid user_data: its \"{field}\" must be a string that is not empty.")
            }
            Self::Identifier { field } => write!(
                formatter,
                "Invalid channel_data: its \"{field}\" must be a string that is not empty, or a number."
            ),
        }
    }
}

impl std::error::Error for InvalidMember {}

fn object<'a, T: Deserialize<'a>>(text: &'a str, what: &'static str) -> Result<T, InvalidMember> {
    from_object(text).map_err(|error| InvalidMember::Form { what, column: error.column })
}

/// A text, or what JavaScript prints of a number.
fn identifier(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    if text.starts_with('"') {
        let id: Cow<'_, str> = match serde_json::from_str::<&str>(text) {
            Ok(id) => Cow::Borrowed(id),
            Err(_) => Cow::Owned(serde_json::from_str(text).ok()?),
        };
        return Some(id).filter(|id| !id.is_empty());
    }
    as_javascript_prints(text).map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_has_an_id_as_text_or_number_and_may_say_something_of_itself() {
        for (data, user_id, user_info) in [
            (r#"{"user_id":"10","user_info":{"name":"Mr. Channels"}}"#, "10", Some(r#"{"name":"Mr. Channels"}"#)),
            (r#"{"user_id":10}"#, "10", None),
            (r#"{"user_info":null,"user_id":-1.5e3,"more":[]}"#, "-1500", None),
            (r#" {"user_id":"caf\u00e9","user_info":"x"}"#, "café", Some(r#""x""#)),
        ] {
            let user_info = user_info.map(Cow::from);
            assert_eq!(Member::parse(data), Ok(Member { user_id: user_id.into(), user_info }), "{data}");
        }
    }

    #[test]
    fn a_number_is_the_id_that_pusher_js_looks_itself_up_by() {
        for (number, user_id) in [("7", "7"), ("7.0", "7"), ("1e2", "100"), ("0.5", "0.5"), ("-0", "0")] {
            let data = format!(r#"{{"user_id":{number}}}"#);
            assert_eq!(Member::parse(&data).map(|member| member.user_id), Ok(user_id.into()), "{number}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_the_replacement_character_in_what_others_are_told() {
        let member = Member::parse(r#"{"user_id":"a\ud83d","user_info":{"name":"Great \ud83d"}}"#).expect("a member");
        assert_eq!((&*member.user_id, member.user_info.as_deref()), ("a\u{fffd}", Some(r#"{"name":"Great \ufffd"}"#)));
        let user = User::parse(r#"{"id":"a\ud83d","user_info":"\ude00","watchlist":["b\ude00"]}"#).expect("a user");
        assert_eq!((&*user.id, user.user_info.as_deref()), ("a\u{fffd}", Some(r#""\ufffd""#)));
        assert_eq!(user.watchlist, ["b\u{fffd}"]);
    }

    #[test]
    fn what_says_nobody_is_refused_without_being_repeated() {
        for data in [
            "",
            "secret",
            "[\"secret\",null]",
            "{}",
            r#"{"user_id":""}"#,
            r#"{"user_id":null}"#,
            r#"{"user_id":["secret"]}"#,
            r#"{"user_id":true}"#,
            r#"{"user_id":"a","user_id":"b"}"#,
        ] {
            let refused = Member::parse(data).expect_err(data).to_string();
            assert!(refused.starts_with("Invalid channel_data: ") && !refused.contains("secret"), "{refused}");
            assert!(User::parse(&data.replace("user_id", "id")).is_err(), "{data}");
        }
    }

    #[test]
    fn a_user_has_a_text_as_id_and_may_watch_others() {
        let user = User::parse(r#"{"id":"12345","user_info":{"a":1},"watchlist":["1","2"]}"#).expect("a user");
        assert_eq!((&*user.id, user.user_info.as_deref()), ("12345", Some(r#"{"a":1}"#)));
        assert_eq!(user.watchlist, ["1", "2"]);
        assert_eq!(User::parse(r#"{"id":5}"#), Err(InvalidMember::Identifier { field: "id" }));
        assert!(User::parse(r#"{"id":"5","watchlist":[1]}"#).is_err());
        assert_eq!(User::parse(r#"{"id":"5","watchlist":null}"#).expect("a user").watchlist, [""; 0]);
    }
}
