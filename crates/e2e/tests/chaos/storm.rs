//! A fleet under load, to which harm is done.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::Internet;
use posthorn_e2e::account::{Blow, Found, account};
use posthorn_e2e::fleet::{Fleet, REPLICAS, Service};
use posthorn_e2e::load::{Load, Pace};
use posthorn_testkit::proxy::Proxy;
use posthorn_testkit::smtp_server::{At, Rule, Script, SmtpServer};
use posthorn_testkit::{stores, wait};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

/// Messages that must be accepted after a blow before the next one.
const BETWEEN_BLOWS: usize = 25;
/// The longest that it may take until they are.
const RECOVERY: Duration = Duration::from_secs(90);

pub(crate) struct Storm {
    pub(crate) fleet: Fleet,
    pub(crate) load: Load,
    pub(crate) random: StdRng,
    /// The server of `remote.test`.
    pub(crate) server: SmtpServer,
    /// Between the relay and that server.
    pub(crate) to_server: Proxy,
    blows: Vec<Blow>,
    _internet: Internet,
}

/// What the server of `remote.test` does when it is well.
pub(crate) fn usual() -> Script {
    Script::named("mx.remote.test")
        .rule(Rule::at(At::Rcpt).containing("<nobody@").replies("550 5.1.1 no such user"))
}

impl Storm {
    /// Starts everything, and lets mail flow in peace for a moment.
    pub(crate) async fn start(postgres: Option<&Path>) -> Result<Self> {
        let seed = match std::env::var("POSTHORN_CHAOS_SEED") {
            Ok(seed) => seed.parse()?,
            Err(_) => rand::rng().random_range(0..1_000_000),
        };
        println!("POSTHORN_CHAOS_SEED={seed}");
        let internet = Internet::start().await?;
        let (server, to_server) = internet.domain_behind_proxy("remote.test", |_| usual()).await?;
        let fleet = Fleet::start(&internet, postgres, &[]).await?;
        let pace = Pace { pause: Duration::from_millis(60), large: 30 };
        let load = Load::start(fleet.api(), 5, 1, pace);
        load.accepts(BETWEEN_BLOWS, RECOVERY).await;
        let random = StdRng::seed_from_u64(seed);
        Ok(Self { fleet, load, random, server, to_server, blows: Vec::new(), _internet: internet })
    }

    /// Does harm at a random instant, and waits until mail flows as before.
    pub(crate) async fn blow(
        &mut self,
        name: &str,
        harm: impl AsyncFnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let instant = self.random.random_range(0..1000);
        sleep(Duration::from_millis(instant)).await;
        let (from, before) = (Instant::now(), self.load.accepted());
        harm(self).await?;
        let (harmed, meanwhile) = (from.elapsed(), self.load.accepted() - before);
        self.fleet.all_ready(RECOVERY).await;
        self.load.accepts(BETWEEN_BLOWS, RECOVERY).await;
        let to = Instant::now();
        println!(
            "{name}: {:.1} s, {meanwhile} accepted meanwhile, {BETWEEN_BLOWS} more {:.1} s after it",
            harmed.as_secs_f64(),
            (to - from - harmed).as_secs_f64()
        );
        self.blows.push(Blow { name: name.to_owned(), from, to });
        Ok(())
    }

    /// Some replica of a service.
    pub(crate) fn any(&mut self) -> usize {
        self.random.random_range(0..REPLICAS)
    }

    /// Stops the load, waits until all is done, and accounts for every message, in mailboxes, elsewhere, and in the
    /// stores.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let sent = self.load.stop().await?;
        let ended = Instant::now();
        self.fleet.api().wait_until_empty(Duration::from_secs(180)).await;
        println!("{} messages; the queue was empty {:.1} s later", sent.len(), ended.elapsed().as_secs_f64());
        let found = Found::collect(self.fleet.api(), &self.server).await?;
        account(&sent, &found, self.fleet.api(), &self.blows).await?;
        ensure!(sent.iter().any(|message| message.answer.is_accepted()), "nothing was accepted");
        no_work_is_left(&self.fleet).await;
        nothing_is_orphaned(&mut self.fleet).await
    }
}

async fn no_work_is_left(fleet: &Fleet) {
    wait::until("a Redis without items", Duration::from_secs(60), async || {
        let keys = stores::keys(&fleet.redis()).await.ok()?;
        // Items are in these; what else there is says how lanes were served, or expires.
        let holds_items = |key: &&String| {
            let of_a_lane = [":ready:", ":flows:", ":slots:"].iter().any(|part| key.contains(part));
            of_a_lane || [":due", ":lease", ":again"].iter().any(|end| key.ends_with(end))
        };
        (!keys.iter().any(|key| holds_items(&key))).then_some(())
    })
    .await;
}

/// Lets the collector run at once, and looks for content that nothing refers to.
async fn nothing_is_orphaned(fleet: &mut Fleet) -> Result<()> {
    for number in 0..REPLICAS {
        let replica = fleet.replica(Service::LocalDelivery, number);
        replica.stop().await?;
        replica.set.extend(
            ["mailbox.append_timeout=500ms", "collect.grace=1s", "collect.every=1s"]
                .map(|setting| format!("local_delivery.{setting}")),
        );
        replica.start()?;
    }
    wait::until("content that nothing refers to is gone", Duration::from_secs(90), async || {
        let orphans = "SELECT count(DISTINCT content_id) FROM content.chunk c
             WHERE NOT EXISTS (SELECT FROM mailbox.message m WHERE m.content_id = c.content_id)";
        (stores::numbers(&fleet.database(), orphans).await.ok()? == [0]).then_some(())
    })
    .await;
    println!("the spool and Redis are empty, and no content is orphaned");
    Ok(())
}
