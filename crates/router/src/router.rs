//! The router's answers: look-ups in the cache, the directory and the DNS around the pure decision.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use posthorn_database::limited;
use posthorn_mail::{Address, Domain, Host, ReversePath, Status};
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::Config;
use crate::cache::{Cache, Change};
use crate::decide::{Acceptance, Policy, Step, Target, accept, decide};
use crate::directory::{self, Error, keys, lookup};
use crate::dns::{Destination, Dns};
use crate::known::{DestinationAnswer, Entry, Key, MailboxName, OurDomain, Snapshot, StaticRoute};
use crate::refusal;
use crate::secret;
use crate::watchers::Watchers;

/// How many keys one statement asks for.
const KEYS_A_STATEMENT: usize = 2_000;

/// How many domains of one message are asked for at once.
const DOMAINS_A_MESSAGE: usize = 64;

/// To how many addresses all recipients of a message may come at once; those beyond are put off.
const TARGETS_A_MESSAGE: usize = 50_000;

/// Everything that the router's services and its worker share.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) pool: PgPool,
    pub(crate) cache: Arc<Cache>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) policy: Policy,
    /// How long the directory may take.
    patience: Duration,
    dns: Dns,
    /// What the DNS came to a moment ago, so that a burst of messages for one domain asks once.
    recent: moka::future::Cache<Domain, DestinationAnswer>,
}

/// A recipient to decide about.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The sender of this recipient's copy.
    pub(crate) sender: ReversePath,
    pub(crate) recipient: Address,
}

/// The servers for a domain, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    Servers(Destination),
    /// The domain is ours.
    Local,
    Refused(Status),
}

/// The decision for one recipient and what was looked at on the way, in order.
#[derive(Debug)]
pub(crate) struct Explanation {
    pub(crate) steps: Vec<String>,
    pub(crate) targets: Vec<Target>,
}

impl Router {
    pub(crate) fn new(pool: PgPool, cache: Arc<Cache>, dns: Dns, policy: Policy, config: &Config) -> Self {
        let recent = moka::future::Cache::builder()
            .max_capacity(config.dns.cache_entries)
            .expire_after(Recent { trouble: config.dns.trouble });
        let patience = config.database.patience();
        Self { pool, cache, watchers: Arc::default(), policy, patience, dns, recent: recent.build() }
    }

    /// Forgets what a change made old, here and where answers are kept.
    pub(crate) async fn change(&self, change: &Change) {
        self.watchers.confirm(self.cache.forget(change)).await;
    }

    /// Decides for each recipient of a message, in their order. What one of them needs is looked up together with what
    /// the others need.
    pub(crate) async fn decide(&self, asked: &[Asked]) -> Result<Vec<Vec<Target>>, Error> {
        let mut known = Snapshot::default();
        let mut decided: Vec<Option<Vec<Target>>> = vec![None; asked.len()];
        let mut targets = 0;
        loop {
            let mut needed = Vec::new();
            for (asked, decided) in asked.iter().zip(&mut decided).filter(|(_, d)| d.is_none()) {
                match decide(&asked.recipient, &asked.sender, &known, &self.policy) {
                    Step::Need(keys) => needed.extend(keys),
                    Step::Done(done) if targets > 0 && targets + done.len() > TARGETS_A_MESSAGE => {
                        *decided = Some(vec![Target::refused(&asked.recipient, refusal::too_many_at_once())]);
                    }
                    Step::Done(done) => {
                        targets += done.len();
                        *decided = Some(done);
                    }
                }
            }
            if needed.is_empty() {
                return Ok(decided.into_iter().flatten().collect());
            }
            self.look_up(needed, &mut known).await?;
        }
    }

    /// Looks up what the decisions about these recipients begin with, for all of them together, so that it is in the
    /// cache.
    pub(crate) async fn warm(&self, asked: &[Asked]) -> Result<(), Error> {
        let recipients: Vec<Address> = asked.iter().map(|asked| asked.recipient.clone()).collect();
        self.accept(&recipients).await.map(drop)
    }

    /// The same for one recipient, keeping what was looked at.
    pub(crate) async fn explain(
        &self,
        sender: &ReversePath,
        recipient: &Address,
    ) -> Result<Explanation, Error> {
        let mut known = Snapshot::default();
        let mut steps = Vec::new();
        loop {
            match decide(recipient, sender, &known, &self.policy) {
                Step::Done(targets) => return Ok(Explanation { steps, targets }),
                Step::Need(keys) => {
                    self.look_up(keys.clone(), &mut known).await?;
                    steps.extend(keys.iter().map(|key| known.describe(key)));
                }
            }
        }
    }

    /// Whether mail for these recipients may be taken, in their order; the DNS is not asked.
    pub(crate) async fn accept(&self, recipients: &[Address]) -> Result<Vec<Acceptance>, Error> {
        let mut known = Snapshot::default();
        loop {
            let (mut accepted, mut needed) = (Vec::with_capacity(recipients.len()), Vec::new());
            for recipient in recipients {
                match accept(recipient, &known, &self.policy) {
                    Ok(acceptance) => accepted.push(acceptance),
                    Err(keys) => needed.extend(keys),
                }
            }
            if needed.is_empty() {
                return Ok(accepted);
            }
            self.look_up(needed, &mut known).await?;
        }
    }

    /// The servers for what stands after the `@`, as of now.
    pub(crate) async fn destination(&self, host: &Host) -> Result<Resolved, Error> {
        let domain = match host {
            Host::Literal(ip) => return Ok(resolved(self.dns.literal(*ip))),
            Host::Name(domain) => domain,
        };
        let mut known = Snapshot::default();
        self.look_up(vec![Key::Domain(domain.clone()), Key::Route(domain.clone())], &mut known).await?;
        if matches!(known.domains.get(domain), Some(Some(_))) {
            return Ok(Resolved::Local);
        }
        Ok(resolved(match known.routes.get(domain) {
            Some(Some(route)) => self.dns.route(route).await,
            _ => self.dns.destination(domain).await,
        }))
    }

    /// What an address of ours is, if it is anything.
    pub(crate) async fn mailbox(
        &self,
        name: &MailboxName,
    ) -> Result<Option<(Arc<OurDomain>, Arc<Entry>)>, Error> {
        let mut known = Snapshot::default();
        let keys = vec![Key::Domain(name.domain.clone()), Key::Mailbox(name.clone())];
        self.look_up(keys, &mut known).await?;
        let domain = known.domains.remove(&name.domain).flatten();
        let entry = known.mailboxes.remove(name).flatten();
        Ok(domain.zip(entry))
    }

    /// The API key with this secret, unless it has expired.
    pub(crate) async fn key(&self, secret: &str) -> Result<Option<Arc<keys::Row>>, Error> {
        let hash = secret::hash(secret);
        let key = match self.cache.key(&hash) {
            Some(kept) => kept,
            None => {
                let began = self.cache.begin();
                let key = self.asked(keys::by_secret(&self.pool, &hash)).await?.map(Arc::new);
                self.cache.keep_key(began, hash, key.clone());
                key
            }
        };
        let now = OffsetDateTime::now_utc();
        Ok(key.filter(|key| key.expires_at.is_none_or(|at| at > now)))
    }

    /// Looks keys up and adds what was found, or that nothing was.
    async fn look_up(&self, mut keys: Vec<Key>, known: &mut Snapshot) -> Result<(), Error> {
        // Recipients of one message need the same keys.
        keys.sort_unstable();
        keys.dedup();
        let (mut domains, mut mailboxes, mut routes, mut destinations) = (vec![], vec![], vec![], vec![]);
        for key in keys {
            match key {
                Key::Domain(name) => match self.cache.domain(&name) {
                    Some(kept) => drop(known.domains.insert(name, kept)),
                    None => domains.push(name),
                },
                Key::Mailbox(name) => match self.cache.mailbox(&name) {
                    Some(kept) => drop(known.mailboxes.insert(name, kept)),
                    None => mailboxes.push(name),
                },
                Key::Route(name) => match self.cache.route(&name) {
                    Some(kept) => drop(known.routes.insert(name, kept)),
                    None => routes.push(name),
                },
                Key::Destination(name) => destinations.push(name),
            }
        }
        let missed = domains.len() + mailboxes.len() + routes.len();
        metrics::counter!("posthorn_router_cache_misses_total").increment(missed as u64);
        let (domains, mailboxes, routes, destinations) = futures::try_join!(
            self.domains(domains),
            self.mailboxes(mailboxes),
            self.routes(routes),
            self.destinations(destinations),
        )?;
        known.domains.extend(domains);
        known.mailboxes.extend(mailboxes);
        known.routes.extend(routes);
        known.destinations.extend(destinations);
        Ok(())
    }

    /// Whether the directory answers.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        self.asked(directory::ping(&self.pool)).await
    }

    /// What the directory says, if it says it in time.
    async fn asked<T>(&self, look: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        limited(self.patience, async { Ok(look.await) }).await?
    }

    async fn domains(&self, names: Vec<Domain>) -> Result<Found<Domain, OurDomain>, Error> {
        let began = self.cache.begin();
        let mut all = HashMap::with_capacity(names.len());
        for names in names.chunks(KEYS_A_STATEMENT) {
            add(&mut all, names, self.asked(lookup::domains(&self.pool, names)).await?);
        }
        for (name, domain) in &all {
            self.cache.keep_domain(began, name.clone(), domain.clone());
        }
        Ok(all)
    }

    async fn mailboxes(&self, names: Vec<MailboxName>) -> Result<Found<MailboxName, Entry>, Error> {
        let began = self.cache.begin();
        let mut all = HashMap::with_capacity(names.len());
        for names in names.chunks(KEYS_A_STATEMENT) {
            add(&mut all, names, self.asked(lookup::mailboxes(&self.pool, names)).await?);
        }
        for (name, entry) in &all {
            self.cache.keep_mailbox(began, name.clone(), entry.clone());
        }
        Ok(all)
    }

    async fn routes(&self, names: Vec<Domain>) -> Result<Found<Domain, StaticRoute>, Error> {
        let began = self.cache.begin();
        let mut all = HashMap::with_capacity(names.len());
        for names in names.chunks(KEYS_A_STATEMENT) {
            add(&mut all, names, self.asked(lookup::routes(&self.pool, names)).await?);
        }
        for (name, route) in &all {
            self.cache.keep_route(began, name.clone(), route.clone());
        }
        Ok(all)
    }

    async fn destinations(&self, names: Vec<Domain>) -> Result<HashMap<Domain, DestinationAnswer>, Error> {
        let asked = names.into_iter().map(|name| self.named_destination(name));
        // Boxed: the compiler cannot see through the borrowing futures that the whole is Send.
        Ok(futures::stream::iter(asked).buffer_unordered(DOMAINS_A_MESSAGE).boxed().collect().await)
    }

    async fn named_destination(&self, name: Domain) -> (Domain, DestinationAnswer) {
        let ask = async { self.dns.destination(&name).await.map(|destination| destination.name) };
        let answer = self.recent.get_with(name.clone(), ask).await;
        (name, answer)
    }
}

/// How long what the DNS came to is kept here; its records are kept by the resolver, for as long as their TTL says.
#[derive(Debug)]
struct Recent {
    /// For an answer that was none (RFC 2308 §7).
    trouble: Duration,
}

impl moka::Expiry<Domain, DestinationAnswer> for Recent {
    fn expire_after_create(&self, _: &Domain, answer: &DestinationAnswer, _: Instant) -> Option<Duration> {
        match answer {
            Err(status) if status.is_transient() => Some(self.trouble),
            Ok(_) | Err(_) => Some(Duration::from_secs(1)),
        }
    }
}

fn resolved(answer: Result<Destination, Status>) -> Resolved {
    answer.map_or_else(Resolved::Refused, Resolved::Servers)
}

/// What many keys were found to be; `None` is nothing.
type Found<K, T> = HashMap<K, Option<Arc<T>>>;

/// Adds what one statement found, and that it found nothing for the other keys.
fn add<K: Hash + Eq + Clone, T>(all: &mut Found<K, T>, keys: &[K], mut found: HashMap<K, Arc<T>>) {
    all.extend(keys.iter().map(|key| (key.clone(), found.remove(key))));
}
