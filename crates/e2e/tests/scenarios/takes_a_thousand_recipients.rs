//! The most recipients that a transaction may have by default, and one more.

use anyhow::{Result, ensure};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::directory::v1::{Account, CreateAccountRequest};
use posthorn_e2e::{Posthorn, letter, queued_as};
use posthorn_testkit::smtp_client::SmtpClient;

const RECIPIENTS: usize = 1000;
/// Mailboxes that get a copy for each of their addresses: half of the recipients are subaddresses.
const MAILBOXES: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn in_one_message() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    let mut directory = DirectoryServiceClient::connect(posthorn.url(7003)).await?;
    for number in 0..MAILBOXES {
        let account = Account { address: format!("user{number}@example.test"), ..Default::default() };
        // No password: its hash would take longer than all the rest.
        let request = CreateAccountRequest { account: Some(account), ..Default::default() };
        directory.create_account(request).await?;
    }
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect("MAIL FROM:<carol@elsewhere.test>", 250).await?;
    // All in one go (RFC 2920).
    let user = |number| match number {
        0..MAILBOXES => format!("user{number}"),
        _ => format!("user{}+more", number - MAILBOXES),
    };
    let commands: String =
        (0..RECIPIENTS).map(|number| format!("RCPT TO:<{}@example.test>\r\n", user(number))).collect();
    client.send(commands.as_bytes()).await?;
    for number in 0..RECIPIENTS {
        let reply = client.reply().await?;
        ensure!(reply.code == 250, "recipient {number}: {reply:?}");
    }
    let reply = client.expect("RCPT TO:<alice@example.test>", 452).await?;
    ensure!(reply.text.starts_with("4.5.3 "), "{reply:?}");
    let content = letter("To all", "of you");
    let id = queued_as(&client.data(&content).await?)?;
    posthorn.wait_for_end(&id).await;
    for number in 0..MAILBOXES {
        let mailbox = format!("user{number}@example.test");
        let mails = posthorn.list(&mailbox).await?;
        ensure!(!mails.is_empty(), "{mailbox} has {} copies", mails.len());
    }
    ensure!(posthorn.list("alice@example.test").await?.is_empty());
    let mails = posthorn.wait_for_mail("user499@example.test", 1).await?;
    ensure!(mails[0].raw.ends_with(&content));
    Ok(())
}
