//! What stands before the calls: who calls is known, and there is memory for the request, before it is read.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body_util::{BodyStream, StreamBody};
use posthorn_api::error::exhausted;
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Status};
use tower::Service;

use super::{RETRY_AFTER, Submission};
use crate::budget::Share;

/// The service with its doorman. A stranger's request is refused by its headers: none of its body is taken in.
#[derive(Debug, Clone)]
pub(crate) struct Doorman<S> {
    service: S,
    submission: Arc<Submission>,
}

/// What a request has taken of the budget while its call goes on.
#[derive(Debug, Clone)]
pub(super) struct Taken(Arc<Mutex<Share>>);

impl Taken {
    fn grow(&self, by: usize) -> Result<(), Status> {
        let spent = |_| exhausted("MEMORY_SPENT", "too many messages are coming in at once", RETRY_AFTER);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).grow(by).map_err(spent)
    }

    /// What has come so far has gone on its way.
    pub(super) fn give_back(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).give_back();
    }
}

impl<S> Doorman<S> {
    pub(crate) fn before(service: S, submission: Arc<Submission>) -> Self {
        Self { service, submission }
    }
}

impl<S: NamedService> NamedService for Doorman<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Doorman<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        // The one that was ready is used; its clone may not be.
        let next = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, next);
        let submission = Arc::clone(&self.submission);
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            let metadata = MetadataMap::from_headers(head.headers.clone());
            let seen = Request::from_parts(metadata, std::mem::take(&mut head.extensions), ());
            let caller = match submission.caller(&seen).await {
                Ok(caller) => caller,
                Err(refusal) => return Ok(refusal.into_http()),
            };
            head.extensions = seen.into_parts().1;
            let taken = Taken(Arc::new(Mutex::new(submission.budget.share())));
            head.extensions.insert(caller);
            head.extensions.insert(taken.clone());
            let answer = service.call(http::Request::from_parts(head, counted(body, taken.clone()))).await;
            // Until here the request, or what was made of it, is in memory.
            drop(taken);
            answer
        })
    }
}

/// A body each piece of which is taken from the budget.
fn counted(body: Body, taken: Taken) -> Body {
    let frames = BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        taken.grow(frame.data_ref().map_or(0, bytes::Bytes::len))?;
        Ok::<_, Status>(frame)
    });
    Body::new(StreamBody::new(frames))
}
