//! Nothing polls: a message on an idle system is seen within milliseconds (R7).

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use posthorn_api::mailbox::v1::mailbox_service_client::MailboxServiceClient;
use posthorn_api::mailbox::v1::watch_response::Change;
use posthorn_api::mailbox::v1::{MessageSummary, WatchRequest, WatchResponse};
use posthorn_e2e::{Posthorn, letter, queued_as};
use posthorn_testkit::smtp_client::submit;
use tokio::time::timeout;
use tonic::Streaming;

const ALICE: &str = "alice@example.test";
/// On a machine that does nothing else it is far less; here others may compile or test at the same time.
const LIMIT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn sees_a_message_at_once() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    let mut changes = watch(&posthorn, None).await?;
    ensure!(
        matches!(next(&mut changes).await?.change, Some(Change::Started(_))),
        "it says first that it stands"
    );

    let mut taken = Vec::new();
    let mut modseq = 0;
    for round in 0..20 {
        let content = letter(&format!("Round {round}"), "tick");
        let start = Instant::now();
        let handed_in = submit(posthorn.smtp(), "carol@elsewhere.test", &[ALICE], &content);
        let ((seen, after), reply) =
            tokio::join!(async { (next_message(&mut changes).await, start.elapsed()) }, handed_in);
        let (summary, at) = seen?;
        ensure!(summary.message_id == queued_as(&reply?)?, "another message: {summary:?}");
        ensure!(at > modseq, "mod-sequences rise");
        modseq = at;
        taken.push(after);
    }
    taken.sort();
    println!(
        "from connecting to seeing it: median {:?}, longest {:?}",
        taken[taken.len() / 2],
        taken[taken.len() - 1]
    );
    ensure!(taken[taken.len() / 2] < LIMIT, "{taken:?}");

    // Whoever comes back with what it saw last misses nothing, and gets nothing twice.
    let resumed_after = posthorn.list(ALICE).await?[16].modseq;
    let mut changes = watch(&posthorn, Some(resumed_after)).await?;
    ensure!(matches!(next(&mut changes).await?.change, Some(Change::Started(_))));
    for round in 17..20 {
        let (summary, _) = next_message(&mut changes).await?;
        ensure!(summary.subject == format!("Round {round}"), "{summary:?}");
    }
    Ok(())
}

async fn watch(posthorn: &Posthorn, after_modseq: Option<u64>) -> Result<Streaming<WatchResponse>> {
    let mut client = MailboxServiceClient::connect(posthorn.url(7004)).await?;
    let request = WatchRequest { mailbox: ALICE.into(), after_modseq, ..Default::default() };
    Ok(client.watch(request).await?.into_inner())
}

async fn next(changes: &mut Streaming<WatchResponse>) -> Result<WatchResponse> {
    timeout(Duration::from_secs(20), changes.message())
        .await
        .context("no change")??
        .context("the stream ended")
}

async fn next_message(changes: &mut Streaming<WatchResponse>) -> Result<(MessageSummary, u64)> {
    let response = next(changes).await?;
    match response.change {
        Some(Change::Message(summary)) => Ok((summary, response.modseq)),
        other => bail!("no message but {other:?}"),
    }
}
