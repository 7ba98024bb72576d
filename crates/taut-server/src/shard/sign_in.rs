//! Users: signing in, watching each other, and being sent away.

use std::sync::Arc;
use std::time::Duration;

use taut_shard::{ConnectionId, Connections};

use super::{Client, PusherHandler, Subscriber, seconds, subscriber};
use crate::apps::AppSnapshot;
use crate::close::{Reason, WATCHLIST_EXCEEDED};
use crate::cluster::Done;
use crate::events::Event;
use crate::hub::receipt::Token;
use crate::place::AppIndex;
use crate::pusher::event::ServerEvent;
use crate::pusher::member::User;
use crate::pusher::socket_id::SocketId;
use crate::refusals::RefusalReason;

/// Whom a connection acts as.
#[derive(Debug)]
pub(super) struct SignedIn {
    pub(super) id: Arc<str>,
    /// JSON text of what the user says of itself.
    pub(super) info: Option<Box<str>>,
    /// Whether those who watch the user are told.
    pub(super) is_shown: bool,
    /// Whether the users on its watchlist are watched already, if it has any.
    pub(super) has_watchlist: bool,
    /// It has not been told yet that it has signed in.
    pub(super) is_pending: bool,
}

impl PusherHandler {
    pub(super) fn sign_in(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        auth: &str,
        user_data: &str,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
        let snapshot = Arc::clone(&subscriber.admission.snapshot());
        let current = subscriber.user().map(|user| Arc::clone(&user.id));
        let user = match check(&snapshot, socket_id, auth, user_data, current.as_deref()) {
            Ok(user) => user,
            Err((reason, message)) => {
                self.send_event(connections, id, &ServerEvent::Error { code: None, message: &message, channel: None });
                return self.refused(app, socket_id, reason, &message);
            }
        };
        if super::subscriber(connections, id)
            .and_then(|subscriber| subscriber.user())
            .is_some_and(|user| user.is_pending)
        {
            return; // it will be told once
        }
        if current.is_none() {
            let user_id: Arc<str> = user.id.as_ref().into();
            let is_shown = snapshot.config.features.watchlist;
            if let Some(subscriber) = super::subscriber(connections, id) {
                subscriber.authorized = true;
                let (id, info) = (Arc::clone(&user_id), user.user_info.as_deref().map(Box::from));
                subscriber.extras().user =
                    Some(SignedIn { id, info, is_shown, has_watchlist: false, is_pending: false });
            }
            self.act_as(connections, id, app, &user_id, is_shown);
        }
        if let Some(user) = super::subscriber(connections, id).and_then(|subscriber| subscriber.extras().user.as_mut())
        {
            user.is_pending = true;
        }
        self.enter_user_channel(connections, id, app, &user.id, Some(user_data));
    }

    /// From here on a connection is its user's, which is set already.
    pub(super) fn act_as(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: AppIndex,
        user_id: &Arc<str>,
        is_shown: bool,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let socket_id = subscriber.socket_id;
        if let Some(local_app) = self.local_app(app) {
            self.note(&local_app.app, || Event::SignedIn { socket_id, user_id: Arc::clone(user_id) });
        }
        self.call(connections, app, |hub, effects| hub.members.sign_in(id, user_id, is_shown, effects));
    }

    /// A connection has signed in with this, and watches the users on its watchlist.
    pub(super) fn watch(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: AppIndex,
        user_data: &str,
    ) {
        let (Ok(User { watchlist, .. }), Some(local_app)) = (User::parse(user_data), self.local_app(app)) else {
            return;
        };
        if watchlist.is_empty() {
            return;
        }
        let most = local_app.app.snapshot().limits.watchlist;
        if watchlist.len() > most {
            let message = format!("Watchlist limit exceeded: only the first {most} users are watched");
            let event = ServerEvent::Error { code: Some(WATCHLIST_EXCEEDED), message: &message, channel: None };
            self.send_event(connections, id, &event);
        }
        let user_ids = watchlist.into_iter().take(most).map(Arc::from);
        self.call(connections, app, |hub, effects| hub.members.watch(id, user_ids, effects));
    }

    /// Every connection here that acts as this user is closed. `done` is dropped as soon as they have left all their channels.
    pub(super) fn terminate(
        &mut self,
        connections: &mut Connections<Client>,
        app: AppIndex,
        user_id: &str,
        age: Duration,
        done: &Done,
    ) {
        let now = seconds(connections.now());
        let Some(members) = self.members(app) else { return };
        let mut ids: Vec<ConnectionId> = members.signed_in(user_id).collect();
        if !age.is_zero() {
            // Whole seconds are known: one that may be old enough goes.
            let oldest = |subscriber: &Subscriber| Duration::from_secs((now - subscriber.opened + 1).into());
            let is_of_age = |subscriber: &mut Subscriber| oldest(subscriber) > age;
            ids.retain(|id| subscriber(connections, *id).is_some_and(is_of_age));
        }
        let token: Token = Arc::new(done.clone());
        for id in ids {
            let waiting =
                subscriber(connections, id).map_or_else(Vec::new, |subscriber| subscriber.extras().waiting.clone());
            self.dismiss_with_error(
                connections,
                id,
                Reason::UNAUTHORIZED.because("the user's connections were terminated"),
            );
            self.call(connections, app, |hub, _| {
                for channel in &waiting {
                    hub.members.report_left(channel, id, &token);
                }
            });
        }
    }
}

/// Whether a connection may act as the user whom `user_data` describes.
fn check<'a>(
    snapshot: &AppSnapshot,
    socket_id: SocketId,
    auth: &str,
    user_data: &'a str,
    current: Option<&str>,
) -> Result<User<'a>, (RefusalReason, String)> {
    let signed = auth.split_once(':').and_then(|(key, signature)| Some((snapshot.signing_key(key)?, signature)));
    let Some((signing_key, signature)) = signed else {
        let message = "Sign-in refused: auth must be KEY:SIGNATURE with a key of this app.".to_owned();
        return Err((RefusalReason::SignInSignature, message));
    };
    let socket_id = socket_id.to_string();
    if !signing_key.sign_user(&socket_id, user_data).matches(signature) {
        let message = format!(
            "Sign-in refused: Invalid signature: Expected HMAC SHA256 hex digest of {socket_id}::user::USER_DATA, but got another one."
        );
        return Err((RefusalReason::SignInSignature, message));
    }
    let invalid = |why: String| (RefusalReason::UserData, format!("Sign-in refused: {why}"));
    let user = User::parse(user_data).map_err(|error| invalid(error.to_string()))?;
    if user.id.chars().count() > snapshot.limits.user_id {
        return Err(invalid(format!("the id is too long, at most {} characters.", snapshot.limits.user_id)));
    }
    if user.user_info.as_ref().is_some_and(|info| info.len() > snapshot.limits.presence_member) {
        let most = snapshot.limits.presence_member;
        return Err(invalid(format!("the user_info is too large, at most {most} bytes.")));
    }
    match current {
        Some(current) if *current != *user.id => {
            let message = "Sign-in refused: the connection is already signed in as another user.".to_owned();
            Err((RefusalReason::OtherUser, message))
        }
        _ => Ok(user),
    }
}
