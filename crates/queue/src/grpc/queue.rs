//! `QueueService`: what waits, and what an operator does about it.

use std::sync::Arc;
use std::time::Duration;

use posthorn_api::error::{invalid, unavailable};
use posthorn_api::key::Scope;
use posthorn_api::queue::v1::queue_service_server::QueueService;
use posthorn_api::queue::v1::{
    AgeCount, BounceRequest, BounceResponse, DestinationStats, Filter, HoldRequest, HoldResponse,
    ListMessagesRequest, ListMessagesResponse, QueuedMessage, QueuedRecipient, RecipientState,
    ReleaseRequest, ReleaseResponse, ResumeRequest, ResumeResponse, RetryRequest, RetryResponse,
    ShowMessageRequest, ShowMessageResponse, StageStats, StatsRequest, StatsResponse, SuspendRequest,
    SuspendResponse, Target, target,
};
use posthorn_api::{duration, known, one_line, optional_text, parse_field, timestamp};
use posthorn_mail::MessageId;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::callers::Callers;
use crate::error::failed;
use crate::fill;
use crate::hub::Hub;
use crate::message::{Place, Recipient, State};
use crate::operate::{Operation, operate};
use crate::schedule::{Kind, Lane, Learn};
use crate::spool::admin::Condition;
use crate::spool::{self, Message};

/// Recipients of each message in a list.
const RECIPIENTS_LISTED: i64 = 10;

/// Serves operators.
pub(crate) struct Queue {
    pub(crate) hub: Arc<Hub>,
    pub(crate) callers: Callers,
}

#[tonic::async_trait]
impl QueueService for Queue {
    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let request = self.admitted(request).await?;
        let condition = request.filter.map_or_else(|| Ok(Condition::default()), condition)?;
        let size = if request.page_size == 0 { 100 } else { request.page_size.min(1000) };
        let after = match request.page_token.as_str() {
            "" => MessageId::from(Uuid::nil()),
            token => parse_field("page_token", token)?,
        };
        let pool = &self.hub.pool;
        let messages = spool::admin::list(pool, &condition, after, size).await.map_err(failed)?;
        let ids: Vec<MessageId> = messages.iter().map(|m| m.id).collect();
        let mut some = spool::admin::some_recipients(pool, &ids, RECIPIENTS_LISTED).await.map_err(failed)?;
        let next = messages.last().filter(|_| messages.len() == size as usize).map(|m| m.id.to_string());
        let queued = |m: Message| {
            let recipients = some.remove(&m.id).unwrap_or_default();
            queued_message(m, recipients)
        };
        Ok(Response::new(ListMessagesResponse {
            messages: messages.into_iter().map(queued).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn show_message(
        &self,
        request: Request<ShowMessageRequest>,
    ) -> Result<Response<ShowMessageResponse>, Status> {
        let id: MessageId = parse_field("message_id", &self.admitted(request).await?.message_id)?;
        let mut connection = self.hub.pool.acquire().await.map_err(failed)?;
        let message = spool::load::messages(&mut connection, &[id]).await.map_err(failed)?.remove(&id);
        let Some(message) = message else {
            return Err(Status::not_found("no such message waits; its trace may tell what became of it"));
        };
        let recipients = spool::load::recipients(&mut connection, &[id]).await.map_err(failed)?.remove(&id);
        let message = queued_message(message, recipients.unwrap_or_default());
        Ok(Response::new(ShowMessageResponse { message: Some(message) }))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldResponse>, Status> {
        let messages = self.operate(self.admitted(request).await?.target, &Operation::Hold).await?;
        Ok(Response::new(HoldResponse { messages }))
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        let messages = self.operate(self.admitted(request).await?.target, &Operation::Release).await?;
        Ok(Response::new(ReleaseResponse { messages }))
    }

    async fn retry(&self, request: Request<RetryRequest>) -> Result<Response<RetryResponse>, Status> {
        let messages = self.operate(self.admitted(request).await?.target, &Operation::Retry).await?;
        Ok(Response::new(RetryResponse { messages }))
    }

    async fn bounce(&self, request: Request<BounceRequest>) -> Result<Response<BounceResponse>, Status> {
        let request = self.admitted(request).await?;
        one_line("reason", &request.reason)?;
        let reason = optional_text(request.reason).unwrap_or_else(|| "given up by the operator".into());
        let operation = Operation::Bounce { silent: request.silent, reason };
        let messages = self.operate(request.target, &operation).await?;
        Ok(Response::new(BounceResponse { messages }))
    }

    async fn suspend(&self, request: Request<SuspendRequest>) -> Result<Response<SuspendResponse>, Status> {
        let request = self.admitted(request).await?;
        one_line("reason", &request.reason)?;
        let destinations = self.destinations(&request.destination).await?;
        let (pool, name) = (&self.hub.pool, request.destination.as_str());
        spool::admin::suspend(pool, name, &destinations, &request.reason).await.map_err(failed)?;
        fill::suspend(&self.hub, &destinations).await.map_err(|error| {
            self.hub.schedule_failed(&error);
            schedule_away()
        })?;
        tracing::info!(destination = request.destination, reason = request.reason, "suspended");
        Ok(Response::new(SuspendResponse { destinations }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<ResumeResponse>, Status> {
        let request = self.admitted(request).await?;
        let destinations = self.destinations(&request.destination).await?;
        // The schedule first: should it be away, the suspension is not forgotten half. And once more, for who has read
        // the ledger before and told the schedule since.
        self.resume_in_schedule(&destinations).await?;
        let destinations = spool::admin::resume(&self.hub.pool, &destinations).await.map_err(failed)?;
        self.resume_in_schedule(&destinations).await?;
        self.hub.wake.wake(Kind::Remote);
        tracing::info!(destination = request.destination, "resumed");
        Ok(Response::new(ResumeResponse { destinations }))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let now = self.hub.now();
        let limit = match self.admitted(request).await?.destinations {
            0 => 20,
            limit => limit.min(10_000),
        };
        let pool = &self.hub.pool;
        let counted = spool::admin::stages(pool, now).await.map_err(failed)?;
        let mut stages = Vec::new();
        for kind in Kind::ALL {
            let stage = counted.iter().find(|stage| stage.state == kind.state() as i16);
            stages.push(StageStats {
                stage: kind.name().into(),
                waiting: stage.map_or(0, |stage| stage.waiting as u64),
                // Unknown while Redis is away.
                leased: self.hub.schedule.leased(kind).await.unwrap_or_default(),
                deferred: stage.map_or(0, |stage| stage.deferred as u64),
                oldest: stage.map(|stage| age(now, stage.oldest)),
                ages: ages(stage),
            });
        }
        let destinations = spool::admin::destinations(pool, limit.into()).await.map_err(failed)?;
        let destinations = destinations.into_iter().map(|d| DestinationStats {
            destination: d.destination,
            waiting: d.waiting,
            oldest: d.oldest.map(|at| age(now, at)),
            suspended: d.suspended,
            last_status: d.last.and_then(|event| event.status),
        });
        let (messages, _) = spool::admin::size(pool).await.map_err(failed)?;
        let (held, poison) = spool::admin::marked(pool).await.map_err(failed)?;
        Ok(Response::new(StatsResponse {
            stages,
            destinations: destinations.collect(),
            messages,
            held,
            poison,
        }))
    }
}

impl Queue {
    async fn admitted<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.callers.admitted(request, Scope::Queue).await
    }

    async fn operate(&self, target: Option<Target>, operation: &Operation) -> Result<u64, Status> {
        let condition = match target.and_then(|target| target.target) {
            None => return Err(invalid("target", "is missing")),
            Some(target::Target::MessageId(id)) => {
                Condition { message: Some(parse_field("target.message_id", &id)?), ..Default::default() }
            }
            Some(target::Target::Filter(filter)) if filter == Filter::default() => {
                return Err(invalid("target.filter", "needs a condition"));
            }
            Some(target::Target::Filter(filter)) => condition(filter)?,
        };
        operate(&self.hub, &condition, operation).await.map_err(failed)
    }

    /// A domain stands for the destinations that its waiting mail is for, or was when it was suspended, and for those
    /// that its mail comes to later; any other name for itself.
    async fn destinations(&self, name: &str) -> Result<Vec<String>, Status> {
        if name.is_empty() || name.len() > 255 {
            return Err(invalid("destination", "is empty, or no name of a destination"));
        }
        one_line("destination", name)?;
        let mut names = spool::admin::destinations_of(&self.hub.pool, name).await.map_err(failed)?;
        names.extend(spool::admin::suspended_for(&self.hub.pool, name).await.map_err(failed)?);
        names.push(name.to_owned());
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn resume_in_schedule(&self, destinations: &[String]) -> Result<(), Status> {
        for destination in destinations {
            let resumed = self.hub.schedule.learn(Lane::remote(destination), Learn::Resume, self.hub.now());
            resumed.await.map_err(|error| {
                self.hub.redis_failed(&error);
                schedule_away()
            })?;
        }
        Ok(())
    }
}

fn schedule_away() -> Status {
    unavailable("SCHEDULE_AWAY", "the schedule is away", Duration::from_secs(5))
}

fn condition(filter: Filter) -> Result<Condition, Status> {
    let text = |field, text: String| one_line(field, &text).map(|text| optional_text(text.to_owned()));
    let state = match known("filter.state", filter.state)? {
        RecipientState::Unspecified => None,
        RecipientState::Fresh => Some(State::Fresh),
        RecipientState::Local => Some(State::Local),
        RecipientState::Remote => Some(State::Remote),
        RecipientState::Delivered => Some(State::Delivered),
        RecipientState::Failed => Some(State::Failed),
        RecipientState::Expanded => Some(State::Expanded),
    };
    let before = filter.before.map(|at| {
        posthorn_api::time_of(at).ok_or_else(|| invalid("filter.before", "is out of the calendar's range"))
    });
    Ok(Condition {
        message: None,
        sender: text("filter.sender", filter.sender)?,
        recipient: text("filter.recipient", filter.recipient)?,
        domain: text("filter.domain", filter.domain)?,
        destination: text("filter.destination", filter.destination)?,
        state,
        received_before: before.transpose()?,
        held: filter.held,
        poison: filter.poison,
    })
}

fn queued_message(message: Message, recipients: Vec<Recipient>) -> QueuedMessage {
    QueuedMessage {
        message_id: message.id.to_string(),
        sender: message.sender,
        size: message.size,
        received_at: Some(timestamp(message.received_at)),
        expires_at: Some(timestamp(message.expires_at)),
        held: message.held,
        poison: message.poison,
        recipients: recipients.into_iter().map(queued_recipient).collect(),
        recipients_total: message.pending,
        origin: Some(message.origin),
    }
}

fn queued_recipient(recipient: Recipient) -> QueuedRecipient {
    let state = match recipient.state {
        State::Fresh => RecipientState::Fresh,
        State::Local => RecipientState::Local,
        State::Remote => RecipientState::Remote,
        State::Delivered => RecipientState::Delivered,
        State::Failed => RecipientState::Failed,
        State::Expanded => RecipientState::Expanded,
    };
    let (last_status, last_server) = match recipient.last {
        None => (None, None),
        Some(last) => (Some(last.status.into()), last.server.map(Into::into)),
    };
    let original = recipient.parent.and(recipient.original);
    QueuedRecipient {
        recipient_no: recipient.no,
        address: recipient.address,
        state: state.into(),
        attempts: recipient.attempts,
        next_attempt_at: recipient.next_attempt_at.map(timestamp),
        last_status,
        last_server,
        destination: match recipient.place {
            Place::Remote(target) => target.destination,
            _ => String::new(),
        },
        original_recipient: original
            .map(|text| text.strip_prefix("rfc822;").map(str::to_owned).unwrap_or(text))
            .unwrap_or_default(),
    }
}

/// How many wait, by age; the last is without a limit.
fn ages(stage: Option<&spool::admin::Stage>) -> Vec<AgeCount> {
    let limits = spool::admin::AGES.map(|seconds| Some(Duration::from_secs(seconds.into()))).into_iter();
    let counts = stage.map_or(&[][..], |stage| &stage.ages).iter().copied().chain(std::iter::repeat(0));
    let count = |(below, waiting): (Option<Duration>, i64)| AgeCount {
        below: below.map(duration),
        waiting: waiting as u64,
    };
    limits.chain([None]).zip(counts).map(count).collect()
}

fn age(now: OffsetDateTime, since: OffsetDateTime) -> prost_types::Duration {
    duration(Duration::try_from(now - since).unwrap_or_default())
}
