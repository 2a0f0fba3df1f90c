//! Messages that a worker has while they are written down: what it says counts once they are (R1).

use std::collections::HashSet;
use std::time::Instant;

use bytes::Bytes;
use posthorn_mail::MessageId;
use tokio::sync::watch;

use super::store::{Stored, new_message};
use super::{Content, Incoming, fresh_item};
use crate::hub::Hub;
use crate::in_hand::Letter;
use crate::schedule::{Item, Kind};

/// The largest header section that goes along with an early message.
const MOST_HEADER: usize = 16 << 10;

/// The messages of a transaction that were taken in hand before it. Dropped, those of which it is not known that they
/// are kept are forgotten.
pub(super) struct Ahead<'a> {
    hub: &'a Hub,
    ids: HashSet<MessageId>,
    kept: watch::Sender<bool>,
    /// Some wait for local-delivery already.
    some_routed: bool,
}

impl<'a> Ahead<'a> {
    /// Takes new messages in hand, as many as may be.
    pub(super) fn take(hub: &'a Hub, incoming: &[Incoming]) -> Self {
        let (kept, known) = watch::channel(false);
        let now = hub.now();
        let may_be_early = incoming.len() == 1 && hub.in_hand.is_empty();
        let letter = |incoming: &Incoming| {
            let new = new_message(&hub.config, incoming, now);
            let mut letter = Letter::new(new.message, new.recipients, known.clone(), Instant::now());
            letter.take_along(incoming.routed.clone(), now);
            if may_be_early && let Content::Here(content) = &incoming.content {
                letter.header = header_of(content);
            }
            letter
        };
        let plain = incoming.iter().filter(|incoming| incoming.is_plain());
        let letters: Vec<Letter> = plain.take(hub.in_hand.room()).map(letter).collect();
        let mut ids: HashSet<MessageId> = letters.iter().map(|letter| letter.message.id).collect();
        let (routed, fresh): (Vec<_>, _) = letters.into_iter().partition(|letter| letter.routed.is_some());
        let some_routed = !routed.is_empty();
        for (kind, letters) in [(Kind::Local, routed), (Kind::Route, fresh)] {
            for too_late in hub.in_hand.put(kind, letters, Instant::now()) {
                ids.remove(&too_late.key.message);
            }
        }
        Self { hub, ids, kept, some_routed }
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
        if self.some_routed {
            hub.in_hand.tell_of_kept();
        }
        left.extend(hub.in_hand.put(Kind::Route, letters, Instant::now()));
        left
    }
}

/// The header section of a message, if it ends soon.
fn header_of(content: &Bytes) -> Bytes {
    let start = &content[..content.len().min(MOST_HEADER)];
    let end = start.windows(4).position(|octets| octets == b"\r\n\r\n");
    end.map_or_else(Bytes::new, |end| content.slice(..end + 4))
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.hub.in_hand.forget(&self.ids);
    }
}
