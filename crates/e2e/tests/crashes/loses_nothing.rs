//! Every part is killed under load, and every message that was accepted is accounted for: the short form of
//! `make chaos`.

use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_e2e::account::{Blow, Found, Leases, account};
use posthorn_e2e::leftovers::{COLLECT_AT_ONCE, no_work_is_left, nothing_is_orphaned};
use posthorn_e2e::load::{DIRECTORY, Load, Pace, open_mailboxes};
use posthorn_e2e::{Internet, Posthorn};
use posthorn_testkit::smtp_server::{At, Rule};
use tokio::time::Instant;

/// Messages that are accepted between one blow and the next: more than 2,000 in all.
const BETWEEN_BLOWS: usize = 280;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies() -> Result<()> {
    let internet = Internet::start().await?;
    let nobody = Rule::at(At::Rcpt).containing("<nobody@").replies("550 5.1.1 no such user");
    let server = internet.domain("remote.test", |script| script.rule(nobody)).await?;
    let mut options = internet
        .options()
        // What a dead worker held is due again soon, and what was put off too.
        .set(r#"queue.lease.length="5s""#)
        .set(r#"queue.database.statement_timeout="4s""#)
        .set(r#"queue.retry.schedule=["500ms"]"#)
        .set(r#"queue.retry.uncertain="500ms""#)
        .set(r#"ingress.handover.timeout="20s""#);
    options.processes = true;
    let mut posthorn = Posthorn::start_with(options).await?;
    for arguments in DIRECTORY {
        posthorn.ctl(arguments).await?;
    }
    open_mailboxes(posthorn.url(7003)).await?;
    let load = Load::start(&posthorn, 4, 1, Pace { pause: Duration::ZERO, large: 50 });
    load.accepts(BETWEEN_BLOWS, PATIENCE).await;
    let mut blows = Vec::new();
    for part in ["ingress", "queue", "router", "local-delivery", "remote-relay", "Redis", "Postgres"] {
        let from = Instant::now();
        match part {
            "Redis" => posthorn.flush_redis().await?,
            "Postgres" => posthorn.crash_postgres()?,
            service => drop(posthorn.crash(service).await?),
        }
        // What only the relay knows dies with it, and what Redis forgets of its leases.
        let leases = if ["remote-relay", "Redis"].contains(&part) { Leases::Lost } else { Leases::Kept };
        blows.push(Blow { name: part.into(), from, to: Instant::now(), leases });
        load.accepts(BETWEEN_BLOWS, PATIENCE).await;
        println!("{part}: {:.1} s until {BETWEEN_BLOWS} more were accepted", from.elapsed().as_secs_f64());
    }
    let sent = load.stop().await?;
    posthorn.wait_until_empty(Duration::from_secs(60)).await;
    account(&sent, &Found::collect(&posthorn, &server).await?, &posthorn, &blows).await?;
    let accepted = sent.iter().filter(|message| message.answer.is_accepted()).count();
    ensure!(accepted >= 2000, "only {accepted} were accepted");
    no_work_is_left(&format!("redis://{}", posthorn.address(16379))).await;
    posthorn.restart_with(&COLLECT_AT_ONCE).await?;
    nothing_is_orphaned(&format!("postgres://postgres@{}/posthorn", posthorn.address(15432))).await
}
