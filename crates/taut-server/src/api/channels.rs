//! What backends ask about channels.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;

use super::info::{Attributes, Info, by_channel};
use super::signed::{self, SignedRequest};
use super::{Context, asked, echo};
use crate::http::answer::{self, ApiError};
use crate::pusher::channel::{Channel, Kind};
use crate::query::Occupancy;

/// `GET /apps/ID/channels?filter_by_prefix=…&info=…`: the channels that have subscribers.
///
/// # Cancel safety
/// Nothing is lost: it only asks. So with all that follow.
pub(crate) async fn list(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    let query = signed.query();
    let prefix = query.parameter("filter_by_prefix").unwrap_or_default();
    let features = &signed.snapshot.config.features;
    let info = Info::parse(query.list("info"))?.check_list(prefix, features)?;
    let channels = asked(context.node().channels(&signed.app, prefix)).await?;
    let attributes = |(name, occupancy): (&Arc<str>, &Occupancy)| {
        Attributes::of(info.applicable(Kind::of(name), features), *occupancy)
    };
    answer::serialized(&by_channel(channels.iter().map(|channel| (&**channel.0, attributes(channel)))))
}

/// `GET /apps/ID/channels/NAME?info=…`: whether it has subscribers, and more if asked.
pub(crate) async fn one(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    let channel = channel(&signed)?;
    let info = Info::parse(signed.query().list("info"))?.check(channel.kind(), &signed.snapshot.config.features)?;
    let state = asked(context.node().channel(&signed.app, channel.name())).await?;
    answer::serialized(&Attributes::of_one(info, &state))
}

/// `GET /apps/ID/channels/NAME/users`: who is in a presence channel.
pub(crate) async fn users(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Users<'a> {
        users: Vec<User<'a>>,
    }
    #[derive(Serialize)]
    struct User<'a> {
        id: &'a str,
    }
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    let channel = channel(&signed)?;
    if !channel.kind().is_presence() {
        return Err(ApiError::bad_request("The channel must be a presence channel."));
    }
    let users = asked(context.node().users(&signed.app, channel.name())).await?;
    answer::serialized(&Users { users: users.iter().map(|id| User { id }).collect() })
}

fn channel(signed: &SignedRequest) -> Result<Channel<'_>, ApiError> {
    let name = signed.path("channel");
    Channel::parse(name, signed.snapshot.limits.channel_name)
        .map_err(|invalid| ApiError::bad_request(format!("{invalid} (channel {:?})", echo(name))))
}
