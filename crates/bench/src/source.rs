//! The load: a number of sessions that hand messages in, by SMTP or by gRPC.

mod grpc;
mod smtp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// How messages are handed in.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// By SMTP; several servers take turns among the sessions.
    Smtp(Vec<SocketAddr>),
    /// By `SubmissionService.Submit` at this address.
    Grpc(String),
}

/// What is handed in, and how.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) door: Door,
    pub(crate) sessions: usize,
    pub(crate) messages: u64,
    /// Octets of a message.
    pub(crate) size: usize,
    /// Message after message goes to these by turns, each to as many as the next field says.
    pub(crate) mailboxes: Vec<String>,
    pub(crate) recipients: usize,
    /// A connection for all messages of a session, not one for each.
    pub(crate) keep: bool,
    /// Commands are sent without waiting for the answer before (RFC 2920).
    pub(crate) pipelining: bool,
    /// Messages a second that are begun; `None`: as fast as they are taken.
    pub(crate) rate: Option<f64>,
    /// The number of the first message.
    pub(crate) first: u64,
}

impl Load {
    /// As many messages as fast as they go, by a connection each.
    pub(crate) fn new(door: Door, sessions: usize, messages: u64, size: usize) -> Self {
        let mailboxes = Vec::new();
        Self {
            door,
            sessions,
            messages,
            size,
            mailboxes,
            recipients: 1,
            keep: false,
            pipelining: false,
            rate: None,
            first: 0,
        }
    }

    /// The recipients of the n-th message.
    fn recipients_of(&self, n: u64) -> impl Iterator<Item = &str> {
        let first = n as usize * self.recipients % self.mailboxes.len();
        self.mailboxes.iter().cycle().skip(first).take(self.recipients).map(String::as_str)
    }
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Before the first connect.
    pub(crate) began: Instant,
    /// At the last answer.
    pub(crate) ended: Instant,
    /// Microseconds from connect (or, where connections are kept, from MAIL) to the answer to the final dot.
    pub(crate) latency: Histogram<u64>,
    /// When each message was begun.
    pub(crate) starts: Vec<(u64, Instant)>,
}

/// Hands all messages in; fails when one is not taken.
pub(crate) async fn send(load: Load) -> Result<Sent> {
    ensure!(!load.mailboxes.is_empty() && load.sessions > 0, "a load needs recipients and sessions");
    let (load, turns) = (Arc::new(load), Arc::new(Turns::new()));
    let mut sessions = JoinSet::new();
    for session in 0..load.sessions {
        let (load, turns) = (load.clone(), turns.clone());
        sessions.spawn(async move {
            match &load.door {
                Door::Smtp(servers) => smtp::send(&load, servers[session % servers.len()], &turns).await,
                Door::Grpc(url) => grpc::send(&load, url, &turns).await,
            }
        });
    }
    let mut latency = histogram();
    let mut starts = Vec::new();
    while let Some(ended) = sessions.join_next().await {
        for (number, start, taken) in ended?? {
            latency.saturating_record(taken.as_micros() as u64);
            starts.push((number, start));
        }
    }
    Ok(Sent { began: turns.began, ended: Instant::now(), latency, starts })
}

/// Whether an SMTP server answers.
pub(crate) async fn is_greeted(server: SocketAddr) -> Result<()> {
    smtp::Session::open(server).await.map(drop)
}

/// Microseconds up to ten minutes, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "the bounds are constants")]
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("bounds that fit")
}

/// A message that was taken: its number, when it was begun, and how long the answer took.
type Taken = (u64, Instant, Duration);

/// Which message comes next, and when it may begin.
#[derive(Debug)]
struct Turns {
    next: AtomicU64,
    began: Instant,
}

impl Turns {
    fn new() -> Self {
        Self { next: AtomicU64::new(0), began: Instant::now() }
    }

    /// The next message's place, as soon as it may begin; `None` when there are no more.
    async fn next(&self, load: &Load) -> Option<u64> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        if n >= load.messages {
            return None;
        }
        if let Some(rate) = load.rate {
            let at = self.began + Duration::from_secs_f64(n as f64 / rate);
            tokio::time::sleep_until(at.into()).await;
        }
        Some(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipients_take_turns() {
        let mut load = Load::new(Door::Grpc(String::new()), 1, 1, 1);
        load.mailboxes = ["a", "b", "c"].map(str::to_owned).to_vec();
        load.recipients = 2;
        let of = |n| load.recipients_of(n).collect::<Vec<_>>();
        assert_eq!([of(0), of(1), of(2), of(3)], [["a", "b"], ["c", "a"], ["b", "c"], ["a", "b"]]);
    }
}
