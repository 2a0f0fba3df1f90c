//! The figures as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::case::{Case, Measured, name};
use crate::trial::Finding;

/// All runs of a case against a server, put together.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) server: String,
    rounds: usize,
    messages: u64,
    messages_per_second: f64,
    megabytes_per_second: f64,
    /// Of each round, in order.
    per_second: Vec<f64>,
    /// CPU milliseconds a message (seconds per 1,000), of all of the server's processes together and by process.
    cpu_ms: f64,
    cpu_ms_by_process: BTreeMap<String, f64>,
    /// The same of source, sink and watching, which is not the server's.
    own_cpu_ms: f64,
    latency_ms: Latency,
    /// The most that the processes had together at the end of a round (PSS).
    memory_mb: f64,
    memory_mb_by_process: BTreeMap<String, f64>,
}

/// What is between which two instants depends on the case: see [`Case::latency_is`].
#[derive(Debug, Serialize)]
struct Latency {
    is: &'static str,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Case {
    /// What the latency of this case is measured between.
    fn latency_is(self) -> &'static str {
        match self {
            Self::Idle | Self::Steady => "connect to mailbox",
            Self::Fanout => "connect to all mailboxes",
            Self::Mailbox | Self::Mailboxes | Self::Accepted | Self::Relayed | Self::Submit | Self::Large => {
                "connect to 250"
            }
        }
    }

    /// What is wanted beside a peer: at least, and as an aim.
    fn wanted(self, peer: &str) -> &'static str {
        match self {
            Self::Mailbox | Self::Mailboxes if peer == "dovecot" => "7x (12x)",
            Self::Mailbox | Self::Mailboxes | Self::Accepted | Self::Relayed => "3x (5x)",
            Self::Idle => "1x (2x)",
            Self::Large => "0.7x (1x)",
            Self::Fanout => "5x (10x)",
            Self::Submit | Self::Steady => "",
        }
    }
}

impl Row {
    /// Puts the rounds of a case together; `None` without any.
    pub(crate) fn new(case: Case, server: &str, rounds: &[Measured]) -> Option<Self> {
        let sum = |value: fn(&Measured) -> f64| rounds.iter().map(value).sum::<f64>();
        let messages: u64 = rounds.iter().map(|round| round.messages).sum();
        let seconds = sum(|round| round.seconds);
        let per_message = 1000.0 / messages as f64;
        let mut latency: Histogram<u64> = rounds.first()?.latency.clone();
        for round in rounds.iter().skip(1) {
            // All have the same bounds.
            let _ = latency.add(&round.latency);
        }
        let mut cpu_ms_by_process = BTreeMap::<String, f64>::new();
        for (process, seconds) in rounds.iter().flat_map(|round| &round.cpu) {
            *cpu_ms_by_process.entry(process.clone()).or_default() += seconds * per_message;
        }
        let all = |round: &&Measured| round.memory.values().sum::<u64>();
        let memory = &rounds.iter().max_by_key(all)?.memory;
        Some(Self {
            case,
            server: server.to_owned(),
            rounds: rounds.len(),
            messages,
            messages_per_second: messages as f64 / seconds,
            megabytes_per_second: sum(|round| round.bytes as f64) / 1e6 / seconds,
            per_second: rounds.iter().map(|round| round.messages as f64 / round.seconds).collect(),
            cpu_ms: cpu_ms_by_process.values().sum(),
            cpu_ms_by_process,
            own_cpu_ms: sum(|round| round.own_cpu) * per_message,
            latency_ms: quantiles(case, &latency),
            memory_mb: megabytes(memory.values().sum()),
            memory_mb_by_process: memory
                .iter()
                .map(|(name, bytes)| (name.clone(), megabytes(*bytes)))
                .collect(),
        })
    }

    /// What the case is about, as a number of which more is better.
    fn score(&self) -> f64 {
        match self.case {
            Case::Idle | Case::Steady => 1.0 / self.latency_ms.p50,
            Case::Large => self.megabytes_per_second,
            Case::Fanout
            | Case::Mailbox
            | Case::Mailboxes
            | Case::Accepted
            | Case::Relayed
            | Case::Submit => self.messages_per_second,
        }
    }
}

fn quantiles(case: Case, latency: &Histogram<u64>) -> Latency {
    let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Latency { is: case.latency_is(), p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// All rows, and below them Posthorn's ratios to its peers.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<10} {:<10} {:>9} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        "case",
        "server",
        "msg/s",
        "MB/s",
        "CPU ms",
        "source ms",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "MB mem"
    );
    for row in rows {
        let latency = &row.latency_ms;
        let _ = writeln!(
            text,
            "{:<10} {:<10} {:>9.1} {:>8.2} {:>9.2} {:>9.2} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.0}",
            name(row.case),
            row.server,
            row.messages_per_second,
            row.megabytes_per_second,
            row.cpu_ms,
            row.own_cpu_ms,
            latency.p50,
            latency.p90,
            latency.p99,
            latency.max,
            row.memory_mb
        );
    }
    text + &by_process(rows) + &ratios(rows)
}

/// Where the CPU time goes.
fn by_process(rows: &[Row]) -> String {
    let mut text = "\nCPU ms a message by process\n".to_owned();
    for row in rows {
        let mut shares: Vec<_> = row.cpu_ms_by_process.iter().filter(|(_, ms)| ms.abs() >= 0.005).collect();
        shares.sort_by(|a, b| b.1.total_cmp(a.1));
        let shares: Vec<String> = shares.iter().map(|(name, ms)| format!("{name} {ms:.2}")).collect();
        let _ = writeln!(text, "{:<10} {:<10} {}", name(row.case), row.server, shares.join(", "));
    }
    text
}

/// Posthorn's figures as multiples of each peer's.
fn ratios(rows: &[Row]) -> String {
    let mut text = String::new();
    for peer in rows.iter().filter(|row| row.server != "posthorn") {
        let Some(ours) = rows.iter().find(|row| row.server == "posthorn" && row.case == peer.case) else {
            continue;
        };
        let _ = writeln!(
            text,
            "{:<10} {:<10} {:>6.2}x   wanted {:<10} CPU 1/{:.2}   wanted 1/2.5 (1/4)",
            name(peer.case),
            peer.server,
            ours.score() / peer.score(),
            peer.case.wanted(&peer.server),
            peer.cpu_ms / ours.cpu_ms
        );
    }
    if text.is_empty() { text } else { format!("\nPosthorn beside its peers (more is better)\n{text}") }
}

/// What was measured, where, and with which settings.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) at: String,
    pub(crate) machine: String,
    pub(crate) settings: BTreeMap<&'static str, String>,
    pub(crate) rows: &'a [Row],
    pub(crate) findings: &'a [Finding],
}

impl Report<'_> {
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::{Cpu, Memory};
    use crate::source::histogram;

    fn measured(seconds: f64) -> Measured {
        let mut latency = histogram();
        latency.record(2_000).unwrap();
        Measured {
            messages: 100,
            bytes: 400_000,
            seconds,
            cpu: Cpu::from([("queue".into(), 0.1), ("redis".into(), 0.1)]),
            own_cpu: 0.01,
            latency,
            memory: Memory::from([("queue".into(), 10_000_000)]),
        }
    }

    #[test]
    fn rounds_are_put_together() {
        let row = Row::new(Case::Mailbox, "posthorn", &[measured(1.0), measured(3.0)]).unwrap();
        assert!((row.messages_per_second - 50.0).abs() < 1e-9, "all messages by all the time");
        assert!((row.cpu_ms - 2.0).abs() < 1e-9);
        assert!((row.cpu_ms_by_process["redis"] - 1.0).abs() < 1e-9);
        assert!((row.latency_ms.p50 - 2.0).abs() < 0.01);
        assert!((row.memory_mb - 10.0).abs() < 1e-9);
        assert!(Row::new(Case::Mailbox, "posthorn", &[]).is_none());
    }

    #[test]
    fn a_table_has_the_ratio_to_each_peer() {
        let ours = Row::new(Case::Mailbox, "posthorn", &[measured(1.0)]).unwrap();
        let theirs = Row::new(Case::Mailbox, "postfix", &[measured(4.0)]).unwrap();
        let table = table(&[ours, theirs]);
        assert!(table.contains("mailbox    postfix      4.00x   wanted 3x (5x)"), "{table}");
        assert!(table.contains("queue 1.00, redis 1.00"), "{table}");
    }
}
