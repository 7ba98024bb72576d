//! `/console/openapi.json`: the HTTP API in `OpenAPI` 3.1, made from the table of routes.

mod operations;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::{Context, all};
pub(super) use operations::*;

/// What one method of a path does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// As `OpenAPI` has it: `get`.
    pub(super) method: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    /// Of the components: parameters of the query.
    pub(super) query: &'static [&'static str],
    /// Of the components: the body of the request.
    pub(super) body: Option<&'static str>,
    /// Of the components: a response for each status of success.
    pub(super) answers: &'static [(u16, &'static str)],
    /// Statuses of errors, beside those of the access.
    pub(super) errors: &'static [u16],
    pub(super) access: Access,
}

/// Who may do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The backend of an app, which signs each request.
    Signed,
    /// Signed, or with a key in `Authorization`.
    SignedOrKeyed,
    /// Who operates the server.
    Operator,
    /// Everybody.
    Everybody,
}

impl Access {
    fn security(self) -> Value {
        let signed = json!({ "key": [], "timestamp": [], "version": [], "digest": [], "signature": [] });
        match self {
            Self::Signed => json!([signed]),
            Self::SignedOrKeyed => json!([signed, { "bearer": [] }]),
            Self::Operator => json!([{ "metricsToken": [] }, {}]),
            Self::Everybody => json!([]),
        }
    }

    fn errors(self) -> &'static [u16] {
        match self {
            Self::Signed | Self::SignedOrKeyed => &[400, 401, 403, 404, 408, 413, 415, 429, 503],
            Self::Operator => &[401, 403, 415],
            Self::Everybody => &[415],
        }
    }
}

/// `GET /console/openapi.json`: the description of the HTTP API.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn show(State(context): State<Arc<Context>>) -> Response {
    specification(&document(context.path_prefix()))
}

/// Generators and viewers on other sites may read it: it says nothing about this server but its version and its prefix.
pub(super) fn specification(document: &Value) -> Response {
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (headers, format!("{document:#}\n")).into_response()
}

/// All that is described, with the prefix before the paths.
fn document(prefix: &str) -> Value {
    let server = if prefix.is_empty() { "/" } else { prefix };
    let mut paths = Map::new();
    for route in all().filter(|route| !route.operations.is_empty()) {
        let operations: Map<_, _> = route
            .operations
            .iter()
            .map(|operation| (operation.method.to_owned(), described(operation, route.path)))
            .collect();
        paths.insert(route.path.to_owned(), Value::Object(operations));
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Taut's HTTP API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Publish events, ask about channels, users and connections.",
            "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": server, "description": "The server that this document comes from, with its path prefix." }],
        "paths": paths,
        "components": components(),
    })
}

fn described(operation: &Operation, path: &str) -> Value {
    let in_path = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> =
        in_path.chain(operation.query.iter().copied()).map(|name| reference("parameters", name)).collect();
    let answers = operation.answers.iter().map(|(status, name)| (status.to_string(), reference("responses", name)));
    let errors = operation.access.errors().iter().chain(operation.errors);
    let errors = errors.map(|status| (status.to_string(), reference("responses", "Error")));
    let is_short = operation.access == Access::SignedOrKeyed && !path.starts_with("/apps/");
    let (id, summary) = if is_short {
        (format!("{}InOnlyApp", operation.id), format!("{}, if there is only one app", operation.summary))
    } else {
        (operation.id.to_owned(), operation.summary.to_owned())
    };
    let mut object = json!({
        "operationId": id,
        "summary": summary,
        "responses": errors.chain(answers).collect::<Map<_, _>>(),
        "security": operation.access.security(),
    });
    if !operation.description.is_empty() {
        object["description"] = operation.description.into();
    }
    if !parameters.is_empty() {
        object["parameters"] = parameters.into();
    }
    if let Some(body) = operation.body {
        object["requestBody"] = reference("requestBodies", body);
    }
    object
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn components() -> Value {
    serde_json::from_str(include_str!("openapi/components.json")).unwrap_or_default()
}

const DESCRIPTION: &str = "\
Backends sign each request with the secret of their app; every server library of Pusher does it for you. Sign the lines \
    `METHOD`, `PATH` and the sorted `QUERY` (without `auth_signature`), with a line feed between them, with HMAC-SHA256, \
    and send the lower-case hexadecimal digits as `auth_signature`. `auth_timestamp` is in seconds and may be 600 seconds \
    off. `body_md5` is the MD5 digest of the body, and needed if there is one.

What WebSocket clients and the server say to each other is in `asyncapi.json`.";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::super::route::Area;
    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field.as_str().filter(|_| name == "$ref") {
                        Some(target) => drop(found.insert(target.to_owned())),
                        None => references(field, found),
                    }
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_of_the_api_is_described() {
        for route in all().filter(|route| matches!(route.area, Area::Api | Area::Health | Area::Metrics)) {
            let is_alias = route.label != route.path;
            assert!(is_alias || !route.operations.is_empty(), "{} has no operation", route.path);
        }
    }

    #[test]
    fn each_operation_has_a_name_of_its_own() {
        let document = document("");
        let paths = document["paths"].as_object().expect("paths");
        let ids: Vec<&Value> = paths
            .values()
            .flat_map(|path| path.as_object().expect("operations").values())
            .map(|operation| &operation["operationId"])
            .collect();
        let different: BTreeSet<_> = ids.iter().map(|id| id.as_str().expect("an id")).collect();
        assert_eq!(ids.len(), different.len(), "{ids:?}");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = document("/realtime");
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for target in &used {
            let pointer = target.strip_prefix('#').expect("a reference within the document");
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        for (kind, components) in document["components"].as_object().expect("components") {
            let names = components.as_object().expect("components").keys();
            for name in names.filter(|_| kind != "securitySchemes") {
                assert!(used.contains(&format!("#/components/{kind}/{name}")), "{kind} {name} is not used");
            }
        }
        assert_eq!(document["servers"][0]["url"], "/realtime");
    }

    #[test]
    fn the_file_in_docs_is_what_the_server_serves() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        super::super::testing::is_in_docs(&path, &document(""));
    }
}
