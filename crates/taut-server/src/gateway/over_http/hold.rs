//! Reads a backend's response to a client's GET: one that is to be held open as a stream, or a whole one. No I/O and no
//! clock.

use super::answer::Response;
use crate::gateway::event::{self, Acceptance, Answer, Step};
use crate::gateway::grip::control::{Control, KeepAlive, Message};
use crate::gateway::grip::events::Kind;
use crate::gateway::grip::headers::{Header, is_value};
use crate::gateway::grip::instruct::{self, Hold, Instruct};

/// What becomes of the response.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Held {
    /// It stays open, and its channels are what the answer says.
    Stream(Box<Answer>),
    /// It is complete.
    Whole(Box<event::Response>),
}

/// Reads a response with any status; an error is a sentence for the log about why the client gets a 502.
pub(crate) fn read(response: &Response<'_>) -> Result<Held, Box<str>> {
    let Response { status, headers, body } = *response;
    let instruct = Instruct::read(status, headers, body).map_err(|error| error.to_string())?;
    let Some(instruct) = instruct else { return Ok(Held::Whole(Box::new(whole(status, headers, body)))) };
    match instruct.hold {
        Some(Hold::Response) => Err(LONG_POLL.into()),
        // Of a stream, the link is for those who have missed something: they come back by themselves.
        Some(Hold::Stream) => Ok(Held::Stream(Box::new(stream(instruct)))),
        None if instruct.has_next => Err(LINK.into()),
        None => Ok(Held::Whole(Box::new(shown(instruct.response)))),
    }
}

fn whole(status: u16, headers: &[Header<'_>], body: &[u8]) -> event::Response {
    let headers = headers.iter().filter(|(name, value)| instruct::is_for_client(name) && is_value(value));
    let headers = headers.map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    shown(instruct::Response { status, headers, body: body.into() })
}

fn stream(instruct: Instruct<'_>) -> Answer {
    let Instruct { channels, keep_alive, meta, response, .. } = instruct;
    // Filters go by the metadata, so those come first.
    let meta = meta.into_iter().map(|(name, value)| Control::SetMeta { name, value: Some(value) });
    let channels =
        channels.into_iter().map(|channel| Control::Subscribe { channel: channel.name, filters: channel.filters });
    let keep_alive = keep_alive.map(|instruct::KeepAlive { content, seconds, mode }| {
        Control::KeepAlive(Some(KeepAlive { message: Message { kind: Kind::Binary, content }, seconds, mode }))
    });
    let steps = meta.chain(channels).chain(keep_alive).map(Step::Control).collect();
    let acceptance = Acceptance { response: Some(Box::new(shown(response))), ..Acceptance::default() };
    Answer { steps, acceptance, ..Answer::default() }
}

/// The response as the client gets it. What a server says in an error may be a trace of its program.
fn shown(response: instruct::Response<'_>) -> event::Response {
    let instruct::Response { status, headers, body } = response;
    let is_error = status >= 500;
    let is_shown = |name: &str| !(is_error && name.to_ascii_lowercase().starts_with("content-"));
    let text = |(name, value): (String, Vec<u8>)| {
        let value = String::from_utf8(value).ok()?;
        is_shown(&name).then(|| (name.into(), value.into()))
    };
    let headers = headers.into_iter().filter_map(text).collect();
    event::Response { status, headers, body: if is_error { Box::default() } else { body.into() } }
}

const LONG_POLL: &str = "it asks for long polling (Grip-Hold: response), which is not served yet";

const LINK: &str = "it continues by a Grip-Link, which is not followed yet";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::grip::{Filters, Mode};

    fn read_as<'a>(status: u16, headers: &[(&'a str, &'a str)], body: &'a str) -> Result<Held, Box<str>> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        read(&Response { status, headers: &headers, body: body.as_bytes() })
    }

    fn response(status: u16, headers: &[(&str, &str)], body: &str) -> event::Response {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        event::Response { status, headers, body: body.as_bytes().into() }
    }

    #[test]
    fn a_stream_is_held_with_its_channels() {
        let headers = [
            ("Content-Type", "text/event-stream"),
            ("Grip-Hold", "stream"),
            ("Grip-Link", "</events?link=next>; rel=next"),
            ("Grip-Keep-Alive", r"event: ka\ndata:\n\n; format=cstring; timeout=20"),
            ("Grip-Channel", "a; filter=skip-users, b"),
            ("Grip-Set-Meta", "user=\"7\""),
            ("Set-Cookie", "a=1"),
            ("Server", "x"),
        ];
        let Ok(Held::Stream(answer)) = read_as(200, &headers, "first\n") else { panic!("a stream") };
        let subscribe = |channel: &str, filters| Control::Subscribe { channel: channel.to_owned(), filters };
        let message = Message { kind: Kind::Binary, content: b"event: ka\ndata:\n\n".to_vec() };
        let expected = [
            Control::SetMeta { name: "user".to_owned(), value: Some("7".to_owned()) },
            subscribe("a", Filters { skip_users: true, ..Filters::default() }),
            subscribe("b", Filters::default()),
            Control::KeepAlive(Some(KeepAlive { message, seconds: 20, mode: Mode::Idle })),
        ];
        assert_eq!(answer.steps, expected.map(Step::Control));
        let expected = response(200, &[("Content-Type", "text/event-stream"), ("Set-Cookie", "a=1")], "first\n");
        assert_eq!(answer.acceptance.response.as_deref(), Some(&expected));
    }

    #[test]
    fn any_other_response_is_complete() {
        let whole =
            |status, headers: &[(&'static str, &'static str)], body: &'static str| match read_as(status, headers, body)
            {
                Ok(Held::Whole(response)) => *response,
                other => panic!("{other:?}"),
            };
        let headers =
            [("Content-Type", "text/html"), ("ETag", "x"), ("Transfer-Encoding", "chunked"), ("X-Powered-By", "y")];
        let expected = response(404, &[("Content-Type", "text/html"), ("ETag", "x")], "<p>");
        assert_eq!(whole(404, &headers, "<p>"), expected);
        assert_eq!(whole(200, &[("Grip-Status", "304")], ""), response(304, &[], ""));
        assert_eq!(whole(200, &[("Grip-Channel", "a"), ("A", "b")], "x"), response(200, &[("A", "b")], "x"));
    }

    #[test]
    fn of_an_error_the_client_gets_the_status_alone() {
        let headers = [("Content-Type", "text/html"), ("content-language", "en"), ("Retry-After", "5")];
        let Ok(Held::Whole(shown)) = read_as(503, &headers, "trace") else { panic!("a response") };
        assert_eq!(*shown, response(503, &[("Retry-After", "5")], ""));
    }

    #[test]
    fn what_is_not_served_yet_says_so() {
        for (headers, why) in [
            (&[("Grip-Hold", "response"), ("Grip-Channel", "a")][..], "long polling"),
            (&[("Grip-Link", "</more>; rel=next")], "Grip-Link"),
            (&[("Grip-Hold", "forever")], "Grip-Hold must be"),
        ] {
            let error = read_as(200, headers, "").expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
