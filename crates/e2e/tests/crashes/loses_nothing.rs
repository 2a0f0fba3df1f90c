//! Every part is killed under load, and every message that was accepted is accounted for: the short form of
//! `make chaos`.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::{Blow, Found, account};
use posthorn_e2e::load::{DIRECTORY, Load, Pace};
use posthorn_e2e::{Internet, Posthorn};
use posthorn_testkit::smtp_server::{At, Rule};
use tokio::time::Instant;

/// Messages that are accepted between one blow and the next.
const BETWEEN_BLOWS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(40);

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
    let posthorn = Posthorn::start_with(options).await?;
    for arguments in DIRECTORY {
        posthorn.ctl(arguments).await?;
    }
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
        load.accepts(BETWEEN_BLOWS, PATIENCE).await;
        blows.push(Blow { name: part.into(), from, to: Instant::now() });
    }
    let sent = load.stop().await?;
    posthorn.wait_until_empty(Duration::from_secs(60)).await;
    account(&sent, &Found::collect(&posthorn, &server).await?, &posthorn, &blows).await
}
