//! The calls that are under way, so that a service that is to stop waits for them, and for nothing else.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http_body_util::BodyExt as _;
use tokio_util::task::TaskTracker;

/// Counts the calls of these routes: from the request's head to the end of the response's body.
pub(crate) fn count(routes: axum::Router, calls: &TaskTracker) -> axum::Router {
    routes.layer(from_fn_with_state(calls.clone(), counted))
}

async fn counted(State(calls): State<TaskTracker>, request: Request, next: Next) -> Response {
    let call = calls.token();
    next.run(request).await.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_body_is_gone = &call;
            frame
        }))
    })
}
