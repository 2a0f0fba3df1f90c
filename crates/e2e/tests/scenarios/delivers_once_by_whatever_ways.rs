//! A message to somebody, to a list with them in it, and to an alias: each has it once, whichever way is named first.

use anyhow::{Result, ensure};
use posthorn_e2e::{Internet, Posthorn, headers_above, letter};

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const CAROL: &str = "carol@remote.test";
const TEAM: &str = "team@example.test";
const SALES: &str = "sales@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn to_each() -> Result<()> {
    let internet = Internet::start().await?;
    let server = internet.domain("remote.test", |script| script).await?;
    let posthorn = Posthorn::start_with(internet.options()).await?;
    posthorn.ctl(&["list", "create", TEAM, ALICE, BOB]).await?;
    posthorn.ctl(&["alias", "create", SALES, CAROL]).await?;
    let orders: [&[&str]; 4] = [
        &[ALICE, TEAM, SALES],
        &[SALES, TEAM, ALICE],
        &[TEAM, ALICE, CAROL, SALES],
        &[SALES, CAROL, BOB, TEAM, ALICE],
    ];
    for (sent, to) in orders.iter().enumerate() {
        let content = letter(&format!("Order {sent}"), "once to each");
        let id = posthorn.send("dave@elsewhere.test", to, &content).await?;
        posthorn.wait_for_end(&id).await;
        for mailbox in [ALICE, BOB] {
            let mails = posthorn.wait_for_mail(mailbox, sent + 1).await?;
            ensure!(mails.len() == sent + 1, "{mailbox} has {} of {} after {to:?}", mails.len(), sent + 1);
            for mail in mails.iter().filter(|mail| mail.raw.ends_with(&content)) {
                let above = headers_above(&mail.raw, &content)?;
                let delivered = above.iter().find(|(name, _)| name == "Delivered-To");
                ensure!(delivered.is_some_and(|(_, value)| value == mailbox), "{above:?}");
            }
        }
        let came: Vec<_> = server.messages().into_iter().map(|message| message.rcpt.concat()).collect();
        ensure!(came.len() == sent + 1 && came.iter().all(|rcpt| rcpt.starts_with("<carol@")), "{came:?}");
    }
    Ok(())
}
