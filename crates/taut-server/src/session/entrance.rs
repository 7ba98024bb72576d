//! Being let in: which app a client is of, and who it is where the app wants to know before its connection is accepted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use taut_proto::Close;
use taut_proto::handshake::{Refusal, Request, Upgrade};
use taut_shard::{Answer, ConnectionId, Connections, HandshakeId, Verdict};

use super::user::SignedIn;
use super::{
    APP_DISABLED, Client, Extras, INVALID_VERSION, LONGEST_ECHO, Member, NO_SUCH_APP, OVER_CAPACITY, OVER_QUOTA,
    PATH_NOT_FOUND, Sessions, UNAUTHORIZED, UNSUPPORTED_VERSION,
};
use crate::guard::{self, Asker, Outcome, Vetting};
use crate::origin;
use crate::pusher::member::Identity;
use crate::pusher::number;
use crate::pusher::socket_id::SocketId;
use crate::tenants::{Tenant, Terms};

impl Sessions {
    pub(super) fn receive<'r>(
        &mut self,
        request: &'r Request<'r>,
        mut upgrade: Upgrade<'r>,
        peer: SocketAddr,
        handshake: HandshakeId,
    ) -> Verdict<'r, Client> {
        let (tenant, terms) = match self.find(request) {
            Ok(found) => found,
            Err(close) => return Verdict::Accept(upgrade, Client::Refused(Box::new(close))),
        };
        let address = self.guard.client(request, peer);
        if terms.app.upgrade.is_some() {
            upgrade = upgrade.select_subprotocol(&[guard::SUBPROTOCOL]);
        }
        let asker = Asker { shard: self.shard, handshake };
        match self.guard.vet(&tenant, &terms, request, address, asker) {
            Vetting::Anybody => Verdict::Accept(upgrade, self.admit(&tenant, &terms, None, address)),
            Vetting::Known(identity) => Verdict::Accept(upgrade, self.admit(&tenant, &terms, Some(identity), address)),
            Vetting::Refused(refusal) => Verdict::Refuse(self.turn_away(&tenant, refusal, Some(address))),
            Vetting::Later => Verdict::Later(upgrade),
        }
    }

    /// It has been decided elsewhere who a client is. It may be gone by now, and then the answer is for nobody.
    pub(super) fn vetted(
        &mut self,
        connections: &mut Connections<Client>,
        handshake: HandshakeId,
        tenant: usize,
        outcome: Outcome,
    ) {
        let tenant = Arc::clone(&self.rooms(tenant).tenant);
        let terms = Arc::clone(&tenant.terms());
        let answer = match outcome {
            Ok(identity) => Answer::Accept(self.admit(&tenant, &terms, Some(identity), None)),
            Err(refusal) => Answer::Refuse(self.turn_away(&tenant, refusal, None)),
        };
        connections.answer(handshake, answer);
    }

    /// Decides which app a client is of, by path, query and origin.
    fn find(&self, request: &Request<'_>) -> Result<(Arc<Tenant>, Arc<Terms>), Close> {
        let Some(key) = request.path().strip_prefix(&self.path).filter(|key| !key.is_empty() && !key.contains('/'))
        else {
            return Err(Close::new(PATH_NOT_FOUND, format!("Path not found: clients connect to {}KEY", self.path)));
        };
        let Some(tenant) = self.apps.by_key_in_path(key) else { return Err(no_such_app(key)) };
        let terms = Arc::clone(&tenant.terms());
        check_standing(&terms)?;
        check_version(request)?;
        if !origin::is_allowed(&terms.app.origins, request.header("origin")) {
            return Err(Close::new(UNAUTHORIZED, "Origin not allowed: the app's configuration lists those that are"));
        }
        Ok((tenant, terms))
    }

    /// Makes a member of a client, if there is room for it.
    fn admit(
        &mut self,
        tenant: &Arc<Tenant>,
        terms: &Terms,
        identity: Option<Identity>,
        address: impl Into<Option<IpAddr>>,
    ) -> Client {
        match self.try_admit(tenant, terms, identity) {
            Ok(member) => {
                let address = address.into().map(tracing::field::display);
                tracing::debug!(app = tenant.id(), socket_id = %member.socket_id, address, "a client is let in");
                Client::Member(member)
            }
            Err(close) => Client::Refused(Box::new(close)),
        }
    }

    fn try_admit(&mut self, tenant: &Arc<Tenant>, terms: &Terms, identity: Option<Identity>) -> Result<Member, Close> {
        // It may have been taken away while it was decided who the client is.
        check_standing(terms)?;
        let admission = tenant.admit().ok_or_else(|| Close::new(OVER_QUOTA, "Application is over connection quota"))?;
        let mut random = [0; 16];
        // The operating system gives random bytes or something is badly wrong with it; a client can try again.
        getrandom::fill(&mut random).map_err(|_| Close::new(OVER_CAPACITY, "Over capacity"))?;
        self.rooms(tenant.index());
        let socket_id = SocketId::from_random(random);
        let authorized = identity.is_some();
        let extras = identity.map(|Identity { user_id, user_info }| {
            let is_shown = terms.app.features.watchlist;
            let user = SignedIn { id: user_id, info: user_info, is_shown, has_watchlist: false, is_pending: false };
            Box::new(Extras { user: Some(user), ..Extras::default() })
        });
        Ok(Member { admission, socket_id, extras, malformed: 0, authorized })
    }

    fn turn_away(&mut self, tenant: &Tenant, refusal: Refusal, address: Option<IpAddr>) -> Refusal {
        self.rooms(tenant.index()).count(|traffic| traffic.refused += 1);
        let address = address.map(tracing::field::display);
        // Its words may be the application's, which are for the client alone.
        tracing::debug!(app = tenant.id(), status = refusal.status(), address, "a client is turned away");
        refusal
    }

    /// A connection is open whose user was known before.
    pub(super) fn come_as_user(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        let Some(member) = super::member(connections, id) else { return };
        let tenant = member.admission.index();
        if let Some((user_id, is_shown)) = member.user().map(|user| (Arc::clone(&user.id), user.is_shown)) {
            self.act_as(connections, id, tenant, &user_id, is_shown);
            self.enter_user_channel(connections, id, tenant, &user_id, None);
        }
    }
}

/// How a client is closed whose key nobody has.
pub(crate) fn no_such_app(key: &str) -> Close {
    let key: String = key.chars().take(LONGEST_ECHO).collect();
    Close::new(NO_SUCH_APP, format!("Application does not exist: there is no app with the key {key}"))
}

fn check_standing(terms: &Terms) -> Result<(), Close> {
    if !terms.known {
        return Err(Close::new(NO_SUCH_APP, "Application does not exist: it was removed"));
    }
    if !terms.app.enabled {
        return Err(Close::new(APP_DISABLED, "Application disabled"));
    }
    Ok(())
}

fn check_version(request: &Request<'_>) -> Result<(), Close> {
    let Some(version) = request.query_value("protocol") else { return Ok(()) };
    match number::digits::<u32>(&version) {
        Some(5..=7) => Ok(()),
        Some(_) => Err(Close::new(UNSUPPORTED_VERSION, "Unsupported protocol version: this server speaks 5 to 7")),
        None => Err(Close::new(INVALID_VERSION, "Invalid version string format: the protocol is a number")),
    }
}
