//! Writing outcomes: natural batching, as in `accept`. The decisions are in `route`, `delivery` and `effects`, without
//! I/O; here is the transaction around them; `commit` writes it, and has what follows from it in the schedule.

mod commit;
pub(crate) mod delivery;
pub(crate) mod effects;
mod in_hand;
mod notices;
pub(crate) mod route;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use posthorn_mail::{MessageId, Outcome};
use posthorn_service::gather;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::hub::Hub;
use crate::poison;
use crate::schedule::{Hold, Key, Settle, Then, Token};
use crate::spool;
pub(crate) use commit::{Written, commit};
use effects::Effects;
use route::{Routed, Routing};

/// What a worker says of an item.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    pub(crate) token: Token,
    pub(crate) message: MessageId,
    pub(crate) report: Report,
}

/// The outcome of an item, by the kind of work.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    Route(Vec<Routed>),
    Delivery(Vec<(u32, Outcome)>),
}

impl Report {
    /// How many recipients it is about, those that others came to included.
    fn recipients(&self) -> usize {
        match self {
            Self::Route(results) => results.iter().map(|result| result.targets.len()).sum(),
            Self::Delivery(outcomes) => outcomes.len(),
        }
    }
}

impl Reported {
    fn key(&self) -> Key {
        Key { message: self.message, lane: self.token.lane() }
    }
}

/// With so many recipients a transaction is full.
const MAX_RECIPIENTS: usize = 20_000;

struct Job {
    items: Vec<Reported>,
    /// Which items were stale, by their place.
    answer: oneshot::Sender<Vec<bool>>,
}

/// The way of outcomes into the ledger; cheap to clone.
#[derive(Clone)]
pub(crate) struct Outcomes {
    jobs: mpsc::Sender<Job>,
}

impl Outcomes {
    /// Hands outcomes in and waits until they are durable; tells for each whether it was stale, so that it changed
    /// nothing: others have the item, or have ended it. `None`: the service ends, and they are not.
    pub(crate) async fn record(&self, items: Vec<Reported>) -> Option<Vec<bool>> {
        let (answer, receiver) = oneshot::channel();
        self.jobs.send(Job { items, answer }).await.ok()?;
        receiver.await.ok()
    }
}

/// Starts the writers; they end when every [`Outcomes`] is dropped and all that waits is written.
pub(crate) fn start(hub: &Arc<Hub>, tasks: &mut JoinSet<()>) -> Outcomes {
    let config = &hub.config.outcome;
    let (sender, receiver) = mpsc::channel(config.max_waiting);
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..config.writers {
        tasks.spawn(write_all(hub.clone(), receiver.clone()));
    }
    Outcomes { jobs: sender }
}

async fn write_all(hub: Arc<Hub>, jobs: Arc<Mutex<mpsc::Receiver<Job>>>) {
    loop {
        let (mut items, mut recipients) = (0, 0);
        let is_full = |job: &Job| {
            items += job.items.len();
            recipients += job.items.iter().map(|item| item.report.recipients()).sum::<usize>();
            items >= hub.config.outcome.max_batch || recipients >= MAX_RECIPIENTS
        };
        let Some(batch) = gather(&jobs, is_full).await else { return };
        let items: Vec<Reported> = batch.iter().flat_map(|job| job.items.iter().cloned()).collect();
        let span = tracing::info_span!("queue.outcome", items = items.len());
        let Some(stale) = in_hand::record(&hub, items).instrument(span).await else { continue };
        let mut stale = stale.into_iter();
        for job in batch {
            let its_own = stale.by_ref().take(job.items.len()).collect();
            // A worker that has gone does not hear it; what is written is written.
            let _ = job.answer.send(its_own);
        }
    }
}

/// Writes a batch, as often as the stores need to take it; where Postgres refuses it, each of its items alone, so that
/// one does not keep the others. `None`: the service ends first.
async fn record(hub: &Hub, items: &[Reported]) -> Option<Vec<bool>> {
    let mut insistence = Insistence::begin();
    let mut refusals = 0;
    loop {
        let error = match claim(hub, items).await {
            None => "Redis is away".to_owned(),
            Some(good) => match write(hub, items, &good).await {
                Ok(awaited) => {
                    let mut awaited = awaited.into_iter();
                    // What nobody waits for the second time may have been written the first time.
                    let is_first = insistence.is_first();
                    insistence.end(hub);
                    let is_stale = |good: bool| !good || !awaited.next().unwrap_or(true) && is_first;
                    let stale: Vec<bool> = good.into_iter().map(is_stale).collect();
                    let count = stale.iter().filter(|stale| **stale).count();
                    metrics::counter!("posthorn_queue_stale_reports_total").increment(count as u64);
                    return Some(stale);
                }
                Err(error) if spool::is_away(&error) => error.to_string(),
                Err(error) if items.len() > 1 => {
                    tracing::warn!(%error, items = items.len(), "Postgres refuses a batch: writing its items one by one");
                    let mut stale = Vec::with_capacity(items.len());
                    for item in items.chunks(1) {
                        stale.extend(Box::pin(record(hub, item)).await?);
                    }
                    return Some(stale);
                }
                Err(error) if refusals == REFUSALS => match set_aside(hub, items, &error).await {
                    Ok(()) => return Some(vec![false; items.len()]),
                    Err(error) => error.to_string(),
                },
                Err(error) => {
                    refusals += 1;
                    error.to_string()
                }
            },
        };
        insistence.again(hub, items.len(), &error).await?;
    }
}

/// What Postgres refuses so often alone, after the first time, it will not take the next time either.
const REFUSALS: u32 = 2;

/// An outcome that cannot be written would come again and again: its message is set aside.
async fn set_aside(hub: &Hub, items: &[Reported], error: &sqlx::Error) -> sqlx::Result<()> {
    let now = hub.now();
    let ids: Vec<MessageId> = items.iter().map(|item| item.message).collect();
    let why = format!("set aside: its outcome cannot be written: {error}");
    hub.standing.with(async |c| poison::set_aside(hub, c, &ids, &why, now).await).await?;
    let end = |item: &Reported| Settle { key: item.key(), token: item.token, then: Then::Done };
    Written::nothing(now).schedule(hub, items.iter().map(end).collect()).await;
    Ok(())
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Outcomes are written as often as it takes.
struct Insistence {
    begun: Instant,
    pause: Duration,
}

impl Insistence {
    fn begin() -> Self {
        Self { begun: Instant::now(), pause: FIRST_PAUSE }
    }

    fn is_first(&self) -> bool {
        self.pause == FIRST_PAUSE
    }

    /// It is written. Where it was not at first, it may have been all the same, the answer lost, and what follows from
    /// it in the schedule with it.
    fn end(&self, hub: &Hub) {
        metrics::histogram!("posthorn_queue_outcome_seconds").record(self.begun.elapsed());
        if !self.is_first() {
            hub.recover.notify_one();
        }
    }

    /// Waits for the next attempt. `None`: the service ends first.
    async fn again(&mut self, hub: &Hub, items: usize, error: &str) -> Option<()> {
        let pause = self.pause;
        tracing::warn!(error, items, "outcomes could not be written, trying again in {pause:?}");
        // Also after the signal to stop: an outcome that is lost may be a message sent twice.
        tokio::time::sleep(pause).await;
        self.pause = (pause * 2).min(Duration::from_secs(2));
        let over = hub.shutdown.is_cancelled() && self.begun.elapsed() > hub.config.listen.drain;
        (!over).then_some(())
    }
}

/// Which items' tokens are good. A lease that Redis has lost, or cannot be asked about, is good if this process gave
/// it out and has no outcome for it: nobody else can have it before Redis is filled anew, leases included. `None`:
/// this cannot be told now.
async fn claim(hub: &Hub, items: &[Reported]) -> Option<Vec<bool>> {
    let now = hub.now();
    let leases: Vec<(Key, Token)> = items.iter().map(|item| (item.key(), item.token)).collect();
    let known = |(key, token): &(Key, Token)| hub.leases.knows(*token, *key, Instant::now());
    match hub.schedule.claim(&leases, now, now + hub.config.lease.length).await {
        Ok(holds) => {
            let good = |(lease, hold): (&(Key, Token), Hold)| match hold {
                Hold::Holds => true,
                Hold::Superseded => {
                    hub.leases.settle(&[(lease.1, lease.0)]);
                    false
                }
                Hold::Unknown => known(lease),
            };
            Some(leases.iter().zip(holds).map(good).collect())
        }
        Err(error) => {
            hub.redis_failed(&error);
            // What was in hand, and is neither there nor made known, is given anew by the schedule.
            let told = |lease: &(Key, Token)| known(lease) || lease.1.is_in_hand();
            leases.iter().all(told).then(|| leases.iter().map(known).collect())
        }
    }
}

/// One transaction, and then the schedule. Tells of each of the good items whether the ledger waited for it.
async fn write(hub: &Hub, items: &[Reported], good: &[bool]) -> sqlx::Result<Vec<bool>> {
    let now = hub.now();
    let items: Vec<&Reported> =
        items.iter().zip(good).filter(|(_, good)| **good).map(|(item, _)| item).collect();
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let (written, ends, awaited) =
        hub.standing.with(async |connection| write_over(connection, hub, &items, now).await).await?;
    written.schedule(hub, ends).await;
    Ok(awaited)
}

async fn write_over(
    connection: &mut PgConnection,
    hub: &Hub,
    items: &[&Reported],
    now: OffsetDateTime,
) -> sqlx::Result<(Written, Vec<Settle>, Vec<bool>)> {
    let mut transaction = connection.begin().await?;
    let mut ids: Vec<MessageId> = items.iter().map(|item| item.message).collect();
    ids.sort_unstable();
    ids.dedup();
    let messages = spool::load::lock(&mut transaction, &ids).await?;
    let span = tracing::Span::current();
    messages.values().for_each(|message| posthorn_service::trace::link(&span, &message.traceparent));
    let keys: Vec<Key> = items.iter().map(|item| item.key()).collect();
    let waiting = spool::load::waiting(&mut transaction, &keys).await?;
    let routed = routed(&mut transaction, items).await?;

    let mut effects = Effects::new(messages, &hub.policy, now);
    let max_recipients = hub.config.accept.max_recipients;
    let mut routing = Routing { effects: &mut effects, routed, max_recipients };
    let (mut ends, mut awaited) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for item in items {
        let (key, token) = (item.key(), item.token);
        let waiting = waiting.get(&key).map_or(&[][..], Vec::as_slice);
        awaited.push(!waiting.is_empty());
        match item.report.clone() {
            Report::Route(results) => routing.apply(key, waiting, results, rand::random()),
            Report::Delivery(outcomes) => {
                delivery::apply(routing.effects, key, token.kind(), waiting, outcomes, rand::random());
            }
        }
        let then = routing.effects.due_again(key, waiting).map_or(Then::Done, Then::At);
        ends.push(Settle { key, token, then });
    }
    Ok((commit(hub, transaction, effects).await?, ends, awaited))
}

/// The addresses that the messages go to already, of those that the router names now.
async fn routed(
    connection: &mut PgConnection,
    items: &[&Reported],
) -> sqlx::Result<HashSet<(MessageId, String)>> {
    let mut named: Vec<(MessageId, &str)> = Vec::new();
    for item in items {
        if let Report::Route(results) = &item.report {
            let targets = results.iter().flat_map(|result| &result.targets);
            named.extend(targets.map(|target| (item.message, target.address.as_str())));
        }
    }
    if named.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(spool::load::routed(connection, &named).await?.into_iter().collect())
}
