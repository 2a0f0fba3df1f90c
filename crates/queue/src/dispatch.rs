//! Giving work out: credits in, batches out. One loop per worker's stream; it sleeps until there is work.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::OptionFuture;
use posthorn_api::work::v1::{Batch, Item as WorkItem, Kept, WorkResponse, work_response::Response};
use posthorn_mail::MessageId;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::hub::Hub;
use crate::in_hand::{self, Given};
use crate::load;
use crate::schedule::{Ask, Item, Kind, Leased, Leasing, Settle, Then, Token};

/// Batches of a worker that are remembered before those that have their outcomes are forgotten.
const REMEMBERED: usize = 256;
/// The longest that the schedule is not looked at.
const LONGEST: Duration = Duration::from_secs(60);

/// A worker at the other end of a stream.
pub(crate) struct Worker {
    pub(crate) kind: Kind,
    /// Tells the streams of this process apart.
    pub(crate) id: u64,
    /// For logs.
    pub(crate) name: String,
    /// The most items in a batch.
    pub(crate) max_batch: u32,
    /// It may be given what is not in the ledger yet.
    pub(crate) takes_early: bool,
    /// Batches that it can take.
    pub(crate) credits: Semaphore,
    /// Batches that it has been given and not reported whole.
    pub(crate) given: Mutex<Vec<Token>>,
    pub(crate) out: mpsc::Sender<Result<WorkResponse, Status>>,
    /// It has ended its side: it wants nothing more.
    pub(crate) gone: CancellationToken,
}

/// Gives the worker batches until its stream ends or the service is to stop.
pub(crate) async fn serve(hub: Arc<Hub>, worker: Arc<Worker>) {
    let _present = hub.in_hand.present(worker.kind);
    let mut sources = Sources::new(&hub, worker.kind);
    loop {
        let credit = tokio::select! {
            biased;
            () = over(&hub, &worker) => return,
            credit = worker.credits.acquire() => credit,
        };
        let Ok(credit) = credit else { return };
        let turn = tokio::select! {
            biased;
            () = over(&hub, &worker) => return,
            turn = OptionFuture::from(hub.wake.turn(worker.kind).map(|line| line.lock())) => turn,
        };
        let batch = sources.next_batch(&hub, &worker).await;
        drop(turn);
        let Some((batch, early)) = batch else { return };
        credit.forget();
        let response = WorkResponse { response: Some(Response::Batch(batch)) };
        if worker.out.send(Ok(response)).await.is_err() {
            return;
        }
        if let Some(early) = early {
            tokio::spawn(early.say_what_became_of_it(hub.clone(), worker.clone()));
        }
    }
}

/// A batch of one message that was not in the ledger when it was given.
struct Early {
    token: Token,
    message: MessageId,
    kept: in_hand::Kept,
}

impl Early {
    async fn say_what_became_of_it(mut self, hub: Arc<Hub>, worker: Arc<Worker>) {
        // An error: it was dropped, and the message is not kept; nor is one that is no longer in hand.
        let is_kept =
            self.kept.wait_for(|kept| *kept).await.is_ok() && hub.in_hand.has(self.token, self.message);
        let kept = Kept { token: bytes::Bytes::copy_from_slice(self.token.bytes()), is_kept };
        let _ = worker.out.send(Ok(WorkResponse { response: Some(Response::Kept(kept)) })).await;
    }
}

async fn unless_over(hub: &Hub, worker: &Worker, pause: impl Future<Output = ()>) -> Option<()> {
    tokio::select! {
        () = pause => Some(()),
        () = over(hub, worker) => None,
    }
}

/// Ends when no more is to be given to the worker.
async fn over(hub: &Hub, worker: &Worker) {
    tokio::select! {
        () = worker.out.closed() => {}
        () = worker.gone.cancelled() => {}
        () = hub.shutdown.cancelled() => {}
    }
}

/// Where a worker's batches come from: the schedule, and what is in hand here. While both have something they take
/// turns, so that neither what waits in line nor what has just come in stands still.
struct Sources {
    schedule_news: watch::Receiver<()>,
    in_hand_news: Option<watch::Receiver<()>>,
    /// When the schedule may have something, if nothing is heard of it before.
    look_at: Instant,
    first_partition: u16,
    in_hand_had_its_turn: bool,
}

impl Sources {
    fn new(hub: &Hub, kind: Kind) -> Self {
        Self {
            schedule_news: hub.wake.watch(kind),
            in_hand_news: hub.in_hand.watch(kind),
            look_at: Instant::now(),
            first_partition: 0,
            in_hand_had_its_turn: false,
        }
    }

    /// The next batch, whenever there is one; `None` when no more is to be given. Only its pauses are broken off: what
    /// has just been leased would be nobody's until the lease ends.
    async fn next_batch(&mut self, hub: &Hub, worker: &Worker) -> Option<(Batch, Option<Early>)> {
        let mut pause = Duration::from_millis(50);
        loop {
            let look = self.may_be_scheduled();
            if !(look && self.in_hand_had_its_turn)
                && let Some(batch) = self.in_hand(hub, worker)
            {
                return Some(batch);
            }
            if look {
                self.in_hand_had_its_turn = false;
                match self.scheduled(hub, worker).await {
                    Ok(Some(batch)) => return Some((batch, None)),
                    Ok(None) => pause = Duration::from_millis(50),
                    Err(Failed) => {
                        // What is in hand goes on without the schedule.
                        self.look_at = Instant::now() + pause;
                        pause = (pause * 2).min(Duration::from_secs(2));
                    }
                }
            } else {
                unless_over(hub, worker, self.wait()).await?;
            }
        }
    }

    fn may_be_scheduled(&self) -> bool {
        self.schedule_news.has_changed().unwrap_or(false) || Instant::now() >= self.look_at
    }

    fn in_hand(&mut self, hub: &Hub, worker: &Worker) -> Option<(Batch, Option<Early>)> {
        // Marked as seen before looking: what comes between wakes at once.
        self.in_hand_news.as_mut()?.borrow_and_update();
        let Worker { kind, id, takes_early, max_batch, .. } = *worker;
        let Given { token, items, early } =
            hub.in_hand.give(kind, id, takes_early, max_batch, Instant::now())?;
        self.in_hand_had_its_turn = true;
        metrics::counter!("posthorn_queue_in_hand_total", "kind" => worker.kind.name())
            .increment(items.len() as u64);
        let early = early.zip(items.first()).and_then(|(kept, item)| {
            Some(Early { token, message: item.message_id.as_ref().try_into().ok()?, kept })
        });
        let batch = Batch { early: early.is_some(), ..batch(hub, token, items, String::new()) };
        Some((batch, early))
    }

    /// A batch of the schedule; `None` when this look has brought nothing.
    async fn scheduled(&mut self, hub: &Hub, worker: &Worker) -> Result<Option<Batch>, Failed> {
        self.schedule_news.borrow_and_update();
        match lease(hub, worker, &mut self.first_partition).await {
            Ok(Leasing::Batch(leased)) => {
                // There may be more, of which no other word comes.
                self.look_at = Instant::now();
                give(hub, worker, leased).await.map_err(|error| {
                    tracing::warn!(%error, worker = worker.name, "work could not be read, trying again soon");
                    Failed
                })
            }
            Ok(Leasing::Nothing(next)) => {
                // A minute at most, should a word be lost with the connection it came by. A millisecond more: times in
                // the schedule are cut to one.
                let left = |at| Duration::try_from(at - hub.now()).unwrap_or_default();
                let pause = next.map_or(LONGEST, |at| left(at) + Duration::from_millis(1));
                self.look_at = Instant::now() + pause.min(LONGEST);
                Ok(None)
            }
            Ok(Leasing::Empty) => {
                hub.recover.notify_one();
                // Whoever fills it wakes all.
                self.look_at = Instant::now() + Duration::from_secs(1);
                Ok(None)
            }
            Err(error) => {
                hub.redis_failed(&error);
                Err(Failed)
            }
        }
    }

    /// Sleeps until there is news, or the schedule is to be looked at.
    async fn wait(&mut self) {
        let left = self.look_at.saturating_duration_since(Instant::now());
        let in_hand = async {
            match &mut self.in_hand_news {
                Some(news) => drop(news.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.schedule_news.changed() => self.look_at = Instant::now(),
            () = in_hand => {}
            () = tokio::time::sleep(left) => {}
        }
    }
}

/// A store did not answer as it should; it has been said.
struct Failed;

/// Leases from the partitions in turn.
async fn lease(hub: &Hub, worker: &Worker, first_partition: &mut u16) -> redis::RedisResult<Leasing> {
    let now = hub.now();
    let ask = Ask {
        now,
        until: now + hub.config.lease.length,
        most: worker.max_batch,
        concurrency: if worker.kind == Kind::Remote { hub.config.destination.concurrency } else { 0 },
    };
    let partitions = hub.schedule.partitions();
    let count = partitions.len() as u16;
    let mut next: Option<OffsetDateTime> = None;
    for partition in partitions {
        let partition = (*first_partition + partition) % count;
        match hub.schedule.lease(worker.kind, partition, &ask).await? {
            Leasing::Nothing(at) => next = next.into_iter().chain(at).min(),
            other => {
                *first_partition = (partition + 1) % count;
                return Ok(other);
            }
        }
    }
    Ok(Leasing::Nothing(next))
}

/// Makes a batch out of leased items; what cannot be worked on goes back to where it belongs. `None`: nothing is left.
async fn give(hub: &Hub, worker: &Worker, leased: Leased) -> sqlx::Result<Option<Batch>> {
    let now = hub.now();
    let token = leased.token;
    let loaded = match load::load(hub, &leased, now).await {
        Ok(loaded) => loaded,
        Err(error) => {
            // They need not wait for the lease to end, and it is not their fault: the lease does not count.
            let back = |(item, _): &(Item, u8)| Settle { key: item.key, token, then: Then::Back };
            settle(hub, &leased.items.iter().map(back).collect::<Vec<_>>(), now).await;
            // They may reach Postgres, and looked while these were leased.
            hub.wake.wake_others(worker.kind);
            return Err(error);
        }
    };
    settle(hub, &loaded.aside, now).await;
    if loaded.aside.iter().any(|end| !matches!(end.then, Then::Done)) {
        hub.wake.wake(worker.kind);
    }
    if loaded.items.is_empty() {
        return Ok(None);
    }
    hub.leases.insert(token, loaded.given, Instant::now());
    let mut given = worker.given.lock().unwrap_or_else(PoisonError::into_inner);
    if given.len() >= REMEMBERED {
        hub.leases.retain(&mut given);
    }
    given.push(token);
    drop(given);
    metrics::counter!("posthorn_queue_leased_total", "kind" => worker.kind.name())
        .increment(loaded.items.len() as u64);
    Ok(Some(batch(hub, token, loaded.items, loaded.destination)))
}

fn batch(hub: &Hub, token: Token, items: Vec<WorkItem>, destination: String) -> Batch {
    Batch {
        token: bytes::Bytes::copy_from_slice(token.bytes()),
        lease: Some(posthorn_api::duration(hub.config.lease.length)),
        items,
        destination,
        early: false,
    }
}

async fn settle(hub: &Hub, ends: &[Settle], now: OffsetDateTime) {
    if !ends.is_empty()
        && let Err(error) = hub.schedule.settle(ends, now).await
    {
        hub.redis_failed(&error);
    }
}

/// The worker's stream is gone. What it had of work that may be done twice is given to others soon; a transfer may
/// still go on and be reported by another stream, so remote work keeps its lease.
pub(crate) async fn orphan(hub: &Hub, worker: &Worker) {
    let now = hub.now();
    let in_hand = hub.in_hand.orphans(worker.id);
    pass_on(hub, &in_hand, now + hub.config.lease.orphaned).await;
    let mut given = std::mem::take(&mut *worker.given.lock().unwrap_or_else(PoisonError::into_inner));
    hub.leases.retain(&mut given);
    if worker.kind == Kind::Remote || given.is_empty() {
        return;
    }
    for token in given {
        for partition in hub.schedule.partitions() {
            if let Err(error) =
                hub.schedule.extend(token, partition, now, now + hub.config.lease.orphaned).await
            {
                hub.redis_failed(&error);
                return;
            }
        }
    }
    hub.wake.wake(worker.kind);
}

/// What was in hand goes by the schedule.
pub(crate) async fn pass_on(hub: &Hub, items: &[Item], at: OffsetDateTime) {
    let items: Vec<(Item, OffsetDateTime)> = items.iter().map(|item| (*item, at)).collect();
    hub.schedule_soon(Kind::Route, &items, hub.now()).await;
}

/// What waits in hand for a worker too long goes by the schedule; at the end all of it. What a worker has for more than a
/// moment, the schedule knows.
pub(crate) async fn pass_on_what_waits(hub: Arc<Hub>) {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while hub.shutdown.run_until_cancelled(every.tick()).await.is_some() {
        let late = hub.in_hand.overdue(Instant::now());
        pass_on(&hub, &late, hub.now()).await;
        keep(&hub, &hub.in_hand.lasting(Instant::now())).await;
    }
    let (waiting, given) = hub.in_hand.close(Instant::now());
    pass_on(&hub, &waiting, hub.now()).await;
    keep(&hub, &given).await;
}

/// What is in hand here is due at the end of a lease, should this process die.
async fn keep(hub: &Hub, items: &[Item]) {
    let until = hub.now() + hub.config.lease.length;
    if let Err(error) = hub.schedule.take_in_hand(Kind::Route, items, until).await {
        hub.redis_failed(&error);
    }
}
