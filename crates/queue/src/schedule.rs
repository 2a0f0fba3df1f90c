//! The schedule in Redis: what is due when, leased to whom, held back by what. All of it can be made anew from Postgres.
//!
//! One function per script; the scripts are in `schedule/`, the table of keys in the README. Times are arguments.

mod ask;
mod connection;
mod in_hand;
mod item;
mod keys;
mod open;
mod scripts;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use redis::aio::{ConnectionManagerConfig, PubSub};
use redis::{RedisResult, Script, Value};
use time::OffsetDateTime;

pub(crate) use ask::{Add, Ask, Hold, Learn, Leased, Leasing, Settle, Then};
pub(crate) use item::{Flow, Item, Key, Kind, Lane, Token};

use crate::config;
use connection::Connection;
use keys::Keys;
use scripts::{Scripts, malformed, millis, numbers, read_leasing, scripts, time_of};

/// The most items that one script call is given: more would keep Redis from others for long.
const ITEMS_A_CALL: usize = 500;
/// The most items that a lease moves from `due` to the ready ones.
const PROMOTED_A_CALL: usize = 1000;
/// How long a process that fills an empty schedule may be silent before another begins, in milliseconds.
const FILLING: &str = "30000";

/// A connection to Redis that comes back by itself; cheap to clone.
#[derive(Clone)]
pub(crate) struct Schedule {
    connection: Connection,
    client: redis::Client,
    /// How long a command may take.
    timeout: Duration,
    keys: Keys,
    scripts: &'static Scripts,
}

impl Schedule {
    /// Prepares a connection; Redis need not be up yet.
    pub(crate) fn open(config: &config::Redis) -> RedisResult<Self> {
        let client = redis::Client::open(config.url.as_str())?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(Some(config.timeout))
            // Who waits for Redis does so outside and says so.
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_secs(1));
        Ok(Self {
            connection: Connection::open(client.clone(), settings)?,
            client,
            timeout: config.timeout,
            keys: Keys::new(&config.prefix, config.partitions),
            scripts: scripts(),
        })
    }

    /// Hears what replicas are told from now on. It takes no longer than two commands may.
    pub(crate) async fn listen(&self) -> RedisResult<PubSub> {
        let subscribed = async {
            let mut subscription = self.client.get_async_pubsub().await?;
            subscription.subscribe(self.keys.channel()).await?;
            Ok(subscription)
        };
        // The library would wait for an answer for ever, and Redis may be gone without a word.
        let silent = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
        tokio::time::timeout(self.timeout * 2, subscribed).await.unwrap_or_else(silent)
    }

    /// Tells the other replicas something.
    pub(crate) async fn publish(&self, message: &[u8]) -> RedisResult<()> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.channel()).arg(message);
        command.exec_async(&mut self.connection.clone()).await
    }

    /// What time it is for Redis.
    pub(crate) async fn time(&self) -> RedisResult<OffsetDateTime> {
        let (seconds, micros): (i64, i64) =
            redis::cmd("TIME").query_async(&mut self.connection.clone()).await?;
        time_of(seconds * 1000 + micros / 1000).ok_or_else(|| malformed("TIME"))
    }

    /// The partitions of a kind.
    pub(crate) fn partitions(&self) -> std::ops::Range<u16> {
        self.keys.partitions()
    }

    /// Schedules items; returns how many are new or sooner than before.
    pub(crate) async fn add(
        &self,
        kind: Kind,
        how: Add,
        items: &[(Item, OffsetDateTime)],
        now: OffsetDateTime,
    ) -> RedisResult<u64> {
        let how = match how {
            Add::Sooner => "sooner".to_owned(),
            Add::IfAbsent { late } => millis(late).to_string(),
        };
        let mut changed = 0;
        for (partition, items) in self.split(items.iter().map(|item| (kind, item.0.key, item))) {
            for items in items.chunks(ITEMS_A_CALL) {
                let mut call = self.call(&self.scripts.add, partition);
                call.arg(millis(now)).arg(&how);
                for (item, at) in items {
                    call.arg(&item.bytes()[..]).arg(millis(*at));
                }
                changed += call.invoke_async::<u64>(&mut self.connection.clone()).await?;
            }
        }
        Ok(changed)
    }

    /// Leases a batch of a partition.
    pub(crate) async fn lease(&self, kind: Kind, partition: u16, ask: &Ask) -> RedisResult<Leasing> {
        let mut call = self.call(&self.scripts.lease, (kind, partition));
        call.arg(millis(ask.now))
            .arg(millis(ask.until))
            .arg(ask.most)
            .arg(&[kind as u8][..])
            .arg(&item::nonce()[..])
            .arg(ask.concurrency)
            .arg(PROMOTED_A_CALL);
        let answer: Vec<Value> = call.invoke_async(&mut self.connection.clone()).await?;
        read_leasing(&answer).ok_or_else(|| malformed("lease"))
    }

    /// Which leases still hold; those that do are renewed until `until`.
    pub(crate) async fn claim(
        &self,
        leases: &[(Key, Token)],
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> RedisResult<Vec<Hold>> {
        let mut holds = vec![Hold::Unknown; leases.len()];
        let numbered = leases.iter().enumerate();
        for (partition, leases) in self.split(numbered.map(|(at, l)| (l.1.kind(), l.0, (at, l)))) {
            for leases in leases.chunks(ITEMS_A_CALL) {
                let mut call = self.call(&self.scripts.claim, partition);
                call.arg(millis(now)).arg(millis(until));
                for (_, (key, token)) in leases {
                    call.arg(&key.bytes()[..]).arg(&token.bytes()[..]);
                }
                let answer: Vec<u8> = numbers(call.invoke_async(&mut self.connection.clone()).await?);
                for ((at, _), answer) in leases.iter().zip(answer) {
                    holds[*at] = match answer {
                        0 => Hold::Superseded,
                        1 => Hold::Holds,
                        _ => Hold::Unknown,
                    };
                }
            }
        }
        Ok(holds)
    }

    /// Renews a batch; returns how many items it still has.
    pub(crate) async fn extend(
        &self,
        token: Token,
        partition: u16,
        now: OffsetDateTime,
        until: OffsetDateTime,
    ) -> RedisResult<u64> {
        let mut call = self.call(&self.scripts.extend, (token.kind(), partition));
        call.arg(millis(now)).arg(millis(until)).arg(&token.bytes()[..]);
        call.invoke_async(&mut self.connection.clone()).await
    }

    /// Ends leases; returns for each whether its token was good.
    pub(crate) async fn settle(&self, ends: &[Settle], now: OffsetDateTime) -> RedisResult<Vec<bool>> {
        let mut good = vec![false; ends.len()];
        let numbered = ends.iter().enumerate();
        for (partition, ends) in self.split(numbered.map(|(at, e)| (e.token.kind(), e.key, (at, e)))) {
            for ends in ends.chunks(ITEMS_A_CALL) {
                let mut call = self.call(&self.scripts.settle, partition);
                call.arg(millis(now));
                for (_, end) in ends {
                    let (at, back) = match end.then {
                        Then::Done => (String::new(), ""),
                        Then::At(at) => (millis(at).to_string(), ""),
                        Then::Back => (String::new(), "back"),
                    };
                    call.arg(&end.key.bytes()[..]).arg(&end.token.bytes()[..]).arg(at).arg(back);
                }
                let answer: Vec<u8> = numbers(call.invoke_async(&mut self.connection.clone()).await?);
                for ((at, _), answer) in ends.iter().zip(answer) {
                    good[*at] = answer == 1;
                }
            }
        }
        Ok(good)
    }

    /// Notes what was learnt of a destination.
    pub(crate) async fn learn(&self, lane: Lane, learn: Learn, now: OffsetDateTime) -> RedisResult<()> {
        let partition = (Kind::Remote, self.keys.partition_of_lane(lane));
        let mut call = self.call(&self.scripts.lane, partition);
        call.arg(millis(now)).arg(&lane.0[..]);
        match learn {
            Learn::Success { concurrency, max } => call.arg("success").arg(concurrency).arg(max),
            Learn::Unavailable { concurrency, until } => {
                call.arg("unavailable").arg(concurrency).arg(millis(until))
            }
            Learn::Suspend => call.arg("suspend"),
            Learn::Resume => call.arg("resume"),
            Learn::Unblock => call.arg("unblock"),
        };
        call.invoke_async(&mut self.connection.clone()).await
    }

    /// Puts a lease back that Redis has lost.
    pub(crate) async fn restore(
        &self,
        token: Token,
        items: &[Item],
        until: OffsetDateTime,
    ) -> RedisResult<()> {
        let until = millis(until);
        for (partition, items) in self.split(items.iter().map(|i| (token.kind(), i.key, i))) {
            for items in items.chunks(ITEMS_A_CALL) {
                let mut call = self.call(&self.scripts.restore, partition);
                call.arg(until).arg(&token.bytes()[..]);
                for item in items {
                    call.arg(&item.bytes()[..]);
                }
                let () = call.invoke_async(&mut self.connection.clone()).await?;
            }
        }
        Ok(())
    }

    /// Begins to fill a partition that has lost its marker; `false` when it has one, or another fills it.
    pub(crate) async fn begin_filling(&self, kind: Kind, partition: u16) -> RedisResult<bool> {
        self.mark(kind, partition, &["begun", "NX", "PX", FILLING]).await
    }

    /// Says that the filling goes on; `false` when Redis has forgotten that it was begun, and so what was filled in.
    pub(crate) async fn go_on_filling(&self, kind: Kind, partition: u16) -> RedisResult<bool> {
        self.mark(kind, partition, &["begun", "XX", "PX", FILLING]).await
    }

    /// Marks a partition as filled; `false` as with [`Self::go_on_filling`].
    pub(crate) async fn end_filling(&self, kind: Kind, partition: u16) -> RedisResult<bool> {
        self.mark(kind, partition, &["yes", "XX"]).await
    }

    async fn mark(&self, kind: Kind, partition: u16, how: &[&str]) -> RedisResult<bool> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.of(kind, partition, "filled")).arg(how);
        let set: Option<String> = command.query_async(&mut self.connection.clone()).await?;
        Ok(set.is_some())
    }

    /// Items of a kind that are leased now.
    pub(crate) async fn leased(&self, kind: Kind) -> RedisResult<u64> {
        let mut leased = 0;
        for partition in self.partitions() {
            let mut command = redis::cmd("HLEN");
            command.arg(self.keys.of(kind, partition, "lease"));
            leased += command.query_async::<u64>(&mut self.connection.clone()).await?;
        }
        Ok(leased)
    }

    fn split<T>(&self, items: impl Iterator<Item = (Kind, Key, T)>) -> BTreeMap<(Kind, u16), Vec<T>> {
        let mut parts: BTreeMap<(Kind, u16), Vec<T>> = BTreeMap::new();
        for (kind, key, item) in items {
            parts.entry((kind, self.keys.partition(kind, &key))).or_default().push(item);
        }
        parts
    }

    fn call<'a>(&self, script: &'a Script, (kind, partition): (Kind, u16)) -> redis::ScriptInvocation<'a> {
        script.key(self.keys.of(kind, partition, "due"))
    }
}

#[cfg(test)]
mod tests {
    use posthorn_stores::Redis;

    use super::*;

    /// An empty schedule, and its Redis, which lives as long as the value.
    pub(super) async fn empty() -> (Schedule, Redis) {
        let redis = posthorn_testkit::stores::redis().await;
        let config = config::Redis {
            url: redis.url(),
            prefix: "test".into(),
            timeout: Duration::from_secs(5),
            partitions: 1,
        };
        (Schedule::open(&config).expect("a URL"), redis)
    }

    /// The same, and known to hold all there is.
    pub(super) async fn filled(kind: Kind) -> (Schedule, Redis) {
        let (schedule, redis) = empty().await;
        assert!(schedule.begin_filling(kind, 0).await.expect("Redis answers"));
        assert!(schedule.end_filling(kind, 0).await.expect("Redis answers"));
        (schedule, redis)
    }

    #[tokio::test]
    async fn a_redis_that_forgets_while_it_is_filled_is_not_taken_for_full() {
        let (schedule, _redis) = empty().await;
        assert!(schedule.begin_filling(Kind::Route, 0).await.expect("Redis answers"));
        assert!(!schedule.begin_filling(Kind::Route, 0).await.expect("Redis answers"), "one is at it");
        assert!(schedule.go_on_filling(Kind::Route, 0).await.expect("Redis answers"));
        redis::cmd("FLUSHALL").exec_async(&mut schedule.connection.clone()).await.expect("Redis answers");
        assert!(!schedule.go_on_filling(Kind::Route, 0).await.expect("Redis answers"));
        assert!(!schedule.end_filling(Kind::Route, 0).await.expect("Redis answers"));
        assert!(schedule.begin_filling(Kind::Route, 0).await.expect("Redis answers"), "it is filled anew");
        assert!(schedule.end_filling(Kind::Route, 0).await.expect("Redis answers"));
    }

    /// Found by an audit: an operator's "now" that Redis did not hear of was passed over by every sweep.
    #[tokio::test]
    async fn what_waits_longer_than_the_ledger_says_is_brought_forward_unless_somebody_has_it() {
        let (schedule, _redis) = filled(Kind::Remote).await;
        let (now, lease) = (OffsetDateTime::now_utc(), Duration::from_secs(60));
        let item = |to: &str| Item {
            key: Key { message: posthorn_mail::MessageId::generate(), lane: Lane::remote(to) },
            flow: Flow::of("", "a@example.net"),
        };
        let (late, soon, in_hand, leased) = (item("a"), item("b"), item("c"), item("d"));
        let add = async |how, items: &[(Item, OffsetDateTime)]| {
            schedule.add(Kind::Remote, how, items, now).await.expect("Redis answers")
        };
        let ask = Ask { now, until: now + 3 * lease, most: 10, concurrency: 1 };
        let next = async || match schedule.lease(Kind::Remote, 0, &ask).await.expect("Redis answers") {
            Leasing::Batch(batch) => Some(batch.items[0].0),
            _ => None,
        };
        add(Add::Sooner, &[(leased, now)]).await;
        assert_eq!(next().await, Some(leased), "it is leased for longer than others lease");
        add(Add::Sooner, &[(late, now + 2 * lease), (soon, now + lease / 2)]).await;
        schedule.take_in_hand(Kind::Remote, &[in_hand], now + lease).await.expect("Redis answers");

        let owed = [late, soon, in_hand, leased].map(|item| (item, now));
        assert_eq!(add(Add::IfAbsent { late: now + lease }, &owed).await, 1);
        assert_eq!((next().await, next().await), (Some(late), None));
    }
}
