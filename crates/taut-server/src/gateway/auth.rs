//! What the server itself knows of a client whose route asks for a token ([`Auth::Jwt`]).

use serde_json::Map;

use super::conversation::Kept;
use super::event::{Answer, User};
use super::over_http;
use super::route::{Auth, Form, RouteConfig};
use crate::app::{TokenAuth, UpgradeAuth};
use crate::apps::App;
use crate::identity::Identity;

/// Whether a route has an app, and that app keys for tokens if the route needs them.
///
/// # Errors
/// What is missing, in words.
pub(super) fn check_app(route: &RouteConfig, app: Option<&App>) -> Result<(), String> {
    let path = &route.path;
    let Some(app) = app else {
        return Err(match &route.app {
            none if none.is_empty() => format!("route {path}: name its app, since there is not exactly one"),
            unknown => format!("route {path}: there is no app {unknown:?}"),
        });
    };
    let has_keys = matches!(app.snapshot().config.upgrade, Some(UpgradeAuth::Token(_)));
    if route.auth != Auth::Jwt || has_keys {
        return Ok(());
    }
    let id = app.id();
    Err(format!(
        "route {path}: auth = \"jwt\" needs keys for tokens: give the app {id:?} an [apps.upgrade] with secret, \
         public-key or jwks"
    ))
}

/// What is kept of a connection from its beginning if a token has said whose it is; `None` if the backend cannot be told
/// that.
pub(crate) fn kept_of(identity: Identity, form: Form) -> Option<Kept> {
    let Identity { user_id, user_info } = identity;
    let meta = match form {
        Form::Plain => Map::new(),
        Form::WebSocketOverHttp => over_http::meta_of_user(&user_id)?,
    };
    let user = User { id: (*user_id).into(), info: user_info };
    Some(Kept { user: Some(user), meta, grip: None })
}

/// Adds to an answer to [`Event::Open`](super::event::Event::Open) what it need not say: the user of the token, and a
/// subprotocol for clients that send their token as one. Browsers want one of those that they offered.
pub(super) fn complete(answer: &mut Answer, auth: Auth, user: Option<&User>, offered: &[Box<str>]) {
    if auth != Auth::Jwt {
        return;
    }
    if answer.user.is_none() {
        answer.user = user.cloned().map(Some);
    }
    let is_offered = offered.iter().any(|name| **name == *TokenAuth::SUBPROTOCOL);
    if is_offered && !answer.acceptance.has_subprotocol() {
        answer.acceptance.subprotocol = Some(TokenAuth::SUBPROTOCOL.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{AppConfig, Callback, Limits, TokenKeys};
    use crate::apps::Apps;
    use crate::gateway::Backend;
    use crate::gateway::event::Acceptance;

    fn identity(user_id: &str) -> Identity {
        Identity { user_id: user_id.into(), user_info: Some("{}".into()) }
    }

    #[test]
    fn a_route_for_tokens_needs_an_app_with_keys_for_them() {
        let token = UpgradeAuth::Token(TokenAuth::new(TokenKeys::Secret("0".repeat(32).into())));
        let callback = UpgradeAuth::Callback(Callback::new("http://a.example/"));
        let backend = Backend::Http { url: "http://a.example/".to_owned() };
        let checked = |auth, upgrade: &Option<UpgradeAuth>| {
            let app = AppConfig { upgrade: upgrade.clone(), ..AppConfig::development() };
            let apps = Apps::new([app], &Limits::default()).expect("one app");
            let route = RouteConfig { auth, ..RouteConfig::new("/chat", "", backend.clone()) };
            check_app(&route, apps.only().as_deref())
        };
        for (upgrade, is_enough) in [(None, false), (Some(callback), false), (Some(token), true)] {
            assert_eq!((checked(Auth::Backend, &upgrade), checked(Auth::None, &upgrade)), (Ok(()), Ok(())));
            let refused = checked(Auth::Jwt, &upgrade).err().unwrap_or_default();
            assert_eq!(refused.is_empty(), is_enough, "{refused}");
            assert!(is_enough || refused.contains("give the app \"1\" an [apps.upgrade]"), "{refused}");
        }
    }

    #[test]
    fn a_route_needs_an_app() {
        let route = |app| RouteConfig::new("/chat", app, Backend::Http { url: "http://a.example/".to_owned() });
        let refused = |app| check_app(&route(app), None).expect_err("no app");
        assert_eq!(refused(""), "route /chat: name its app, since there is not exactly one");
        assert_eq!(refused("7"), "route /chat: there is no app \"7\"");
    }

    #[test]
    fn a_backend_is_told_in_its_form_whose_a_token_is() {
        let plain = kept_of(identity("a\r\nb"), Form::Plain).expect("JSON has every text");
        assert_eq!(plain.user, Some(User { id: "a\r\nb".into(), info: Some("{}".into()) }));
        assert!(plain.meta.is_empty());
        let grip = kept_of(identity("zoë"), Form::WebSocketOverHttp).expect("a header's value");
        assert_eq!((grip.meta["User"].as_str(), grip.user.map(|user| user.id)), (Some("zoë"), Some("zoë".into())));
        for user in ["a\r\nMeta-Role: admin", "a\0", " a", "a\t", ""] {
            assert_eq!(kept_of(identity(user), Form::WebSocketOverHttp), None, "{user:?}");
        }
    }

    #[test]
    fn an_answer_to_open_need_not_repeat_what_the_token_says() {
        let user = |id: &str| User { id: id.into(), info: None };
        let offered: [Box<str>; 2] = ["taut.v1".into(), "bearer.x".into()];
        let completed = |mut answer: Answer, auth, offered: &[Box<str>]| {
            complete(&mut answer, auth, Some(&user("ann")), offered);
            (answer.user, answer.acceptance.subprotocol)
        };
        let (ann, ours) = (Some(Some(user("ann"))), Some("taut.v1".into()));
        assert_eq!(completed(Answer::default(), Auth::Jwt, &offered), (ann.clone(), ours.clone()));
        assert_eq!(completed(Answer::default(), Auth::Jwt, &offered[1..]), (ann, None));
        assert_eq!(completed(Answer::default(), Auth::Backend, &offered), (None, None));
        for said in [Some(user("bob")), None] {
            let answer = Answer { user: Some(said.clone()), ..Answer::default() };
            assert_eq!(completed(answer, Auth::Jwt, &offered), (Some(said), ours.clone()), "the backend knows better");
        }
        let chosen = [
            Acceptance { subprotocol: Some("chat".into()), ..Acceptance::default() },
            Acceptance { headers: vec![("sec-websocket-protocol".into(), "chat".into())], ..Acceptance::default() },
        ];
        for acceptance in chosen {
            let before = acceptance.subprotocol.clone();
            let answer = Answer { acceptance, ..Answer::default() };
            assert_eq!(completed(answer, Auth::Jwt, &offered).1, before);
        }
    }
}
