//! A fleet under load, to which harm is done.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::Internet;
use posthorn_e2e::account::{Blow, Found, Leases, account};
use posthorn_e2e::fleet::{Fleet, REPLICAS, Service};
use posthorn_e2e::leftovers::{COLLECT_AT_ONCE, no_work_is_left, nothing_is_orphaned};
use posthorn_e2e::load::{Load, Pace, Sent};
use posthorn_testkit::proxy::Proxy;
use posthorn_testkit::smtp_server::{At, Rule, Script, SmtpServer};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

/// Messages that must be accepted after a blow before the next one.
const BETWEEN_BLOWS: usize = 25;
/// The longest that it may take until they are.
const RECOVERY: Duration = Duration::from_secs(90);
/// The longest that anything may be on its way once no more comes in.
const LATEST: Duration = Duration::from_secs(60);

pub(crate) struct Storm {
    pub(crate) fleet: Fleet,
    pub(crate) load: Load,
    pub(crate) random: StdRng,
    /// The server of `remote.test`.
    pub(crate) server: SmtpServer,
    /// Between the relay and that server.
    pub(crate) to_server: Proxy,
    pub(crate) internet: Internet,
    started: Instant,
    blows: Vec<Blow>,
}

/// What a storm begins with.
pub(crate) struct Setup {
    /// Where Postgres keeps its files, if not beside the rest.
    pub(crate) postgres: Option<PathBuf>,
    /// Settings, as `queue.lease.length=3s`.
    pub(crate) set: &'static [&'static str],
    pub(crate) pace: Pace,
    /// What the server of `remote.test` does.
    pub(crate) server: Script,
}

impl Default for Setup {
    fn default() -> Self {
        let pace = Pace { pause: Duration::from_millis(60), large: 30 };
        Self { postgres: None, set: &[], pace, server: usual() }
    }
}

/// What the server of `remote.test` does when it is well.
pub(crate) fn usual() -> Script {
    Script::named("mx.remote.test")
        .rule(Rule::at(At::Rcpt).containing("<nobody@").replies("550 5.1.1 no such user"))
}

/// The same, but it puts so many recipients off at first.
pub(crate) fn busy(times: usize) -> Script {
    usual().rule(Rule::at(At::Rcpt).containing("<dave@").first(times).replies("450 4.3.2 busy"))
}

/// `POSTHORN_CHAOS_SEED`, or a new one; it is printed.
pub(crate) fn random() -> Result<StdRng> {
    let seed = match std::env::var("POSTHORN_CHAOS_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::rng().random_range(0..1_000_000),
    };
    println!("POSTHORN_CHAOS_SEED={seed}");
    Ok(StdRng::seed_from_u64(seed))
}

impl Storm {
    /// Starts everything as usual, and lets mail flow in peace for a moment.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup) -> Result<Self> {
        let (started, random) = (Instant::now(), random()?);
        let internet = Internet::start().await?;
        // Nothing is remembered for so long that trouble of the DNS would not be felt.
        internet.dns.ttl(1);
        let (server, to_server) = internet.domain_behind_proxy("remote.test", |_| setup.server).await?;
        let fleet = Fleet::start(&internet, setup.postgres.as_deref(), setup.set).await?;
        let load = Load::start(fleet.api(), 5, 1, setup.pace);
        load.accepts(BETWEEN_BLOWS, RECOVERY).await;
        Ok(Self { fleet, load, random, server, to_server, internet, started, blows: Vec::new() })
    }

    /// Does harm at a random instant, and waits until mail flows as before; how many were accepted while it was done.
    pub(crate) async fn blow(
        &mut self,
        name: &str,
        leases: Leases,
        harm: impl AsyncFnOnce(&mut Self) -> Result<()>,
    ) -> Result<usize> {
        let instant = self.random.random_range(0..1000);
        sleep(Duration::from_millis(instant)).await;
        let (from, before) = (Instant::now(), self.load.accepted());
        harm(self).await?;
        let (to, meanwhile) = (Instant::now(), self.load.accepted() - before);
        self.blows.push(Blow { name: name.to_owned(), from, to, leases });
        self.fleet.all_ready(RECOVERY).await;
        self.load.accepts(BETWEEN_BLOWS, RECOVERY).await;
        println!(
            "{name}: {:.1} s, {meanwhile} accepted meanwhile, {BETWEEN_BLOWS} more {:.1} s after it",
            (to - from).as_secs_f64(),
            to.elapsed().as_secs_f64()
        );
        Ok(meanwhile)
    }

    /// Some replica of a service.
    pub(crate) fn any(&mut self) -> usize {
        self.random.random_range(0..REPLICAS)
    }

    /// Stops the load, waits until all is done, and accounts for every message, in mailboxes, elsewhere, and in the
    /// stores; all that were sent.
    pub(crate) async fn finish(mut self) -> Result<Vec<Sent>> {
        let sent = self.load.stop().await?;
        let ended = Instant::now();
        self.fleet.api().wait_until_empty(LATEST).await;
        println!("{} messages; the queue was empty {:.1} s later", sent.len(), ended.elapsed().as_secs_f64());
        let found = Found::collect(self.fleet.api(), &self.server).await?;
        account(&sent, &found, self.fleet.api(), &self.blows).await?;
        ensure!(sent.iter().any(|message| message.answer.is_accepted()), "nothing was accepted");
        no_work_is_left(&self.fleet.redis()).await;
        for number in 0..REPLICAS {
            let replica = self.fleet.replica(Service::LocalDelivery, number);
            replica.stop().await?;
            replica.set.extend(COLLECT_AT_ONCE.map(str::to_owned));
            replica.start()?;
        }
        nothing_is_orphaned(&self.fleet.database()).await?;
        println!("the spool and Redis are empty, and no content is orphaned or lost");
        println!("it took {:.0} s", self.started.elapsed().as_secs_f64());
        Ok(sent)
    }
}
