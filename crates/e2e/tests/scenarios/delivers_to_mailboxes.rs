//! Mail for our own people, handed in by another server.

use anyhow::{Result, ensure};
use posthorn_e2e::{Posthorn, headers_above, letter, queued_as};
use posthorn_testkit::smtp_client::SmtpClient;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const CAROL: &str = "carol@elsewhere.test";

#[tokio::test(flavor = "multi_thread")]
async fn delivers_to_each_recipient_once() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    let content = letter("First", "Hello\n.\n..dots");
    // A recipient named twice gets it once (RFC 5321 §4.5.3.1.8 leaves it to the server; nobody wants two).
    let recipients = [ALICE, BOB, ALICE, "Alice@EXAMPLE.test"];
    let id = posthorn.send(CAROL, &recipients, &content).await?;
    for mailbox in [ALICE, BOB] {
        let mails = posthorn.wait_for_mail(mailbox, 1).await?;
        ensure!(mails.len() == 1, "{mailbox} has {}", mails.len());
        let mail = &mails[0];
        ensure!(mail.summary.folder == "INBOX" && mail.summary.message_id == id, "{:?}", mail.summary);
        ensure!(mail.summary.subject == "First" && mail.summary.from.contains(CAROL), "{:?}", mail.summary);
        let above = headers_above(&mail.raw, &content)?;
        ensure!(above[0] == ("Return-Path".into(), format!("<{CAROL}>")), "{above:?}");
        ensure!(above[1].0 == "Delivered-To" && above[1].1.eq_ignore_ascii_case(mailbox), "{above:?}");
        // Folded where the line would be too long.
        let received = above[2].1.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["from client.test", "127.0.0.1", " by ", "with ESMTP", &format!("id {id}"), "; "] {
            ensure!(received.contains(part), "no {part:?} in {received}");
        }
    }
    posthorn.wait_for_end(&id).await;
    ensure!(posthorn.list(ALICE).await?.len() == 1 && posthorn.list(BOB).await?.len() == 1);

    shows_them_on_the_command_line(&posthorn, &id, &content).await?;
    refuses_unknown_recipients(&posthorn).await?;
    takes_one_of_two_recipients(&posthorn).await
}

async fn shows_them_on_the_command_line(posthorn: &Posthorn, id: &str, content: &[u8]) -> Result<()> {
    let listed = posthorn.ctl_json(&["mailbox", "list", ALICE]).await?;
    ensure!(listed.len() == 1, "{listed:?}");
    let message = &listed[0];
    ensure!(message["folder"] == "INBOX" && message["subject"] == "First", "{message}");
    ensure!(message["message_id"] == id && message["flags"].is_array(), "{message}");
    ensure!(message["received_at"].is_string(), "{message}");
    let uid = message["uid"].to_string();
    let raw = posthorn.ctl(&["mailbox", "read", ALICE, &uid, "--raw"]).await?;
    ensure!(message["size"] == raw.len(), "{message}: {} bytes were printed", raw.len());
    headers_above(raw.as_bytes(), content)?;
    Ok(())
}

async fn refuses_unknown_recipients(posthorn: &Posthorn) -> Result<()> {
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
    let reply = client.expect("RCPT TO:<nobody@example.test>", 550).await?;
    ensure!(reply.text.starts_with("5.1.1 "), "{reply:?}");
    let reply = client.command("DATA").await?;
    ensure!(reply.code == 554 || reply.code == 503, "without a recipient: {reply:?}");
    Ok(())
}

async fn takes_one_of_two_recipients(posthorn: &Posthorn) -> Result<()> {
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{CAROL}>"), 250).await?;
    client.expect("RCPT TO:<nobody@example.test>", 550).await?;
    client.expect(&format!("RCPT TO:<{BOB}>"), 250).await?;
    queued_as(&client.data(&letter("Second", "for Bob")).await?)?;
    ensure!(posthorn.wait_for_mail(BOB, 2).await?.len() == 2);
    Ok(())
}
