//! Addresses that stand for others: aliases, lists, catch-alls, subaddresses.

use anyhow::{Result, ensure};
use posthorn_dsn::Report;
use posthorn_e2e::{Posthorn, letter};
use posthorn_testkit::smtp_client::SmtpClient;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const CAROL: &str = "carol@elsewhere.test";

#[tokio::test(flavor = "multi_thread")]
async fn until_it_comes_to_mailboxes() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    posthorn.ctl(&["alias", "create", "info@example.test", ALICE]).await?;
    posthorn.ctl(&["alias", "create", "both@example.test", "info@example.test", BOB]).await?;
    posthorn
        .ctl(&["list", "create", "team@example.test", ALICE, BOB, "both@example.test", "--owner", BOB])
        .await?;
    posthorn.ctl(&["domain", "create", "all.test", "--catch-all", BOB]).await?;
    let mut came = [0, 0];
    for (to, alice, bob) in [
        ("info@example.test", 1, 0),
        ("both@example.test", 1, 1),
        // Each member once, on however many ways it is reached.
        ("team@example.test", 1, 1),
        ("whoever@all.test", 0, 1),
        ("alice+news@example.test", 1, 0),
        ("both+x@example.test", 1, 1),
    ] {
        let id = posthorn.send(CAROL, &[to], &letter(to, "x")).await?;
        posthorn.wait_for_end(&id).await;
        came = [came[0] + alice, came[1] + bob];
        let have = [posthorn.list(ALICE).await?.len(), posthorn.list(BOB).await?.len()];
        ensure!(have == came, "after {to}: Alice and Bob have {have:?}, not {came:?}");
    }
    refuses_loops(&posthorn).await?;
    sees_changes_at_once(&posthorn).await
}

/// Aliases that lead to each other: at the door or in a notice, the sender hears of it.
async fn refuses_loops(posthorn: &Posthorn) -> Result<()> {
    posthorn.ctl(&["alias", "create", "ping@example.test", "pong@example.test"]).await?;
    posthorn.ctl(&["alias", "create", "pong@example.test", "ping@example.test"]).await?;
    let before = posthorn.list(BOB).await?.len();
    posthorn.send(BOB, &["ping@example.test"], &letter("Round", "and round")).await?;
    let notice = &posthorn.wait_for_mail(BOB, before + 1).await?[before];
    let report = Report::parse(&notice.raw)?;
    ensure!(report.recipients.len() == 1 && report.recipients[0].status.to_string() == "5.4.6", "{report:?}");
    Ok(())
}

async fn sees_changes_at_once(posthorn: &Posthorn) -> Result<()> {
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
    client.expect("RCPT TO:<new@example.test>", 550).await?;
    posthorn.ctl(&["account", "create", "new@example.test"]).await?;
    client.expect("RCPT TO:<new@example.test>", 250).await?;
    posthorn.ctl(&["account", "delete", "new@example.test"]).await?;
    client.expect("RCPT TO:<new@example.test>", 550).await?;
    Ok(())
}
