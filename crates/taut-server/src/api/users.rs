//! What backends ask about connections and users.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::{Context, SOON, signed};
use crate::http::answer::{self, ApiError};
use crate::node::Away;

/// `POST /apps/ID/users/USER/terminate_connections`: closes every connection that is signed in as this user.
///
/// Success means that it is done: nothing that these connections have sent is delivered any more, and they are in no channel. A user without
/// connections is a success too. In a cluster, every node has done it.
///
/// # Cancel safety
/// Either it has begun, and is done all the same, or it has not.
pub(crate) async fn terminate(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    let user_id = signed.path("user");
    let most = signed.snapshot.limits.user_id;
    if user_id.is_empty() || user_id.chars().count() > most {
        return Err(ApiError::bad_request(format!("Invalid user id: it has between 1 and {most} characters.")));
    }
    context.node().terminate(&signed.app, user_id).await.map_err(|Away| {
        let error = "The user's connections on this node are closed, but the engine of the cluster cannot be reached: those on other nodes are not. Please try again.";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error).retry_after(SOON)
    })?;
    Ok(answer::json("{}"))
}

/// `GET /apps/ID/connections`: how many clients the app has.
///
/// # Cancel safety
/// Nothing is lost: it only asks.
pub(crate) async fn connections(State(context): State<Arc<Context>>, request: Request) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Connections {
        connections: usize,
    }
    let signed = signed::authenticated(&context, request, signed::no_body).await?;
    answer::serialized(&Connections { connections: signed.app.connections() })
}
