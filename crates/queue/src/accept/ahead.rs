//! Messages that a router has while they are written down: what it says counts once they are (R1).

use std::collections::HashSet;
use std::time::Instant;

use posthorn_mail::MessageId;
use tokio::sync::watch;

use super::store::{Stored, new_message};
use super::{Incoming, fresh_item};
use crate::hub::Hub;
use crate::in_hand::Letter;
use crate::schedule::{Item, Kind};

/// The messages of a transaction that were taken in hand before it. Dropped, those of which it is not known that they
/// are kept are forgotten.
pub(super) struct Ahead<'a> {
    hub: &'a Hub,
    ids: HashSet<MessageId>,
    kept: watch::Sender<bool>,
}

impl<'a> Ahead<'a> {
    /// Takes new messages in hand, as many as may be.
    pub(super) fn take(hub: &'a Hub, incoming: &[Incoming]) -> Self {
        let (kept, known) = watch::channel(false);
        let now = hub.now();
        let letter = |incoming: &Incoming| {
            let new = new_message(&hub.config, incoming, now);
            Letter::new(new.message, new.recipients, known.clone(), Instant::now())
        };
        let plain = incoming.iter().filter(|incoming| incoming.is_plain());
        let letters: Vec<Letter> = plain.take(hub.in_hand.room()).map(letter).collect();
        let mut ids: HashSet<MessageId> = letters.iter().map(|letter| letter.message.id).collect();
        for too_late in hub.in_hand.put(Kind::Route, letters, Instant::now()) {
            ids.remove(&too_late.key.message);
        }
        Self { hub, ids, kept }
    }

    /// These are in the ledger, and no others of them. Takes what is new and not in hand in hand, as much as may be;
    /// returns what is left, and what was there already: it goes by the schedule.
    pub(super) fn kept(mut self, stored: Vec<Stored>) -> Vec<Item> {
        let hub = self.hub;
        let (mut letters, mut left) = (Vec::new(), Vec::new());
        let mut room = hub.in_hand.room();
        for Stored { new, is_new } in stored {
            if is_new && self.ids.remove(&new.message.id) {
                continue;
            }
            if is_new && room > 0 {
                room -= 1;
                let known = watch::channel(true).1;
                letters.push(Letter::new(new.message, new.recipients, known, Instant::now()));
            } else {
                left.push(fresh_item(&new.message));
            }
        }
        hub.in_hand.forget(&std::mem::take(&mut self.ids));
        self.kept.send_replace(true);
        left.extend(hub.in_hand.put(Kind::Route, letters, Instant::now()));
        left
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.hub.in_hand.forget(&self.ids);
    }
}
