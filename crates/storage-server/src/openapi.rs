//! The description of all routes in OpenAPI 3.1, generated from the code.

use axum::{Json, extract::State};
use std::sync::Arc;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use crate::{app::App, batch, files, resumable, sessions, v1};

/// All routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "storage-server", description = "Values under keys: six plain routes, and the whole contract below `/v1`."),
    paths(
        files::get, files::head, files::put, files::delete, files::list, files::clear,
        v1::about, v1::get, v1::head, v1::put, v1::delete, v1::stat, v1::versions, v1::list, v1::query, v1::clear,
        v1::copy, v1::rename, v1::presign, v1::health,
        batch::get, batch::put, batch::delete,
        sessions::begin, sessions::commit, sessions::rollback, sessions::settle,
        resumable::offset, resumable::append, resumable::cancel,
    ),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The description of all routes in OpenAPI 3.1.
#[must_use]
pub fn openapi() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default()
}

pub(crate) async fn document(State(_): State<Arc<App>>) -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
