//! What is kept of the directory in memory, what does not exist too.
//!
//! Postgres tells every router of every change ([`crate::listen`]); what changed is forgotten. Two races are closed
//! here. A look-up that was under way while its key changed may hold the old state: it notes the generation before it
//! asks and keeps its answer only if nothing was forgotten since. And while the connection that tells of changes is
//! down, nothing is kept, and what was kept is believed for a moment only. Others who keep what was said
//! ([`crate::watchers`]) have no such moment: they are told at once.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache as Moka;
use posthorn_mail::Domain;
use tokio::sync::watch;

use crate::config;
use crate::directory::keys;
use crate::known::{Entry, MailboxName, OurDomain, StaticRoute};

/// `None` is known not to exist.
type Kept<T> = Option<Arc<T>>;

#[derive(Debug)]
pub(crate) struct Cache {
    domains: Moka<Domain, Kept<OurDomain>>,
    mailboxes: Moka<MailboxName, Kept<Entry>>,
    routes: Moka<Domain, Kept<StaticRoute>>,
    keys: Moka<[u8; 32], Kept<keys::Row>>,
    /// How many times something was to be forgotten.
    generation: AtomicU64,
    /// How many times something has been forgotten.
    forgotten: watch::Sender<u64>,
    start: Instant,
    /// Milliseconds after `start` until which what is kept is believed; 0: not at all.
    believed_until: AtomicU64,
    grace: Duration,
}

/// What changed, as Postgres tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Domain(Domain),
    Mailbox(MailboxName),
    Routes,
    Keys,
    /// Anything: what was told is not known.
    All,
}

impl Change {
    /// Reads the payload of a notification.
    pub(crate) fn parse(payload: &str) -> Self {
        let change = match payload.split_once(' ') {
            Some(("domain", name)) => name.parse().ok().map(Self::Domain),
            Some(("address", address)) => address.rsplit_once('@').and_then(|(local, domain)| {
                Some(Self::Mailbox(MailboxName { local: local.into(), domain: domain.parse().ok()? }))
            }),
            None if payload == "routes" => Some(Self::Routes),
            None if payload == "keys" => Some(Self::Keys),
            _ => None,
        };
        change.unwrap_or(Self::All)
    }
}

/// The moment at which a look-up began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Began(u64);

impl Cache {
    /// An empty cache, which believes nothing until [`Cache::connected`].
    pub(crate) fn new(config: &config::Cache) -> Self {
        // An alias or a list weighs as many entries as it has targets.
        let mailboxes = Moka::builder().max_capacity(config.entries).weigher(|_, entry: &Kept<Entry>| {
            let targets = match entry.as_deref() {
                None | Some(Entry::Account { .. }) => 0,
                Some(Entry::Alias { targets }) => targets.len(),
                Some(Entry::List { members, .. }) => members.len(),
            };
            u32::try_from(targets).unwrap_or(u32::MAX).saturating_add(1)
        });
        Self {
            domains: Moka::new(config.entries),
            mailboxes: mailboxes.build(),
            routes: Moka::new(config.entries),
            keys: Moka::new(config.entries),
            generation: AtomicU64::new(0),
            forgotten: watch::Sender::new(0),
            start: Instant::now(),
            believed_until: AtomicU64::new(0),
            grace: config.grace,
        }
    }

    /// To be called before the directory is asked for something that is to be kept.
    pub(crate) fn begin(&self) -> Began {
        Began(self.generation.load(Ordering::SeqCst))
    }

    /// Changes are being told from now on; what was kept before may be old.
    pub(crate) fn connected(&self) {
        self.forget(&Change::All);
        self.believed_until.store(u64::MAX, Ordering::SeqCst);
    }

    /// Changes are not told any more.
    pub(crate) fn disconnected(&self) {
        if self.is_told() {
            self.believed_until.store(self.millis() + millis(self.grace), Ordering::SeqCst);
            self.tell();
        }
    }

    /// Whether changes are being told.
    pub(crate) fn is_told(&self) -> bool {
        self.believed_until.load(Ordering::SeqCst) == u64::MAX
    }

    /// How many times something has been forgotten: for those who keep what was said out of this cache.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.forgotten.subscribe()
    }

    /// Drops what a change made old; how many times that has been done.
    pub(crate) fn forget(&self, change: &Change) -> u64 {
        self.generation.fetch_add(1, Ordering::SeqCst);
        match change {
            Change::Domain(name) => self.domains.invalidate(name),
            Change::Mailbox(name) => self.mailboxes.invalidate(name),
            Change::Routes => self.routes.invalidate_all(),
            Change::Keys => self.keys.invalidate_all(),
            Change::All => {
                self.domains.invalidate_all();
                self.mailboxes.invalidate_all();
                self.routes.invalidate_all();
                self.keys.invalidate_all();
            }
        }
        // Only now: whoever is told may ask again at once.
        self.tell()
    }

    fn tell(&self) -> u64 {
        let mut now = 0;
        self.forgotten.send_modify(|times| {
            *times += 1;
            now = *times;
        });
        now
    }

    pub(crate) fn domain(&self, name: &Domain) -> Option<Kept<OurDomain>> {
        self.get(&self.domains, name)
    }

    pub(crate) fn keep_domain(&self, began: Began, name: Domain, domain: Kept<OurDomain>) {
        self.keep(&self.domains, began, name, domain);
    }

    pub(crate) fn mailbox(&self, name: &MailboxName) -> Option<Kept<Entry>> {
        self.get(&self.mailboxes, name)
    }

    pub(crate) fn keep_mailbox(&self, began: Began, name: MailboxName, entry: Kept<Entry>) {
        self.keep(&self.mailboxes, began, name, entry);
    }

    pub(crate) fn route(&self, name: &Domain) -> Option<Kept<StaticRoute>> {
        self.get(&self.routes, name)
    }

    pub(crate) fn keep_route(&self, began: Began, name: Domain, route: Kept<StaticRoute>) {
        self.keep(&self.routes, began, name, route);
    }

    pub(crate) fn key(&self, hash: &[u8; 32]) -> Option<Kept<keys::Row>> {
        self.get(&self.keys, hash)
    }

    pub(crate) fn keep_key(&self, began: Began, hash: [u8; 32], key: Kept<keys::Row>) {
        self.keep(&self.keys, began, hash, key);
    }

    fn get<K, T>(&self, cache: &Moka<K, Kept<T>>, key: &K) -> Option<Kept<T>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        if self.millis() >= self.believed_until.load(Ordering::SeqCst) {
            return None;
        }
        cache.get(key)
    }

    fn keep<K, T>(&self, cache: &Moka<K, Kept<T>>, began: Began, key: K, value: Kept<T>)
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        T: Send + Sync + 'static,
    {
        if !self.is_told() || self.begin().0 != began.0 {
            return;
        }
        cache.insert(key.clone(), value);
        // Either the change comes after this look at the generation, and forgets what was inserted; or it is seen here.
        if self.begin().0 != began.0 {
            cache.invalidate(&key);
        }
    }

    fn millis(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(grace: Duration) -> Cache {
        let second = Duration::from_secs(1);
        Cache::new(&config::Cache {
            entries: 100,
            grace,
            heartbeat: second,
            keys: second,
            recipients: second,
        })
    }

    fn name() -> Domain {
        "example.test".parse().unwrap()
    }

    #[test]
    fn payloads_say_what_changed() {
        for (payload, change) in [
            ("domain example.test", Change::Domain(name())),
            ("address alice@example.test", Change::Mailbox(MailboxName::new("alice", &name()))),
            ("address a@b@example.test", Change::Mailbox(MailboxName::new("a@b", &name()))),
            ("routes", Change::Routes),
            ("keys", Change::Keys),
            ("", Change::All),
            ("something new", Change::All),
        ] {
            assert_eq!(Change::parse(payload), change, "{payload}");
        }
    }

    #[test]
    fn what_is_not_there_is_kept_until_it_changes() {
        let cache = cache(Duration::from_secs(1));
        cache.connected();
        cache.keep_domain(cache.begin(), name(), None);
        assert_eq!(cache.domain(&name()), Some(None));
        cache.forget(&Change::Domain(name()));
        assert_eq!(cache.domain(&name()), None);
    }

    #[test]
    fn an_answer_older_than_a_change_is_not_kept() {
        let cache = cache(Duration::from_secs(1));
        cache.connected();
        let began = cache.begin();
        cache.forget(&Change::Routes);
        cache.keep_domain(began, name(), None);
        assert_eq!(cache.domain(&name()), None);
    }

    #[test]
    fn nothing_is_believed_for_long_without_the_listener() {
        let cache = cache(Duration::ZERO);
        cache.keep_domain(cache.begin(), name(), None);
        assert_eq!(cache.domain(&name()), None, "never connected");
        cache.connected();
        cache.keep_domain(cache.begin(), name(), None);
        cache.disconnected();
        assert_eq!(cache.domain(&name()), None, "the grace is over");
        cache.connected();
        assert_eq!(cache.domain(&name()), None, "it may have changed in between");
    }
}
