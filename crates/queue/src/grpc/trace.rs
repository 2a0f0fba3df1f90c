//! `TraceService`: what happened to messages.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use posthorn_api::error::{self, invalid};
use posthorn_api::key::Scope;
use posthorn_api::trace::v1::trace_service_server::TraceService;
use posthorn_api::trace::v1::{
    Event, EventKind, TraceMessageRequest, TraceMessageResponse, WatchEventsRequest, WatchEventsResponse,
};
use posthorn_api::{known, parse_field};
use posthorn_mail::MessageId;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::callers::Callers;
use crate::error::failed;
use crate::hub::Hub;
use crate::spool;

/// Serves those who follow messages.
pub(crate) struct Trace {
    pub(crate) hub: Arc<Hub>,
    pub(crate) callers: Callers,
}

#[tonic::async_trait]
impl TraceService for Trace {
    type WatchEventsStream = BoxStream<'static, Result<WatchEventsResponse, Status>>;

    async fn trace_message(
        &self,
        request: Request<TraceMessageRequest>,
    ) -> Result<Response<TraceMessageResponse>, Status> {
        let request = self.callers.admitted(request, Scope::Trace).await?;
        let id: MessageId = parse_field("message_id", &request.message_id)?;
        let mut connection = self.hub.pool.acquire().await.map_err(failed)?;
        let trace = spool::trace::of_message(&mut connection, id).await.map_err(failed)?;
        trace.map(Response::new).ok_or_else(|| Status::not_found("the message is unknown, or ended long ago"))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = self.callers.of(&request, Scope::Trace).await?;
        let wanted = request.into_inner();
        if !wanted.message_id.is_empty() {
            parse_field::<MessageId>("message_id", &wanted.message_id)?;
        }
        for kind in &wanted.kinds {
            if known::<EventKind>("kinds", *kind)? == EventKind::Unspecified {
                return Err(invalid("kinds", "an unspecified kind"));
            }
        }
        let wants = move |event: &Event| {
            (wanted.message_id.is_empty() || wanted.message_id.eq_ignore_ascii_case(&event.message_id))
                && (wanted.kinds.is_empty() || wanted.kinds.contains(&event.kind))
        };
        let events = self.hub.watchers.watch();
        self.hub.wake.watching();
        let shutdown = self.hub.shutdown.clone();
        let every = self.hub.config.trace.recheck_watchers_every;
        let recheck = tokio::time::interval_at(Instant::now() + every, every);
        let callers = self.callers.clone();
        let stream = futures::stream::try_unfold((events, recheck), move |(mut events, mut recheck)| {
            let (wants, shutdown) = (wants.clone(), shutdown.clone());
            let (callers, caller) = (callers.clone(), caller.clone());
            async move {
                loop {
                    let event = tokio::select! {
                        event = events.recv() => event,
                        _ = recheck.tick() => {
                            callers.recheck(&caller).await?;
                            continue;
                        }
                        () = shutdown.cancelled() => return Ok(None),
                    };
                    match event {
                        Ok(event) if wants(&event) => {
                            let response = WatchEventsResponse { event: Some(event) };
                            return Ok(Some((response, (events, recheck))));
                        }
                        Ok(_) => {}
                        Err(RecvError::Closed) => return Ok(None),
                        Err(RecvError::Lagged(_)) => return Err(too_slow()),
                    }
                }
            }
        });
        Ok(Response::new(stream.boxed()))
    }
}

fn too_slow() -> Status {
    error::status(Code::ResourceExhausted, "WATCHER_TOO_SLOW", "events came faster than they were read")
}
