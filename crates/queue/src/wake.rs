//! New work wakes those who wait for it, on whichever replica it arrived (R7): nothing polls. What watchers want to see
//! goes the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use posthorn_api::trace::v1::Event;
use prost::Message as _;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::hub::Hub;
use crate::schedule::{Kind, Schedule};
use crate::trace::{Record, Watchers};

/// Events that may wait to be told to other replicas; more are lost to their watchers, not to the trace.
const EVENTS: usize = 4096;
/// How often a replica with watchers says so, and how long the others believe it.
const SAY_EVERY: Duration = Duration::from_secs(10);
const BELIEVE: Duration = Duration::from_secs(30);
/// How long a subscription over which nothing comes is believed in.
const SILENCE: Duration = Duration::from_secs(15);

/// What replicas say to each other: who says it (8 bytes), which of these, and what.
const WORK: u8 = 1;
const WATCHING: u8 = 2;
const EVENT: u8 = 3;
/// Nothing but that the channel works.
const BEAT: u8 = 4;

/// Tells of new work and events, here and on other replicas; cheap to clone.
#[derive(Clone)]
pub(crate) struct Wake(Arc<Inner>);

struct Inner {
    kinds: [watch::Sender<()>; 3],
    /// Kinds that the other replicas have not been told of yet, a bit each.
    untold: AtomicU8,
    told: Notify,
    /// Kinds that are to be woken here once the others have been told.
    untold_here: AtomicU8,
    /// Names this replica, so that it does not listen to itself.
    me: [u8; 8],
    watchers: Watchers,
    /// Somebody has begun to watch here.
    watching: Notify,
    /// By kind: workers that wait for work of it stand in line, so that each has its turn.
    turns: [Mutex<()>; 3],
    /// Until when there are other replicas, as far as is known, in milliseconds since `start`.
    others_until: AtomicU64,
    /// Until when another replica has watchers, in milliseconds since `start`.
    watched_until: AtomicU64,
    start: Instant,
    events: mpsc::Sender<Event>,
    /// Taken by the task that tells them.
    events_out: std::sync::Mutex<Option<mpsc::Receiver<Event>>>,
}

/// Tells other replicas and listens to them, and keeps the clock, until there is nothing more to tell of.
pub(crate) async fn run(hub: Arc<Hub>, written: CancellationToken) {
    let (wake, schedule) = (&hub.wake, &hub.schedule);
    tokio::select! {
        () = wake.speak(schedule) => {}
        () = wake.say_watching(schedule) => {}
        () = wake.speak_events(schedule) => {}
        () = wake.listen(schedule) => {}
        () = wake.beat(schedule, &hub.clock) => {}
        () = written.cancelled() => {}
    }
    wake.speak_of_work(schedule).await;
}

impl Wake {
    pub(crate) fn new(watchers: Watchers) -> Self {
        let (events, events_out) = mpsc::channel(EVENTS);
        Self(Arc::new(Inner {
            kinds: std::array::from_fn(|_| watch::Sender::new(())),
            untold: AtomicU8::new(0),
            told: Notify::new(),
            untold_here: AtomicU8::new(0),
            turns: Default::default(),
            others_until: AtomicU64::new(0),
            me: rand::random::<u64>().to_be_bytes(),
            watchers,
            watching: Notify::new(),
            watched_until: AtomicU64::new(0),
            start: Instant::now(),
            events,
            events_out: std::sync::Mutex::new(Some(events_out)),
        }))
    }

    /// Sees every wake from now on.
    pub(crate) fn watch(&self, kind: Kind) -> watch::Receiver<()> {
        self.0.kinds[kind as usize].subscribe()
    }

    /// The line of those who wait for work of a kind. Not for remote work: it comes in many small batches, each of which
    /// would be waited for, and it goes to who has connections free.
    pub(crate) fn turn(&self, kind: Kind) -> Option<&Mutex<()>> {
        (kind != Kind::Remote).then(|| &self.0.turns[kind as usize])
    }

    /// There is new work of a kind. Where there are other replicas, all hear of it at once: the workers of this one
    /// would else be first each time, and do nearly all.
    pub(crate) fn wake(&self, kind: Kind) {
        if self.is_ahead(&self.0.others_until) {
            self.0.untold_here.fetch_or(1 << kind as u8, Ordering::Relaxed);
        } else {
            self.wake_here(kind);
        }
        self.wake_others(kind);
    }

    /// There is work of a kind that this replica cannot give out now.
    pub(crate) fn wake_others(&self, kind: Kind) {
        self.0.untold.fetch_or(1 << kind as u8, Ordering::Relaxed);
        self.0.told.notify_one();
    }

    /// Somebody watches events here.
    pub(crate) fn watching(&self) {
        self.0.watching.notify_one();
    }

    /// Whether somebody watches, here or on another replica.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watchers.any() || self.is_watched_elsewhere()
    }

    fn is_watched_elsewhere(&self) -> bool {
        self.is_ahead(&self.0.watched_until)
    }

    /// Something has happened; costs next to nothing while nobody watches anywhere.
    pub(crate) fn tell(&self, records: &[Record]) {
        self.0.watchers.tell(records);
        if self.is_watched_elsewhere() {
            for event in records.iter().flat_map(Record::named) {
                let _ = self.0.events.try_send(event);
            }
        }
    }

    fn wake_here(&self, kind: Kind) {
        self.0.kinds[kind as usize].send_replace(());
    }

    fn is_ahead(&self, until: &AtomicU64) -> bool {
        until.load(Ordering::Relaxed) > self.0.start.elapsed().as_millis() as u64
    }

    fn believe(&self, until: &AtomicU64) {
        let end = self.0.start.elapsed() + BELIEVE;
        until.store(end.as_millis() as u64, Ordering::Relaxed);
    }

    fn wake_those(&self, kinds: u8) {
        let told = Kind::ALL.into_iter().filter(|kind| kinds & (1 << *kind as u8) != 0);
        told.for_each(|kind| self.wake_here(kind));
    }

    /// What came up while the last message was on its way goes into the next.
    async fn speak(&self, schedule: &Schedule) {
        loop {
            self.0.told.notified().await;
            self.speak_of_work(schedule).await;
        }
    }

    async fn speak_of_work(&self, schedule: &Schedule) {
        let kinds = self.0.untold.swap(0, Ordering::Relaxed);
        if kinds != 0 {
            self.say(schedule, WORK, &[kinds]).await;
        }
        self.wake_those(self.0.untold_here.swap(0, Ordering::Relaxed));
    }

    async fn say_watching(&self, schedule: &Schedule) {
        loop {
            if self.0.watchers.any() {
                self.say(schedule, WATCHING, &[]).await;
                let _ = tokio::time::timeout(SAY_EVERY, self.0.watching.notified()).await;
            } else {
                self.0.watching.notified().await;
            }
        }
    }

    async fn speak_events(&self, schedule: &Schedule) {
        let events = self.0.events_out.lock().ok().and_then(|mut events| events.take());
        let Some(mut events) = events else { return std::future::pending().await };
        while let Some(event) = events.recv().await {
            self.say(schedule, EVENT, &event.encode_to_vec()).await;
        }
    }

    /// Without Redis there is nothing to wake for: the others look by themselves when it is back.
    async fn say(&self, schedule: &Schedule, what: u8, text: &[u8]) {
        let _ = schedule.publish(&[&self.0.me, &[what][..], text].concat()).await;
    }

    async fn beat(&self, schedule: &Schedule, clock: &Clock) {
        loop {
            if let Ok(time) = schedule.time().await {
                clock.set(time);
            }
            tokio::time::sleep(SILENCE / 3).await;
            self.say(schedule, BEAT, &[]).await;
        }
    }

    async fn listen(&self, schedule: &Schedule) {
        loop {
            if let Ok(mut subscription) = schedule.listen().await {
                // What was said before the subscription was not heard.
                Kind::ALL.into_iter().for_each(|kind| self.wake_here(kind));
                self.0.watching.notify_one();
                let mut messages = subscription.on_message();
                // It hears itself, too: a connection over which nothing comes is none, whatever TCP says.
                while let Ok(Some(message)) = tokio::time::timeout(SILENCE, messages.next()).await {
                    self.hear(message.get_payload_bytes());
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn hear(&self, message: &[u8]) {
        let Some((from, [what, text @ ..])) = message.split_first_chunk::<8>() else { return };
        if *from == self.0.me {
            return;
        }
        self.believe(&self.0.others_until);
        match (*what, text) {
            (WORK, [kinds]) => self.wake_those(*kinds),
            (WATCHING, _) => self.believe(&self.0.watched_until),
            (EVENT, event) => {
                if let Ok(event) = Event::decode(event) {
                    self.0.watchers.tell_one(event);
                }
            }
            // A word of a newer neighbour.
            _ => {}
        }
    }
}
