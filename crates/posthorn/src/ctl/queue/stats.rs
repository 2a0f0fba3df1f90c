//! `ctl queue stats`

use anyhow::Result;
use posthorn_api::queue::v1 as api;
use prost_types::Duration;
use serde::Serialize;

use crate::ctl::connect::Services;
use crate::ctl::output::{Output, Table};
use crate::ctl::values::{Status, rounded};

/// The answer as it is printed.
#[derive(Serialize)]
struct Stats {
    messages: u64,
    held: u64,
    poison: u64,
    stages: Vec<Stage>,
    destinations: Vec<Destination>,
}

#[derive(Serialize)]
struct Stage {
    stage: String,
    waiting: u64,
    leased: u64,
    deferred: u64,
    oldest_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
    ages: Ages,
}

/// How many wait, by age.
#[derive(Serialize)]
#[serde(untagged)]
enum Ages {
    Numbers(Vec<Age>),
    Words(String),
}

#[derive(Serialize)]
struct Age {
    /// `None`: all that are older.
    below_seconds: Option<u64>,
    waiting: u64,
}

#[derive(Serialize)]
struct Destination {
    destination: String,
    waiting: u64,
    oldest_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<String>,
    suspended: bool,
    last_status: Option<Status>,
}

pub(super) async fn run(destinations: u32, services: &Services, out: &mut Output<'_>) -> Result<()> {
    let request = api::StatsRequest { destinations };
    let answer = services.queue().await?.stats(request).await?.into_inner();
    let json = out.json();
    let stats = stats(answer, !json);
    if json {
        return Ok(out.object(&stats)?);
    }
    out.line(&format!("{} messages, {} held, {} poison", stats.messages, stats.held, stats.poison))?;
    out.line("")?;
    Table::new(&["stage", "waiting", "leased", "deferred", "oldest", "ages"]).rows(out, stats.stages)?;
    if !stats.destinations.is_empty() {
        out.line("")?;
        let columns = ["destination", "waiting", "oldest", "suspended", "last_status"];
        Table::new(&columns).rows(out, stats.destinations)?;
    }
    Ok(())
}

/// Ages in seconds for programs, in words for people.
fn stats(answer: api::StatsResponse, words: bool) -> Stats {
    let age = |oldest: Option<Duration>| oldest.map(posthorn_api::period).unwrap_or_default();
    let in_words = |oldest: Option<Duration>| oldest.filter(|_| words).map(|_| rounded(age(oldest)));
    let stage = |stage: api::StageStats| Stage {
        stage: stage.stage,
        waiting: stage.waiting,
        leased: stage.leased,
        deferred: stage.deferred,
        oldest_seconds: age(stage.oldest).as_secs(),
        oldest: in_words(stage.oldest),
        ages: if words { Ages::Words(ages_in_words(&stage.ages)) } else { Ages::Numbers(ages(stage.ages)) },
    };
    let destination = |destination: api::DestinationStats| Destination {
        destination: destination.destination,
        waiting: destination.waiting,
        oldest_seconds: age(destination.oldest).as_secs(),
        oldest: in_words(destination.oldest),
        suspended: destination.suspended,
        last_status: destination.last_status.map(Into::into),
    };
    Stats {
        messages: answer.messages,
        held: answer.held,
        poison: answer.poison,
        stages: answer.stages.into_iter().map(stage).collect(),
        destinations: answer.destinations.into_iter().map(destination).collect(),
    }
}

fn ages(counts: Vec<api::AgeCount>) -> Vec<Age> {
    let seconds = |below: Duration| posthorn_api::period(below).as_secs();
    counts.into_iter().map(|c| Age { below_seconds: c.below.map(seconds), waiting: c.waiting }).collect()
}

/// `3 below 5m, 1 older`
fn ages_in_words(counts: &[api::AgeCount]) -> String {
    let some = counts.iter().filter(|count| count.waiting > 0);
    let word = |count: &api::AgeCount| match count.below {
        Some(below) => format!("{} below {}", count.waiting, rounded(posthorn_api::period(below))),
        None => format!("{} older", count.waiting),
    };
    let words: Vec<String> = some.map(word).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}
