//! The leases that this process has given out and that have no outcome yet: what is still known when Redis has forgotten
//! it. No I/O here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::schedule::{Item, Key, Token};

/// Leases by their tokens. One that was neither renewed nor settled in its time is forgotten a while after.
#[derive(Debug)]
pub(crate) struct Leases {
    known: Mutex<HashMap<Token, Lease>>,
    /// How long a lease is remembered after it was given or renewed.
    keep: Duration,
}

#[derive(Debug)]
struct Lease {
    items: Vec<Item>,
    until: Instant,
}

impl Leases {
    /// None yet, of leases of this length. A late outcome counts as long as nobody else has the item: twice as long each
    /// is remembered.
    pub(crate) fn new(length: Duration) -> Self {
        Self { known: Mutex::default(), keep: length * 2 }
    }

    /// Items are leased; what nobody renewed or settled in time is forgotten.
    pub(crate) fn insert(&self, token: Token, items: Vec<Item>, now: Instant) {
        let mut known = self.lock();
        known.retain(|_, lease| lease.until > now);
        known.insert(token, Lease { items, until: now + self.keep });
    }

    /// A lease is renewed.
    pub(crate) fn renew(&self, token: Token, now: Instant) {
        if let Some(lease) = self.lock().get_mut(&token) {
            lease.until = now + self.keep;
        }
    }

    /// Whether the item is leased by that token.
    pub(crate) fn knows(&self, token: Token, key: Key, now: Instant) -> bool {
        let known = self.lock();
        known.get(&token).is_some_and(|l| l.until > now && l.items.iter().any(|item| item.key == key))
    }

    /// Its outcomes are there, or others have it.
    pub(crate) fn settle(&self, settled: &[(Token, Key)]) {
        let mut known = self.lock();
        for (token, key) in settled {
            if let Some(lease) = known.get_mut(token) {
                lease.items.retain(|item| item.key != *key);
                if lease.items.is_empty() {
                    known.remove(token);
                }
            }
        }
    }

    /// Leaves those of the tokens whose batches miss outcomes.
    pub(crate) fn retain(&self, tokens: &mut Vec<Token>) {
        let known = self.lock();
        tokens.retain(|token| known.contains_key(token));
    }

    /// All that are remembered, the newest last given first: of two for one item the one that counts.
    pub(crate) fn all(&self, now: Instant) -> Vec<(Token, Vec<Item>)> {
        let known = self.lock();
        let mut all: Vec<_> = known.iter().filter(|(_, lease)| lease.until > now).collect();
        all.sort_unstable_by_key(|(_, lease)| std::cmp::Reverse(lease.until));
        all.into_iter().map(|(token, lease)| (*token, lease.items.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, Lease>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use posthorn_mail::MessageId;

    use super::*;
    use crate::schedule::{Flow, Kind, Lane};

    const MINUTE: Duration = Duration::from_secs(60);

    fn item() -> Item {
        let key = Key { message: MessageId::generate(), lane: Lane::LOCAL };
        Item { key, flow: Flow::of("", "a@x") }
    }

    #[test]
    fn a_lease_is_known_until_it_is_settled_or_forgotten() {
        let (leases, now) = (Leases::new(MINUTE), Instant::now());
        let (first, second) = (item(), item());
        let token = Token::in_hand(Kind::Local, Lane::LOCAL);
        leases.insert(token, vec![first, second], now);
        assert!(leases.knows(token, first.key, now + MINUTE));
        assert!(!leases.knows(token, first.key, now + 2 * MINUTE));
        leases.renew(token, now + MINUTE);
        assert!(leases.knows(token, first.key, now + 2 * MINUTE));
        leases.settle(&[(token, first.key)]);
        assert!(!leases.knows(token, first.key, now) && leases.knows(token, second.key, now));
        let mut tokens = vec![token];
        leases.settle(&[(token, second.key)]);
        leases.retain(&mut tokens);
        assert_eq!(tokens, []);
    }

    #[test]
    fn the_newest_comes_first_and_the_dead_are_gone() {
        let (leases, now) = (Leases::new(MINUTE), Instant::now());
        let [dead, old, new] = [0; 3].map(|_| Token::in_hand(Kind::Local, Lane::LOCAL));
        leases.insert(dead, vec![item()], now);
        leases.insert(old, vec![item()], now + MINUTE);
        leases.insert(new, vec![item()], now + 2 * MINUTE);
        let all: Vec<Token> = leases.all(now + 2 * MINUTE).into_iter().map(|(token, _)| token).collect();
        assert_eq!(all, [new, old]);
    }
}
