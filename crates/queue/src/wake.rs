//! New work wakes those who wait for it, on whichever replica it arrived (R7): nothing polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::schedule::{Kind, Schedule};

/// Tells of new work, here and on other replicas; cheap to clone.
#[derive(Clone)]
pub(crate) struct Wake(Arc<Inner>);

struct Inner {
    kinds: [watch::Sender<()>; 3],
    /// Kinds that the other replicas have not been told of yet, a bit each.
    untold: AtomicU8,
    told: Notify,
    /// Names this replica, so that it does not listen to itself.
    me: [u8; 8],
}

impl Wake {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            kinds: std::array::from_fn(|_| watch::Sender::new(())),
            untold: AtomicU8::new(0),
            told: Notify::new(),
            me: rand::random::<u64>().to_be_bytes(),
        }))
    }

    /// Sees every wake from now on.
    pub(crate) fn watch(&self, kind: Kind) -> watch::Receiver<()> {
        self.0.kinds[kind as usize].subscribe()
    }

    /// There is new work of a kind.
    pub(crate) fn wake(&self, kind: Kind) {
        self.wake_here(kind);
        self.0.untold.fetch_or(1 << kind as u8, Ordering::Relaxed);
        self.0.told.notify_one();
    }

    fn wake_here(&self, kind: Kind) {
        self.0.kinds[kind as usize].send_replace(());
    }

    /// Tells other replicas and listens to them, until told to stop.
    pub(crate) async fn run(&self, schedule: &Schedule, shutdown: &CancellationToken) {
        tokio::select! {
            () = self.speak(schedule) => {}
            () = self.listen(schedule) => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// What came up while the last message was on its way goes into the next.
    async fn speak(&self, schedule: &Schedule) {
        loop {
            self.0.told.notified().await;
            let kinds = self.0.untold.swap(0, Ordering::Relaxed);
            let mut message = self.0.me.to_vec();
            message.push(kinds);
            // Without Redis there is nothing to wake for: the others look by themselves when it is back.
            let _ = schedule.publish(&message).await;
        }
    }

    async fn listen(&self, schedule: &Schedule) {
        loop {
            if let Ok(mut subscription) = schedule.client().get_async_pubsub().await
                && subscription.subscribe(schedule.channel()).await.is_ok()
            {
                // What was said before the subscription was not heard.
                Kind::ALL.into_iter().for_each(|kind| self.wake_here(kind));
                let mut messages = subscription.on_message();
                while let Some(message) = messages.next().await {
                    self.hear(message.get_payload_bytes());
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn hear(&self, message: &[u8]) {
        if let Some((kinds, from)) = message.split_last()
            && from != self.0.me
        {
            for kind in Kind::ALL {
                if kinds & (1 << kind as u8) != 0 {
                    self.wake_here(kind);
                }
            }
        }
    }
}
