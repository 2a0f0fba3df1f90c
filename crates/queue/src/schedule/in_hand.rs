//! What this process leads by itself: the schedule has it for the case that the process dies.

use redis::RedisResult;
use time::OffsetDateTime;

use super::scripts::millis;
use super::{ITEMS_A_CALL, Item, Kind, Schedule};

impl Schedule {
    /// What this process leads by itself, in hand, is due at the end of a lease, should it die.
    pub(crate) async fn take_in_hand(
        &self,
        kind: Kind,
        items: &[Item],
        until: OffsetDateTime,
    ) -> RedisResult<()> {
        self.set_due("NX", kind, items, until).await
    }

    /// What this process has in hand takes longer; what has been brought forward meanwhile, and leased, is left alone.
    pub(crate) async fn keep_in_hand(
        &self,
        kind: Kind,
        items: &[Item],
        until: OffsetDateTime,
    ) -> RedisResult<()> {
        self.set_due("XX", kind, items, until).await
    }

    async fn set_due(&self, how: &str, kind: Kind, items: &[Item], at: OffsetDateTime) -> RedisResult<()> {
        let at = millis(at);
        for ((kind, partition), items) in self.split(items.iter().map(|item| (kind, item.key, item))) {
            for items in items.chunks(ITEMS_A_CALL) {
                let mut command = redis::cmd("ZADD");
                command.arg(self.keys.of(kind, partition, "due")).arg(how);
                for item in items {
                    command.arg(at).arg(&item.bytes()[..]);
                }
                command.exec_async(&mut self.connection.clone()).await?;
            }
        }
        Ok(())
    }

    /// What this process had in hand is done. Where another has leased it meanwhile, it finds nothing to do.
    pub(crate) async fn done_in_hand(&self, kind: Kind, items: &[Item]) -> RedisResult<()> {
        for (partition, items) in self.split(items.iter().map(|item| (kind, item.key, item))) {
            for items in items.chunks(ITEMS_A_CALL) {
                let mut call = self.call(&self.scripts.done, partition);
                for item in items {
                    call.arg(&item.bytes()[..]);
                }
                let () = call.invoke_async(&mut self.connection.clone()).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthorn_mail::MessageId;

    use super::*;
    use crate::schedule::tests::filled;
    use crate::schedule::{Ask, Flow, Key, Lane, Leased, Leasing, Settle, Then};

    const KIND: Kind = Kind::Route;
    const LEASE: Duration = Duration::from_secs(60);

    async fn lease(schedule: &Schedule, now: OffsetDateTime) -> Option<Leased> {
        let ask = Ask { now, until: now + LEASE, most: 10, concurrency: 0 };
        match schedule.lease(KIND, 0, &ask).await.expect("Redis answers") {
            Leasing::Batch(leased) => Some(leased),
            _ => None,
        }
    }

    /// The queue that leased it never heard Redis' answer, or its worker has died.
    #[tokio::test]
    async fn a_lease_that_nobody_settles_ends_though_the_message_has() {
        let (schedule, _redis) = filled(KIND).await;
        let now = OffsetDateTime::now_utc();
        let key = |message| Key { message, lane: Lane::ROUTE };
        let [leased, alone] =
            [(); 2].map(|()| Item { key: key(MessageId::generate()), flow: Flow::of("", "a@example.net") });
        schedule.take_in_hand(KIND, &[leased], now).await.expect("Redis answers");
        assert_eq!(lease(&schedule, now).await.expect("it is due").items, [(leased, 1)]);
        schedule.take_in_hand(KIND, &[alone], now + LEASE).await.expect("Redis answers");

        schedule.done_in_hand(KIND, &[leased, alone]).await.expect("Redis answers");
        let again = lease(&schedule, now + LEASE).await.expect("the lease has ended");
        assert_eq!(again.items, [(leased, 2)], "and the other is done");
        let end = Settle { key: leased.key, token: again.token, then: Then::Done };
        schedule.settle(&[end], now + LEASE).await.expect("Redis answers");
        assert_eq!(schedule.leased(KIND).await.expect("Redis answers"), 0);
        assert!(lease(&schedule, now + 3 * LEASE).await.is_none());
    }
}
