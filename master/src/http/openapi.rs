//! The description of the API, made from the handlers themselves. `openapi.json` beside this
//! crate's manifest is its snapshot: a change of the API shows in review.

use axum::Router;
use axum::http::header;
use axum::routing::get;
use cloudai_api::{BASE, ClusterEvent, ErrorCode, LogItem};
use utoipa::OpenApi;
use utoipa::openapi::{OpenApi as Document, RefOr, Schema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{App, cluster, events, files, jobs, logs, tasks, workers};

/// The frame of the description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "CloudAI",
        version = "1",
        description = "Jobs, tasks and workers of a CloudAI master. Ids are texts as people see \
            them, times are Unix milliseconds, amounts of memory and storage are bytes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(LogItem, ClusterEvent)),
    tags(
        (name = "jobs", description = "What one submit creates: one task, or an array"),
        (name = "tasks", description = "One container run each"),
        (name = "workers", description = "The machines"),
        (name = "cluster", description = "The whole"),
    )
)]
struct Frame;

/// Every path below [`BASE`], with its description.
pub(super) fn routes() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .routes(routes!(cluster::health))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::queue))
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::cancel))
        .routes(routes!(tasks::list))
        .routes(routes!(tasks::show))
        .routes(routes!(tasks::explain))
        .routes(routes!(tasks::cancel))
        .routes(routes!(logs::logs))
        .routes(routes!(files::list))
        .routes(routes!(files::download))
        .routes(routes!(workers::list))
        .routes(routes!(workers::show))
        .routes(routes!(events::events));
    OpenApiRouter::with_openapi(Frame::openapi()).nest(BASE, api)
}

/// The router, and the finished description of what it serves.
pub(super) fn split(described: OpenApiRouter<App>) -> (Router<App>, Document) {
    let (routes, mut description) = described.split_for_parts();
    let schemas = description.components.as_mut().map(|components| &mut components.schemas);
    // The codes' names come from a macro, where the derived schema does not see them.
    if let Some(RefOr::T(Schema::Object(codes))) =
        schemas.and_then(|schemas| schemas.get_mut("ErrorCode"))
    {
        let names = ErrorCode::ALL.iter().map(|code| code.name().into());
        codes.enum_values = Some(names.collect());
    }
    (routes, description)
}

/// `GET /api/v1/openapi.json`.
pub(super) fn document(description: &Document) -> Router<App> {
    let text = render(description);
    let answer = move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text) }
    };
    Router::new().route(&format!("{BASE}/openapi.json"), get(answer))
}

fn render(description: &Document) -> String {
    let mut text = description
        .to_pretty_json()
        .expect("a description of plain strings and numbers is always JSON")
        // In OpenAPI a variable has no star, even when it takes the rest of a path.
        .replace("{*path}", "{path}");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_snapshot_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let now = render(&split(routes()).1);
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == now,
            "master/openapi.json is not what the handlers say: look at what changed for clients, \
             then run `UPDATE_OPENAPI=1 cargo test -p cloudai-master openapi`"
        );
    }
}
