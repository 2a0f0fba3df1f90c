//! Writing outcomes: natural batching, as in `accept`. The decisions are in `route`, `delivery` and `effects`, without
//! I/O; here is the transaction around them and what follows it in the schedule.

pub(crate) mod delivery;
pub(crate) mod effects;
mod in_hand;
mod notices;
pub(crate) mod route;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future;
use posthorn_mail::{MessageId, Outcome};
use posthorn_service::gather;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::accept;
use crate::hub::Hub;
use crate::poison;
use crate::schedule::{Hold, Item, Key, Kind, Lane, Learn, Settle, Then, Token};
use crate::spool;
use crate::trace::Record;
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
    /// Hands outcomes in and waits until they are durable; tells for each whether its token was stale, so that it
    /// changed nothing. `None`: the service ends, and they are not.
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
                Ok(()) => {
                    insistence.end(hub);
                    let stale: Vec<bool> = good.into_iter().map(|good| !good).collect();
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
    let now = OffsetDateTime::now_utc();
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

    /// It is written. Where it was not at first, it may have been all the same, the answer lost, and what follows from
    /// it in the schedule with it.
    fn end(&self, hub: &Hub) {
        metrics::histogram!("posthorn_queue_outcome_seconds").record(self.begun.elapsed());
        if self.pause > FIRST_PAUSE {
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
    let now = OffsetDateTime::now_utc();
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

/// One transaction, and then the schedule.
async fn write(hub: &Hub, items: &[Reported], good: &[bool]) -> sqlx::Result<()> {
    let now = OffsetDateTime::now_utc();
    let items: Vec<&Reported> =
        items.iter().zip(good).filter(|(_, good)| **good).map(|(item, _)| item).collect();
    if items.is_empty() {
        return Ok(());
    }
    let (written, ends) =
        hub.standing.with(async |connection| write_over(connection, hub, &items, now).await).await?;
    written.schedule(hub, ends).await;
    Ok(())
}

async fn write_over(
    connection: &mut PgConnection,
    hub: &Hub,
    items: &[&Reported],
    now: OffsetDateTime,
) -> sqlx::Result<(Written, Vec<Settle>)> {
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
    let mut ends = Vec::with_capacity(items.len());
    for item in items {
        let (key, token) = (item.key(), item.token);
        let waiting = waiting.get(&key).map_or(&[][..], Vec::as_slice);
        match item.report.clone() {
            Report::Route(results) => routing.apply(key, waiting, results, rand::random()),
            Report::Delivery(outcomes) => {
                delivery::apply(routing.effects, key, token.kind(), waiting, outcomes, rand::random());
            }
        }
        let then = routing.effects.due_again(key, waiting).map_or(Then::Done, Then::At);
        ends.push(Settle { key, token, then });
    }
    Ok((commit(hub, transaction, effects).await?, ends))
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

/// What is to be done once a transaction is through.
pub(crate) struct Written {
    now: OffsetDateTime,
    adds: Vec<(Kind, Item, OffsetDateTime)>,
    learn: Vec<(Lane, Learn)>,
    notices: Vec<(Item, OffsetDateTime)>,
}

/// Writes all that came of a batch into the ledger and commits.
pub(crate) async fn commit(
    hub: &Hub,
    mut transaction: sqlx::Transaction<'_, sqlx::Postgres>,
    mut effects: Effects<'_>,
) -> sqlx::Result<Written> {
    let now = effects.now;
    let connection = &mut *transaction;
    let own = notices::write(connection, &hub.config, &mut effects).await?;
    let (mut records, notices) = accept::insert_own(connection, &hub.config, &own, now).await?;
    spool::update::recipients(connection, &effects.updates()).await?;
    spool::insert::recipients(connection, &effects.inserts()).await?;
    spool::update::messages(connection, &effects.going_on()).await?;
    let suspended = suspend_with_domain(connection, &effects).await?;
    let ended = effects.ended();
    end(connection, &effects, &ended).await?;
    for id in &ended {
        let event = crate::trace::event(*id, now, posthorn_api::trace::v1::EventKind::Ended);
        effects.event(*id, event);
    }
    let events = std::mem::take(&mut effects.events);
    let of_messages: Vec<Record> = events.into_iter().map(|(id, events)| Record::new(id, events)).collect();
    let ended_now: HashSet<MessageId> = ended.iter().copied().collect();
    let rows: Vec<(MessageId, Vec<u8>)> = of_messages
        .iter()
        .map(|record| match ended_now.contains(&record.message) {
            // What the message's own row said goes with it.
            true => (record.message, record.after_accepted(&effects.messages[&record.message])),
            false => (record.message, record.encoded()),
        })
        .collect();
    spool::trace::insert(connection, rows, now).await?;
    transaction.commit().await?;

    records.extend(of_messages);
    hub.wake.tell(&records);
    let bytes = ended.iter().map(|id| effects.messages[id].size).sum();
    hub.level.ended(ended.len() as u64, bytes);
    metrics::counter!("posthorn_queue_ended_total").increment(ended.len() as u64);
    let back_off = now + hub.config.destination.max_back_off;
    let (concurrency, max) = (hub.config.destination.concurrency, hub.config.destination.max_concurrency);
    let learn = effects.learnt.iter().map(|(lane, learnt)| match learnt.unavailable {
        Some(at) => (*lane, Learn::Unavailable { concurrency, until: at.min(back_off) }),
        None => (*lane, Learn::Success { concurrency, max }),
    });
    let suspend = suspended.iter().map(|destination| (Lane::remote(destination), Learn::Suspend));
    Ok(Written { now, learn: learn.chain(suspend).collect(), adds: effects.adds, notices })
}

/// Suspends destinations that the mail of a suspended domain comes to; returns them.
async fn suspend_with_domain(
    connection: &mut PgConnection,
    effects: &Effects<'_>,
) -> sqlx::Result<Vec<String>> {
    let comes = effects.remote();
    if comes.0.is_empty() {
        Ok(Vec::new())
    } else {
        spool::admin::suspend_with_domain(connection, &comes).await
    }
}

/// Messages end: their rows go, and their content where no mailbox can have it.
async fn end(connection: &mut PgConnection, effects: &Effects<'_>, ended: &[MessageId]) -> sqlx::Result<()> {
    let placed = spool::update::end_messages(connection, ended, &effects.unwritten()).await?;
    let (mut delete, mut release) = (Vec::new(), Vec::new());
    for (id, placed) in placed {
        let maybe_local = effects.messages[&id].maybe_local
            || effects.new.iter().any(|(of, r)| *of == id && r.kind() == Kind::Local);
        if !placed.local && !placed.unplaced && !maybe_local {
            delete.push(id);
        } else if !placed.all_delivered || placed.unplaced || maybe_local {
            release.push(id);
        }
    }
    if !delete.is_empty() {
        posthorn_content::delete(connection, &delete).await?;
    }
    if !release.is_empty() {
        posthorn_content::release(connection, &release).await?;
    }
    Ok(())
}

impl Written {
    fn nothing(now: OffsetDateTime) -> Self {
        Self { now, adds: Vec::new(), learn: Vec::new(), notices: Vec::new() }
    }

    /// Brings the schedule up to the ledger. What Redis does not take now is found again by the sweep.
    pub(crate) async fn schedule(self, hub: &Hub, ends: Vec<Settle>) {
        let now = self.now;
        let settled: Vec<(Token, Key)> = ends.iter().map(|end| (end.token, end.key)).collect();
        hub.leases.settle(&settled);
        let mut by_kind: [Vec<(Item, OffsetDateTime)>; 3] = Default::default();
        for (kind, item, at) in self.adds {
            by_kind[kind as usize].push((item, at));
        }
        by_kind[Kind::Route as usize].extend(self.notices);
        let settle = async {
            // Lanes first: whoever is woken by a free slot must not find a lane open that is held back.
            for (lane, learn) in self.learn {
                if let Err(error) = hub.schedule.learn(lane, learn, now).await {
                    hub.redis_failed(&error);
                }
            }
            if !ends.is_empty()
                && let Err(error) = hub.schedule.settle(&ends, now).await
            {
                hub.redis_failed(&error);
            }
        };
        let [route, local, remote] = &by_kind;
        future::join4(
            settle,
            hub.schedule_soon(Kind::Route, route, now),
            hub.schedule_soon(Kind::Local, local, now),
            hub.schedule_soon(Kind::Remote, remote, now),
        )
        .await;
        // A later time or a free slot is news to those who wait.
        let mut kinds: Vec<Kind> = ends
            .iter()
            .filter(|end| matches!(end.then, Then::At(_)) || end.token.kind() == Kind::Remote)
            .map(|end| end.token.kind())
            .collect();
        kinds.dedup();
        kinds.into_iter().for_each(|kind| hub.wake.wake(kind));
    }
}
