//! Which lanes a worker would be given something of.

use std::collections::HashSet;

use redis::RedisResult;
use time::OffsetDateTime;

use super::scripts::millis;
use super::{Kind, Lane, PROMOTED_A_CALL, Schedule};

impl Schedule {
    /// The lanes in which something is due for whoever asks: none that is held back, that has as many batches under way
    /// as it may, or of which all is leased.
    pub(crate) async fn open_lanes(&self, kind: Kind, now: OffsetDateTime) -> RedisResult<Vec<Lane>> {
        let now = millis(now);
        let mut open = HashSet::new();
        for partition in self.partitions() {
            let mut commands = redis::pipe();
            let ready = commands.cmd("ZRANGEBYSCORE").arg(self.keys.of(kind, partition, "lanes"));
            ready.arg("-inf").arg(now);
            // What has come due since a worker last asked.
            let due = commands.cmd("ZRANGEBYSCORE").arg(self.keys.of(kind, partition, "due"));
            due.arg("-inf").arg(now).arg("LIMIT").arg(0).arg(PROMOTED_A_CALL);
            let (lanes, due): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
                commands.query_async(&mut self.connection.clone()).await?;
            let due = due.iter().filter_map(|member| member.get(16..24));
            let lanes = lanes.iter().map(Vec::as_slice).chain(due);
            open.extend(lanes.filter_map(|lane| lane.try_into().ok()).map(Lane));
        }
        Ok(open.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use posthorn_mail::MessageId;

    use super::*;
    use crate::schedule::tests::filled;
    use crate::schedule::{Add, Ask, Flow, Item, Key, Learn, Leasing};

    const KIND: Kind = Kind::Remote;

    fn item(destination: &str) -> Item {
        let key = Key { message: MessageId::generate(), lane: Lane::remote(destination) };
        Item { key, flow: Flow::of("", "a@example.net") }
    }

    async fn lease(schedule: &Schedule, now: OffsetDateTime) -> Leasing {
        let ask = Ask { now, until: now + Duration::from_secs(60), most: 1, concurrency: 1 };
        schedule.lease(KIND, 0, &ask).await.expect("Redis answers")
    }

    #[tokio::test]
    async fn a_lane_is_open_while_a_worker_would_be_given_something_of_it() {
        let (schedule, _redis) = filled(KIND).await;
        let (now, minute) = (OffsetDateTime::now_utc(), Duration::from_secs(60));
        let open = async |at| schedule.open_lanes(KIND, at).await.expect("Redis answers");
        let (slow, other) = (Lane::remote("slow"), Lane::remote("other"));

        let items = [(item("slow"), now), (item("slow"), now), (item("other"), now + minute)];
        schedule.add(KIND, Add::Sooner, &items, now).await.expect("Redis answers");
        assert_eq!(open(now).await, [slow], "nobody takes it");
        assert!(matches!(lease(&schedule, now).await, Leasing::Batch(_)));
        assert!(matches!(lease(&schedule, now).await, Leasing::Nothing(_)));
        assert_eq!(open(now).await, [], "as many batches are under way as may be, and the other is not due");
        let later = now + minute + Duration::from_millis(1);
        assert!(open(later).await.contains(&other), "it has come due, and nobody has asked since");

        let until = later + minute;
        let learn = Learn::Unavailable { concurrency: 1, until };
        schedule.learn(slow, learn, later).await.expect("Redis answers");
        assert!(matches!(lease(&schedule, later).await, Leasing::Batch(_)), "the other");
        assert!(matches!(lease(&schedule, later).await, Leasing::Nothing(_)));
        assert_eq!(open(later).await, [], "it is held back, and all of the other is leased");
        assert!(open(until).await.contains(&slow), "it is held back no longer");
    }
}
