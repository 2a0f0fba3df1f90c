//! What is measured: Posthorn, or one of its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc;

use crate::case::Case;
use crate::postfix::Postfix;
use crate::posthorn::Posthorn;
use crate::proc::{self, Cpu, Memory};
use crate::source::Door;

/// An arrival in a mailbox: the message's number, and when it was seen.
pub(crate) type Arrival = (u64, Instant);

/// A running server.
#[derive(Debug)]
pub(crate) enum Server {
    Posthorn(Posthorn),
    Postfix(Postfix),
}

/// Nothing in a measurement may take longer.
const PATIENCE: Duration = Duration::from_secs(600);

impl Server {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Posthorn(_) => "posthorn",
            Self::Postfix(postfix) if postfix.has_dovecot() => "dovecot",
            Self::Postfix(_) => "postfix",
        }
    }

    /// Whether it is not ours.
    pub(crate) fn is_peer(&self) -> bool {
        !matches!(self, Self::Posthorn(_))
    }

    /// Whether this case is for it.
    pub(crate) fn has(&self, case: Case) -> bool {
        match (self, case) {
            (Self::Posthorn(_), _) => true,
            (Self::Postfix(_), Case::Submit) => false,
            // Before mailboxes both are the same.
            (Self::Postfix(postfix), Case::Accepted | Case::Relayed) => !postfix.has_dovecot(),
            (Self::Postfix(_), _) => true,
        }
    }

    /// The CPU time of all its processes since it was started.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        self.sum(proc::cpu)
    }

    /// The memory of all its processes now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        self.sum(proc::memory)
    }

    fn sum<T: Default + AddAssign>(
        &self,
        used: impl Fn(u32) -> Result<BTreeMap<String, T>>,
    ) -> Result<BTreeMap<String, T>> {
        let roots = match self {
            Self::Posthorn(posthorn) => vec![posthorn.root()],
            Self::Postfix(postfix) => postfix.roots(),
        };
        let mut sum = BTreeMap::<String, T>::new();
        for root in roots {
            for (process, used) in used(root)? {
                *sum.entry(process).or_default() += used;
            }
        }
        Ok(sum)
    }

    /// Where messages are handed in that are delivered at once.
    pub(crate) fn open_door(&self) -> Door {
        match self {
            Self::Posthorn(posthorn) => Door::Smtp(vec![posthorn.smtp()]),
            Self::Postfix(postfix) => Door::Smtp(vec![postfix.smtp()]),
        }
    }

    /// Where messages are handed in that are kept and not delivered. A Posthorn must have been started for it, and
    /// delivers nothing any more from then on.
    pub(crate) fn held_door(&self) -> SocketAddr {
        match self {
            Self::Posthorn(posthorn) => {
                posthorn.hold();
                posthorn.smtp()
            }
            Self::Postfix(postfix) => postfix.held(),
        }
    }

    /// How many messages these mailboxes hold, together.
    pub(crate) async fn delivered(&self, mailboxes: &[String]) -> Result<u64> {
        match self {
            Self::Posthorn(posthorn) => posthorn.delivered(mailboxes).await,
            Self::Postfix(postfix) => Ok(postfix.delivered(mailboxes)),
        }
    }

    /// Whether something of a message is still owed.
    async fn owes(&self) -> Result<bool> {
        match self {
            Self::Posthorn(posthorn) => posthorn.owes().await,
            Self::Postfix(postfix) => Ok(postfix.owed() > 0),
        }
    }

    /// Waits until nothing is owed.
    pub(crate) async fn finished(&self) -> Result<()> {
        until("an empty queue", async || Ok(!self.owes().await?)).await
    }

    /// Throws away what waits.
    pub(crate) async fn discard(&self) -> Result<()> {
        match self {
            Self::Posthorn(posthorn) => posthorn.discard().await,
            Self::Postfix(postfix) => postfix.discard().await,
        }
    }

    /// The arrivals in a mailbox from now on.
    pub(crate) async fn watch(&self, mailbox: &str) -> Result<mpsc::UnboundedReceiver<Arrival>> {
        match self {
            Self::Posthorn(posthorn) => posthorn.watch(mailbox).await,
            Self::Postfix(postfix) => postfix.watch(mailbox),
        }
    }

    /// Waits until it has written down what it was told, and rests.
    pub(crate) async fn settle(&self) -> Result<()> {
        tokio::task::spawn_blocking(rustix::fs::sync).await?;
        let used = || anyhow::Ok(self.cpu()?.values().sum::<f64>());
        let mut before = used()?;
        // Postgres' cleaning up after much that was written may take that long.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = used()?;
            // A twentieth of a processor: what an idle server uses now and then. It need not ever be so quiet.
            if now - before < 0.025 || Instant::now() > deadline {
                return Ok(());
            }
            before = now;
        }
    }
}

/// Asks every few milliseconds until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await? {
        if Instant::now() > deadline {
            bail!("gave up waiting for {what} after {PATIENCE:?}");
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    Ok(())
}
