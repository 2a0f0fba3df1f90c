//! Every part is killed under load, and every message that was accepted is accounted for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_e2e::{Internet, Posthorn};

use crate::load::{Answer, LOCAL, Load, SENDER, Sent};

/// Messages that are accepted between one blow and the next.
const BETWEEN_BLOWS: usize = 40;
const CLIENTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies() -> Result<()> {
    let internet = Internet::start().await?;
    let server = internet.domain("remote.test", |script| script).await?;
    let mut options = internet
        .options()
        // What a dead worker held is due again soon, and what was put off too.
        .set(r#"queue.lease.length="5s""#)
        .set(r#"queue.database.statement_timeout="4s""#)
        .set(r#"queue.retry.schedule=["500ms"]"#)
        .set(r#"queue.retry.uncertain="500ms""#);
    options.processes = true;
    let posthorn = Posthorn::start_with(options).await?;
    let load = Load::start(posthorn.smtp(), CLIENTS);
    load.accepts(BETWEEN_BLOWS).await;
    for service in ["ingress", "queue", "router", "local-delivery", "remote-relay"] {
        posthorn.crash(service).await?;
        load.accepts(BETWEEN_BLOWS).await;
    }
    posthorn.flush_redis().await?;
    load.accepts(BETWEEN_BLOWS).await;
    posthorn.crash_postgres()?;
    load.accepts(BETWEEN_BLOWS).await;

    let sent = load.stop().await?;
    posthorn.wait_until_empty(Duration::from_secs(60)).await;
    let local = subjects(posthorn.list(LOCAL).await?.into_iter().map(|message| message.subject));
    let taken = server.messages().into_iter().filter(|message| message.was_accepted());
    let remote = subjects(taken.filter_map(|message| subject(&message.content)));
    account(&sent, &local, &remote)?;
    ensure!(posthorn.list(SENDER).await?.is_empty(), "nothing was refused, so no one is told");
    Ok(())
}

fn subject(content: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(content);
    text.lines().find_map(|line| line.strip_prefix("Subject: ").map(|subject| subject.trim().to_owned()))
}

/// How often each came.
fn subjects(came: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for subject in came {
        *count.entry(subject).or_default() += 1;
    }
    count
}

/// Whether each message came as often as its answer promised.
#[expect(clippy::print_stdout, reason = "the figures are for whoever runs the test")]
fn account(sent: &[Sent], local: &BTreeMap<String, usize>, remote: &BTreeMap<String, usize>) -> Result<()> {
    let mut wrong = Vec::new();
    let mut answers = BTreeMap::new();
    for message in sent {
        let subject = &message.subject;
        let came = |to: &BTreeMap<String, usize>| to.get(subject).copied().unwrap_or_default();
        let (local_copies, remote_copies) = (came(local), came(remote));
        *answers.entry(format!("{:?}", message.answer)).or_insert(0) += 1;
        let fine = match message.answer {
            // SMTP between servers is at least once, a mailbox exactly once.
            Answer::Accepted => {
                local_copies == usize::from(message.local) && (remote_copies > 0) == message.remote
            }
            Answer::Unknown => {
                local_copies <= usize::from(message.local) && (message.remote || remote_copies == 0)
            }
            Answer::NotNow => local_copies + remote_copies == 0,
            Answer::Refused(_) => false,
        };
        if !fine {
            wrong.push(format!("{message:?} came {local_copies} and {remote_copies} times"));
        }
    }
    let twice = remote.values().filter(|copies| **copies > 1).count();
    println!("{} messages {answers:?}; {twice} came more than once to the remote server", sent.len());
    ensure!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    local.keys().chain(remote.keys()).try_for_each(|subject| {
        sent.iter().find(|message| message.subject == *subject).map(|_| ()).context(subject.clone())
    })
}
