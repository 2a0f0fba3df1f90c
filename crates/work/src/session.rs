//! The work by as many streams as there are replicas of the queue.

use std::collections::{BTreeMap, HashMap};
use std::iter::repeat_n;
use std::time::Instant;

use bytes::Bytes;
use posthorn_api::period;
use posthorn_api::work::v1::{Batch, Hello, work_request::Request, work_response::Response};
use posthorn_service::{Need, Replicas};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::Work;
use crate::leased::{self, Ended, Kept};
use crate::leases::{Leases, StreamId};
use crate::link::{News, Stream};
use crate::links::Links;
use crate::share::{Load, share};

/// Outcomes that go into one report at most.
const REPORT_ITEMS: usize = 4096;

/// The worker's side of the work streams, over as many connections as it takes.
pub(crate) struct Session<'a, W> {
    work: W,
    need: &'a Need,
    shutdown: CancellationToken,
    leases: Leases,
    /// As long as what is held, which the credits bound.
    end: mpsc::UnboundedSender<Ended>,
    links: Links,
    /// Those that live. While there are any, each open batch has one of them that tells of it.
    streams: BTreeMap<StreamId, Stream>,
    /// By token, the batches of which a stream has not said yet whether they are in the ledger.
    early: HashMap<Bytes, (StreamId, watch::Sender<Option<bool>>)>,
}

/// Works until told to stop and nothing is held.
pub(crate) async fn run<W: Work>(
    work: W,
    mut replicas: Replicas,
    need: &Need,
    shutdown: CancellationToken,
    patience: CancellationToken,
) {
    let hello = Hello {
        kind: W::KIND.into(),
        worker: worker_name(),
        max_batch: work.max_batch(),
        takes_early: W::TAKES_EARLY,
    };
    let (links, mut news) = Links::new(hello);
    let (end, mut ended) = mpsc::unbounded_channel();
    let leases = Leases::default();
    let (streams, early) = Default::default();
    let mut session = Session { work, need, shutdown, leases, end, links, streams, early };
    session.links.follow(&replicas.borrow_and_update());
    let (shutdown, mut they_change, mut some) = (session.shutdown.clone(), true, Vec::new());
    loop {
        let stopping = shutdown.is_cancelled();
        session.end_streams();
        if stopping && session.leases.is_empty() {
            break;
        }
        let alone = session.streams.is_empty();
        if alone && patience.is_cancelled() {
            let items = session.leases.held(0).items;
            tracing::warn!(items, "stopping without the queue: outcomes were not recorded");
            break;
        }
        if !stopping {
            session.ask();
        }
        let extend_at = session.leases.extend_at();
        tokio::select! {
            Some(news) = news.recv() => session.hear(news),
            _ = ended.recv_many(&mut some, REPORT_ITEMS), if !alone => session.tell(&mut some),
            () = tokio::time::sleep_until(extend_at.unwrap_or_else(Instant::now).into()),
                if extend_at.is_some() && !alone => session.extend(),
            changed = replicas.changed(), if they_change => {
                they_change = changed.is_ok();
                session.links.follow(&replicas.borrow_and_update());
            }
            () = session.work.changed(), if !stopping => {}
            () = shutdown.cancelled(), if !stopping => {}
            () = patience.cancelled(), if alone => {}
        }
    }
    drop(news);
    session.streams.clear();
    session.links.close().await;
}

impl<W: Work> Session<'_, W> {
    /// Ends the streams that are to end and have nothing more to tell.
    fn end_streams(&mut self) {
        let leases = &self.leases;
        let over = |stream: &Stream| stream.is_leaving() && leases.batches_of(stream.id) == 0;
        for (id, stream) in self.streams.extract_if(.., |_, stream| over(stream)) {
            self.early.retain(|_, (of, _)| *of != id);
            self.links.expect(stream.replica, stream.comes_back());
        }
    }

    /// Asks for as much as there is room for; streams that are about to come have their share left to them.
    fn ask(&mut self) {
        let (leases, work) = (&self.leases, &self.work);
        let mut taking: Vec<&mut Stream> = self.streams.values_mut().filter(|s| !s.is_leaving()).collect();
        let loads = taking.iter().map(|s| Load { asked: s.asked, open: leases.batches_of(s.id) });
        let loads: Vec<Load> = loads.chain(repeat_n(Load::default(), self.links.expected())).collect();
        let more = share(&loads, |asked| work.ask(leases.held(asked)));
        taking.iter_mut().zip(more).for_each(|(stream, batches)| stream.ask(batches));
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Opened(stream) => self.opened(stream),
            News::Said(stream, Response::Batch(batch)) => self.take(stream, batch),
            News::Said(_, Response::Recorded(recorded)) => {
                stale::<W>(recorded.stale.len());
                self.leases.recorded(recorded.report_id);
            }
            News::Said(_, Response::Kept(kept)) => {
                if let Some((_, early)) = self.early.remove(&kept.token) {
                    early.send_replace(Some(kept.is_kept));
                }
            }
            News::Said(stream, Response::GoAway(go_away)) => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    let (replica, reason) = (stream.replica, go_away.reason);
                    tracing::info!(%replica, reason, "the queue sends this worker away");
                    stream.sent_away = true;
                }
            }
            News::Broke(stream, status) => self.broke(stream, &status),
            News::Away(replica, status) => {
                self.links.expect(replica, false);
                if self.streams.is_empty() {
                    self.need.missing(status.message());
                }
            }
        }
    }

    /// What nobody could tell meanwhile, the new stream tells.
    fn opened(&mut self, stream: Stream) {
        self.need.met();
        self.links.expect(stream.replica, false);
        let streams = &self.streams;
        stream.tell(self.leases.adopt(stream.id, |id| !streams.contains_key(&id), Instant::now()));
        self.streams.insert(stream.id, stream);
    }

    /// Another stream tells what this one was told and has not been answered.
    fn broke(&mut self, id: StreamId, status: &Status) {
        self.early.retain(|_, (stream, _)| *stream != id);
        let Some(stream) = self.streams.remove(&id) else { return };
        self.links.expect(stream.replica, stream.comes_back());
        let (replica, open) = (stream.replica, self.leases.batches_of(id));
        tracing::warn!(%replica, reason = status.message(), open, "the stream to the queue broke");
        // A report that the queue cannot read would break every stream.
        if status.code() == Code::InvalidArgument {
            let items = self.leases.forget_unrecorded(id);
            tracing::error!(
                items,
                "the queue refuses what was reported; it falls due again when its lease ends"
            );
        }
        match self.heir().and_then(|heir| self.streams.get(&heir)) {
            Some(heir) => heir.tell(self.leases.adopt(heir.id, |of| of == id, Instant::now())),
            None => self.need.missing(status.message()),
        }
    }

    /// Who tells what has no stream of its own.
    fn heir(&self) -> Option<StreamId> {
        self.streams.values().min_by_key(|s| (s.is_leaving(), s.id)).map(|stream| stream.id)
    }

    /// Has a batch begun, or gives it back.
    fn take(&mut self, id: StreamId, batch: Batch) {
        let (by, leaving) = match self.streams.get_mut(&id) {
            Some(stream) => {
                stream.asked = stream.asked.saturating_sub(1);
                (id, stream.is_leaving())
            }
            // It was under way when the stream was ended.
            None => (self.heir().unwrap_or(id), true),
        };
        let lease = batch.lease.map(period).unwrap_or_default();
        let end = self.leases.begin(by, batch.token.clone(), batch.items.len(), lease, Instant::now());
        let early = batch.early.then(|| {
            let (early, kept) = watch::channel(None);
            self.early.insert(batch.token.clone(), (id, early));
            Kept(kept)
        });
        let batch = leased::Batch::new(batch, end, self.end.clone(), early);
        if leaving || self.shutdown.is_cancelled() {
            drop(batch);
        } else {
            self.work.begin(batch);
        }
    }

    fn tell(&mut self, ended: &mut Vec<Ended>) {
        let Some(otherwise) = self.heir() else { return };
        for (stream, told) in self.leases.end(ended.drain(..), otherwise) {
            if let Some(stream) = self.streams.get(&stream) {
                stream.tell(told);
            }
        }
    }

    fn extend(&mut self) {
        for (stream, extend) in self.leases.extend(Instant::now()) {
            if let Some(stream) = self.streams.get(&stream) {
                stream.send(Request::Extend(extend));
            }
        }
    }
}

/// The queue did not take some outcomes.
fn stale<W: Work>(items: usize) {
    if items > 0 {
        metrics::counter!(W::STALE).increment(items as u64);
        tracing::warn!(items, "outcomes came after their lease had ended");
    }
}

/// What the queue's logs call this worker.
fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}
