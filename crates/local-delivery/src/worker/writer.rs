//! A writer: takes what has gathered while it was writing, and writes that in one transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use posthorn_database::Standing;
use posthorn_mail::Outcome;
use posthorn_service::{Need, trace, wait_for};
use posthorn_work::{Kept, Leased};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::item::{arrivals, outcome, store_failed, verdict};
use crate::notify::Changed;
use crate::placement::{Arrival, Place, Placed};
use crate::store::messages::MessageRow;
use crate::store::{self, Kind};
use crate::summary::{PREFIX_BYTES, Summary};
use crate::watch::Arrived;

pub(crate) struct Writer {
    pub(crate) standing: Arc<Standing>,
    pub(crate) early: Arc<Standing>,
    pub(crate) changed: Changed,
    pub(crate) postgres: Need,
    pub(crate) shutdown: CancellationToken,
    pub(crate) max_copies: usize,
    pub(crate) max_items: usize,
    pub(crate) attempts: u32,
    pub(crate) patience: Duration,
    /// Held while it is looked whether Postgres is back.
    pub(crate) looking: Arc<Mutex<()>>,
}

/// How long what is not in the ledger yet is waited for, its mailbox locked.
const SOON: Duration = Duration::from_secs(1);

/// Why arrivals were not written.
enum Failure {
    /// Postgres is away, and for long; or the process stops.
    Away,
    /// Postgres refuses them.
    Refused(sqlx::Error),
}

/// An item with its copies.
struct Work {
    leased: Leased,
    arrivals: Vec<Result<Arrival, Outcome>>,
}

impl Writer {
    /// Writes until the jobs end; once the process stops, jobs that come are dropped, which gives them back.
    pub(crate) async fn run(self: Arc<Self>, pending: Arc<Mutex<mpsc::Receiver<Leased>>>) {
        let mut jobs = Vec::new();
        let mut early = JoinSet::new();
        while pending.lock().await.recv_many(&mut jobs, self.max_items).await > 0 {
            // A lease that ended while this process was asleep: others have the message, which may have ended meanwhile.
            let now = Instant::now();
            jobs.retain(|leased| !leased.is_overdue(now));
            while early.try_join_next().is_some() {}
            for leased in jobs.extract_if(.., |leased| leased.early.is_some()) {
                early.spawn(Arc::clone(&self).write_early(leased));
            }
            for group in groups(std::mem::take(&mut jobs), self.max_copies) {
                if !self.shutdown.is_cancelled() {
                    self.write(group).await;
                }
            }
        }
        early.join_all().await;
    }

    /// Writes what is not in the ledger yet as soon as it is there. What is not there soon is given back.
    async fn write_early(self: Arc<Self>, leased: Leased) {
        let Some(mut kept) = leased.early.clone() else { return };
        let work = Work { arrivals: arrivals(&leased.item), leased };
        match self.deliver_early(&work, soon(&mut kept)).await {
            Some(placed) => finish(vec![work], placed),
            None if soon(&mut kept).await => self.write(vec![work]).await,
            None => drop(work),
        }
    }

    /// `None`: it is to be delivered like all else, if it is kept.
    async fn deliver_early(&self, work: &Work, kept: impl Future<Output = bool>) -> Option<Vec<Placed>> {
        let arrivals: Vec<&Arrival> = work.arrivals.iter().flatten().collect();
        let started = Instant::now();
        let at = to_the_microsecond(OffsetDateTime::now_utc());
        let header = &work.leased.item.header;
        let summary =
            self.wanted_start(&arrivals).filter(|_| !header.is_empty()).map(|_| Summary::parse(header));
        match store::deliver_early(&self.early, &arrivals, at, kept).await {
            Ok(placed) => Some(self.delivered(&arrivals, placed?, summary, at, started).await),
            Err(reason) => {
                tracing::warn!(%reason, "a message that is being written down could not be delivered ahead");
                None
            }
        }
    }

    /// Writes a group in one transaction; where that fails, each of its items alone, so that one cannot fail others.
    async fn write(&self, group: Vec<Work>) {
        match self.deliver(&group).await {
            Ok(placed) => finish(group, placed),
            // Given back: another may reach Postgres, and meanwhile the message may come to another end.
            Err(Failure::Away) => {
                drop(group);
                self.look_for_postgres();
            }
            Err(Failure::Refused(reason)) if group.len() > 1 => {
                tracing::warn!(%reason, items = group.len(), "a batch failed: writing its items one by one");
                for work in group {
                    Box::pin(self.write(vec![work])).await;
                }
            }
            Err(Failure::Refused(reason)) => group.into_iter().for_each(|work| refuse(work, &reason)),
        }
    }

    /// One transaction, tried again while Postgres is away (the lease is extended meanwhile), though not for ever, or picks
    /// it as a victim.
    async fn deliver(&self, group: &[Work]) -> Result<Vec<Placed>, Failure> {
        let arrivals: Vec<&Arrival> = group.iter().flat_map(|work| work.arrivals.iter().flatten()).collect();
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let at = to_the_microsecond(OffsetDateTime::now_utc());
        let start = self.wanted_start(&arrivals);
        let mut victim = 0;
        let mut pause = Duration::from_millis(100);
        let delivered = loop {
            let error = match store::deliver(&self.standing, &arrivals, at, start).await {
                Ok(delivered) => break delivered,
                Err(error) => error,
            };
            match store::kind(&error) {
                Kind::Victim if victim < self.attempts => victim += 1,
                Kind::Away => {
                    self.postgres.missing(&error);
                    if started.elapsed() >= self.patience {
                        tracing::warn!(reason = %error, "Postgres is away, giving the work back");
                        return Err(Failure::Away);
                    }
                    tracing::warn!(reason = %error, "Postgres is away, trying again in {pause:?}");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = self.shutdown.cancelled() => return Err(Failure::Away),
                    }
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                _ => {
                    self.postgres.met();
                    return Err(Failure::Refused(error));
                }
            }
        };
        let summary = delivered.start.map(|start| Summary::parse(&start));
        Ok(self.delivered(&arrivals, delivered.placed, summary, at, started).await)
    }

    /// Sees when Postgres is back: there may be nothing to deliver that would tell.
    fn look_for_postgres(&self) {
        let Ok(looking) = self.looking.clone().try_lock_owned() else { return };
        let (standing, postgres, shutdown) =
            (self.standing.clone(), self.postgres.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let answers = move || store::answers(standing.clone());
            wait_for(&postgres, &shutdown, answers).await;
            drop(looking);
        });
    }

    /// How much is wanted of the content of one that comes alone: who watches its mailbox is told what it is.
    fn wanted_start(&self, arrivals: &[&Arrival]) -> Option<usize> {
        let watched = matches!(arrivals, [one] if self.changed.is_watched(one.account_id));
        watched.then_some(PREFIX_BYTES)
    }

    /// They are in their mailboxes, or not to be.
    async fn delivered(
        &self,
        arrivals: &[&Arrival],
        placed: Vec<Placed>,
        summary: Option<Summary>,
        at: OffsetDateTime,
        started: Instant,
    ) -> Vec<Placed> {
        let took = started.elapsed();
        self.tell(arrivals, &placed, summary, at);
        // Who watches hears of it before anything else is done.
        tokio::task::yield_now().await;
        self.postgres.met();
        metrics::histogram!("posthorn_local_delivery_batch_copies").record(arrivals.len() as f64);
        metrics::histogram!("posthorn_local_delivery_batch_seconds").record(took.as_secs_f64());
        let count = |name: &'static str, wanted: fn(&Placed) -> bool| {
            let n = placed.iter().filter(|p| wanted(p)).count();
            metrics::counter!("posthorn_local_delivery_copies_total", "result" => name).increment(n as u64);
        };
        count("delivered", |p| matches!(p, Placed::At(_)));
        count("repeated", |p| matches!(p, Placed::Already));
        count("full", |p| matches!(p, Placed::Full));
        count("too_large", |p| matches!(p, Placed::TooLarge));
        placed
    }

    /// Wakes those who watch the mailboxes. Also for what had been delivered before: whoever did may have died before
    /// it told.
    fn tell(&self, arrivals: &[&Arrival], placed: &[Placed], summary: Option<Summary>, at: OffsetDateTime) {
        if let ([arrival], [Placed::At(place)], Some(summary)) = (arrivals, placed, summary) {
            let arrived = Arrived { row: row(arrival, place, at), summary };
            self.changed.tell_arrival(arrival.account_id, arrived);
        } else {
            self.tell_changes(arrivals, placed);
        }
    }

    fn tell_changes(&self, arrivals: &[&Arrival], placed: &[Placed]) {
        let changes = arrivals.iter().zip(placed).filter_map(|(arrival, placed)| match placed {
            Placed::At(place) => Some((arrival.account_id, place.modseq)),
            Placed::Already => Some((arrival.account_id, 0)),
            Placed::Full | Placed::TooLarge => None,
        });
        self.changed.tell_all(changes);
    }
}

/// Whether it is kept, as far as that is known soon.
async fn soon(kept: &mut Kept) -> bool {
    timeout(SOON, kept.known()).await.unwrap_or(false)
}

/// As Postgres keeps it.
fn to_the_microsecond(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}

/// A message as the store has it now.
fn row(arrival: &Arrival, place: &Place, at: OffsetDateTime) -> MessageRow {
    MessageRow {
        folder_id: place.folder_id,
        folder: arrival.folder.as_str().to_owned(),
        uid: place.uid,
        content_id: arrival.message_id,
        size: arrival.size as i64,
        flags: 0,
        keywords: Vec::new(),
        modseq: place.modseq,
        received_at: at,
        message_id: Some(arrival.message_id),
        return_path: Some(arrival.return_path.clone()),
        delivered_to: Some(arrival.recipient.clone()),
    }
}

/// Cuts jobs into groups of about `max_copies` copies; an item is never cut.
fn groups(jobs: Vec<Leased>, max_copies: usize) -> Vec<Vec<Work>> {
    let mut groups: Vec<Vec<Work>> = Vec::new();
    let mut copies = 0;
    for leased in jobs {
        let arrivals = arrivals(&leased.item);
        copies += arrivals.len();
        match groups.last_mut() {
            Some(group) if copies <= max_copies => group.push(Work { leased, arrivals }),
            _ => {
                copies = arrivals.len();
                groups.push(vec![Work { leased, arrivals }]);
            }
        }
    }
    groups
}

/// Reports what was placed, matched in order with the recipients that had an arrival.
fn finish(group: Vec<Work>, placed: Vec<Placed>) {
    let mut placed = placed.into_iter();
    for Work { leased, arrivals } in group {
        let outcomes: Vec<Outcome> = arrivals
            .into_iter()
            .map(|arrival| match arrival {
                Ok(_) => outcome(verdict(placed.next().expect("each arrival was placed"))),
                Err(outcome) => outcome,
            })
            .collect();
        log(&leased, &outcomes);
        leased.report_outcomes(outcomes);
    }
}

/// The span of an attempt, linked to the trace that the message came with.
fn log(leased: &Leased, outcomes: &[Outcome]) {
    let message_id = leased.message_id().map(tracing::field::display);
    let span = tracing::info_span!("deliver", message_id, recipients = outcomes.len());
    trace::link(&span, &leased.item.traceparent);
    let _entered = span.enter();
    for (recipient, outcome) in leased.item.recipients.iter().zip(outcomes) {
        tracing::debug!(recipient = recipient.address, attempt = recipient.attempt, outcome = ?outcome.verdict, "ended");
    }
}

/// The message that Postgres refuses on its own: it is tried later, and set aside by the queue if that goes on.
fn refuse(Work { leased, arrivals }: Work, reason: &sqlx::Error) {
    let message_id = leased.message_id().map(tracing::field::display);
    tracing::error!(message_id, %reason, "the store refuses a message");
    metrics::counter!("posthorn_local_delivery_copies_total", "result" => "store_failed")
        .increment(arrivals.len() as u64);
    let outcomes = arrivals.into_iter().map(|a| a.err().unwrap_or_else(store_failed)).collect();
    leased.report_outcomes(outcomes);
}
