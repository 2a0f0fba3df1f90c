//! Messages in hand: led from the door through the router into the mailboxes without being written down in between.
//!
//! A message that is being taken in goes to a router while it is written down; what the router says counts once it is
//! (R1). It is in the ledger as owed then, and its recipients stay `Fresh` there until they have ended. As long as all
//! goes the plain way, as nearly all local mail does, this process holds the rest in memory: who is working on it, and
//! what the router said. That saves a transaction, two reads and the schedule's work for each message. Should this process
//! die, what it had in hand is found overdue and missing in the schedule, and is routed anew; no mailbox takes it twice
//! (R4). What stays in hand longer than a moment is made known to the schedule: it is due at the end of a lease. What does
//! not go the plain way leaves the hand and goes by the ledger. No I/O here.

mod letter;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use posthorn_api::work::v1::Item as WorkItem;
use posthorn_mail::MessageId;
use tokio::sync::watch;

use crate::load::work_item;
use crate::schedule::{Item, Kind, Lane, Token};

pub(crate) use letter::{Kept, Letter, Next};

/// What a worker is given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) token: Token,
    pub(crate) items: Vec<WorkItem>,
    /// It is one message that is not in the ledger yet: this tells when it is.
    pub(crate) early: Option<Kept>,
}

/// The messages in hand.
#[derive(Debug)]
pub(crate) struct InHand {
    hands: Mutex<Hands>,
    /// Told when something waits for a worker, by kind.
    news: [watch::Sender<()>; 2],
    most: usize,
    lease: Duration,
}

#[derive(Debug, Default)]
struct Hands {
    /// The streams of workers, by kind.
    workers: [usize; 2],
    waiting: [VecDeque<Letter>; 2],
    given: HashMap<(Token, MessageId), Letter>,
    closed: bool,
}

/// What is longer in hand than this is made known to the schedule, within as long again.
const MOMENT: Duration = Duration::from_secs(1);

/// As long as this, a message may be in the hand of a living process that the schedule does not know of.
pub(crate) const UNKNOWN: Duration = Duration::from_secs(3);

/// What is for more recipients than this is not given early: so many mailboxes are locked until it is kept.
const MOST_EARLY: usize = 1000;

/// What waits longer than this for a worker goes by the schedule.
const PATIENCE: Duration = Duration::from_secs(2);

fn place_of(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Route => Some(0),
        Kind::Local => Some(1),
        Kind::Remote => None,
    }
}

impl InHand {
    /// At most so many messages, each given to a worker for the length of a lease.
    pub(crate) fn new(most: usize, lease: Duration) -> Self {
        let news = std::array::from_fn(|_| watch::Sender::new(()));
        Self { hands: Mutex::default(), news, most, lease }
    }

    /// Sees from now on when something waits for workers of a kind; for remote work, never.
    pub(crate) fn watch(&self, kind: Kind) -> Option<watch::Receiver<()>> {
        place_of(kind).map(|place| self.news[place].subscribe())
    }

    /// A worker's stream begins, until what is returned is dropped.
    pub(crate) fn present(&self, kind: Kind) -> Option<Present<'_>> {
        let place = place_of(kind)?;
        self.lock().workers[place] += 1;
        Some(Present { in_hand: self, place })
    }

    /// Whether nothing is in hand.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().len() == 0
    }

    /// How many more messages may be taken in hand: none where there are no workers here to lead them all the way.
    pub(crate) fn room(&self) -> usize {
        let hands = self.lock();
        if hands.closed || hands.workers.contains(&0) {
            return 0;
        }
        self.most.saturating_sub(hands.len())
    }

    /// These wait for a worker of a kind. Returns those for which it is too late: they are to go by the schedule.
    pub(crate) fn put(&self, kind: Kind, letters: Vec<Letter>, now: Instant) -> Vec<Item> {
        let mut hands = self.lock();
        let Some(place) = place_of(kind).filter(|_| !hands.closed) else {
            return letters.iter().map(Letter::item).collect();
        };
        let some = !letters.is_empty();
        hands.waiting[place].extend(letters.into_iter().map(|letter| Letter { time: now, ..letter }));
        drop(hands);
        if some {
            self.news[place].send_replace(());
        }
        Vec::new()
    }

    /// Whether a message is given under this token.
    pub(crate) fn has(&self, token: Token, message: MessageId) -> bool {
        self.lock().given.contains_key(&(token, message))
    }

    /// What is on its way to the mailboxes may have come into the ledger: then it is to be given.
    pub(crate) fn tell_of_kept(&self) {
        if let Some(place) = place_of(Kind::Local) {
            self.news[place].send_replace(());
        }
    }

    /// Gives a worker what waits for its kind, at most so much, under a new token. On the way to the mailboxes what is not
    /// in the ledger yet waits; but if it is all that is in hand, and not for too many, it is given to one who takes it: more
    /// would wait for each other's commits while they hold mailboxes locked.
    pub(crate) fn give(
        &self,
        kind: Kind,
        worker: u64,
        takes_early: bool,
        most: u32,
        now: Instant,
    ) -> Option<Given> {
        let place = place_of(kind)?;
        let mut hands = self.lock();
        let may_go = |letter: &Letter| kind == Kind::Route || letter.is_kept();
        let waiting = &hands.waiting[place];
        let (from, count, early) = match waiting.iter().position(may_go) {
            Some(from) => {
                let run = waiting.iter().skip(from).take(most as usize).take_while(|letter| may_go(letter));
                (from, run.count(), None)
            }
            None => {
                let alone = takes_early && hands.len() == 1;
                let letter =
                    waiting.front().filter(|letter| alone && letter.recipients.len() <= MOST_EARLY)?;
                (0, 1, Some(letter.kept.clone()))
            }
        };
        let token = Token::in_hand(kind, if kind == Kind::Route { Lane::ROUTE } else { Lane::LOCAL });
        let mut letters: Vec<Letter> = hands.waiting[place].drain(from..from + count).collect();
        let work = letters.iter_mut().map(|letter| {
            let header = std::mem::take(&mut letter.header);
            let item = work_item(&letter.message, letter.recipients.iter().cloned());
            if early.is_some() { WorkItem { header, ..item } } else { item }
        });
        let work = work.collect();
        for letter in letters {
            let letter = Letter { worker, time: now + self.lease, ..letter };
            hands.given.insert((token, letter.message.id), letter);
        }
        Some(Given { token, items: work, early })
    }

    /// What a worker reports on or gives back, each if it is here under that token and its lease has not ended.
    pub(crate) fn take_back(
        &self,
        reported: impl Iterator<Item = (Token, MessageId)>,
        now: Instant,
    ) -> Vec<Option<Letter>> {
        let mut hands = self.lock();
        if hands.given.is_empty() {
            return reported.map(|_| None).collect();
        }
        reported.map(|key| hands.given.remove(&key).filter(|letter| letter.time > now)).collect()
    }

    /// Waits until these, as far as they are here under these tokens, are in the ledger, or are not going to be.
    pub(crate) async fn until_kept(&self, named: impl Iterator<Item = (Token, MessageId)>) {
        let waiting: Vec<Kept> = {
            let hands = self.lock();
            let kept = named.filter_map(|key| Some(&hands.given.get(&key)?.kept));
            kept.filter(|kept| !*kept.borrow()).cloned().collect()
        };
        for mut kept in waiting {
            // An error: it was dropped, and they are not.
            let _ = kept.wait_for(|kept| *kept).await;
        }
    }

    /// These were not taken in: they are forgotten, wherever they are.
    pub(crate) fn forget(&self, ids: &HashSet<MessageId>) {
        if ids.is_empty() {
            return;
        }
        let mut hands = self.lock();
        hands.given.retain(|(_, id), _| !ids.contains(id));
        for waiting in &mut hands.waiting {
            waiting.retain(|letter| !ids.contains(&letter.message.id));
        }
    }

    /// A worker is still at a batch: its messages here, which now are leased for longer.
    pub(crate) fn renew(&self, token: Token, now: Instant) -> Vec<Item> {
        let mut hands = self.lock();
        let of_token = hands.given.iter_mut().filter(|((of, _), letter)| *of == token && letter.time > now);
        of_token
            .map(|(_, letter)| {
                letter.time = now + self.lease;
                letter.item()
            })
            .collect()
    }

    /// A worker has gone: what it had.
    pub(crate) fn orphans(&self, worker: u64) -> Vec<Item> {
        let mut orphans = Vec::new();
        self.lock().given.retain(|_, letter| {
            let its_own = letter.worker == worker;
            if its_own {
                orphans.push(letter.item());
            }
            !its_own
        });
        orphans
    }

    /// What has waited for a worker too long. What was given and has not been reported is due in the schedule by now,
    /// and is forgotten here.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<Item> {
        let mut hands = self.lock();
        hands.given.retain(|_, letter| letter.time > now);
        let Some(before) = now.checked_sub(PATIENCE) else { return Vec::new() };
        let mut late = Vec::new();
        for waiting in &mut hands.waiting {
            let count = waiting.iter().take_while(|letter| letter.time < before).count();
            late.extend(waiting.drain(..count).map(|letter| letter.item()));
        }
        metrics::gauge!("posthorn_queue_in_hand").set(hands.len() as f64);
        late
    }

    /// What has been in hand for more than a moment, and the schedule does not know of: now it is told. Where it is not
    /// in the ledger yet, nothing is found there when it is due.
    pub(crate) fn lasting(&self, now: Instant) -> Vec<Item> {
        now.checked_sub(MOMENT).map_or_else(Vec::new, |before| self.lock().tell_since(before))
    }

    /// Nothing more is taken in hand. All that waits for a worker; and of what workers have, what the schedule does not
    /// know of, which now is told.
    pub(crate) fn close(&self, now: Instant) -> (Vec<Item>, Vec<Item>) {
        let mut hands = self.lock();
        hands.closed = true;
        let waiting = hands.waiting.iter_mut().flat_map(std::mem::take).map(|letter| letter.item()).collect();
        (waiting, hands.tell_since(now))
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hands {
    fn len(&self) -> usize {
        self.given.len() + self.waiting.iter().map(VecDeque::len).sum::<usize>()
    }

    /// What was in hand by then, and the schedule has not been told of.
    fn tell_since(&mut self, before: Instant) -> Vec<Item> {
        let all = self.given.values_mut().chain(self.waiting.iter_mut().flatten());
        let untold = all.filter(|letter| letter.since <= before && !letter.is_scheduled);
        untold
            .map(|letter| {
                letter.is_scheduled = true;
                letter.item()
            })
            .collect()
    }
}

/// A worker's stream, as long as it lasts.
pub(crate) struct Present<'a> {
    in_hand: &'a InHand,
    place: usize,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.in_hand.lock().workers[self.place] -= 1;
    }
}

#[cfg(test)]
mod tests;
