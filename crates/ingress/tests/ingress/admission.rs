//! Who may send to whom.

use std::sync::atomic::Ordering;

use anyhow::Result;
use posthorn_testkit::smtp_client::SmtpClient;

use crate::world::{World, check};

#[tokio::test]
async fn unknown_recipients_are_refused_in_the_routers_words() -> Result<()> {
    let world = World::start().await;
    let mut client = world.stranger().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    check(&client.command("RCPT TO:<unknown@example.test>").await?, 550, "5.1.1 No such user here")?;
    check(&client.command("RCPT TO:<later@example.test>").await?, 451, "4.2.1 The mailbox is being moved")?;
    check(&client.command("RCPT TO:<alice@example.test>").await?, 250, "2.1.5")?;
    Ok(())
}

#[tokio::test]
async fn relaying_is_for_the_trusted_alone() -> Result<()> {
    let world = World::start().await;
    let mut stranger = world.stranger().await;
    stranger.expect("MAIL FROM:<alice@example.test>", 250).await?;
    check(&stranger.command("RCPT TO:<bob@example.net>").await?, 550, "5.7.1")?;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<alice@example.test>", 250).await?;
    check(&client.command("RCPT TO:<bob@example.net>").await?, 250, "2.1.5")?;
    Ok(())
}

/// RFC 6409 §4.3: submission is for those we know, whoever the recipient is.
#[tokio::test]
async fn submission_is_for_the_trusted_alone() -> Result<()> {
    let world = World::start().await;
    let (mut stranger, _) = SmtpClient::connect_from("127.0.1.1".parse()?, world.submission).await?;
    stranger.expect("EHLO client.example", 250).await?;
    check(&stranger.command("MAIL FROM:<bob@example.net>").await?, 530, "5.7.0 Authentication required")?;
    let (mut client, _) = SmtpClient::connect(world.submission).await?;
    client.expect("EHLO client.example", 250).await?;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_router_the_client_is_told_later() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    world.router.away.store(true, Ordering::SeqCst);
    check(&client.command("RCPT TO:<alice@example.test>").await?, 451, "4.4.3")?;
    world.router.away.store(false, Ordering::SeqCst);
    check(&client.command("RCPT TO:<alice@example.test>").await?, 250, "2.1.5")?;
    Ok(())
}

/// The router says how long its word holds; what it has refused is asked anew each time.
#[tokio::test]
async fn what_the_router_has_just_said_is_not_asked_again() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    check(&client.command("RCPT TO:<unknown@example.test>").await?, 550, "5.1.1")?;
    client.expect("RCPT TO:<remembered@example.test>", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    world.router.away.store(true, Ordering::SeqCst);
    for (recipient, code, enhanced) in [
        ("remembered@example.test", 250, "2.1.5"),
        ("alice@example.test", 451, "4.4.3"),
        ("unknown@example.test", 451, "4.4.3"),
    ] {
        check(&client.command(&format!("RCPT TO:<{recipient}>")).await?, code, enhanced)?;
    }
    Ok(())
}

/// Who relays for nobody does not relay for those whose address others have been told of.
#[tokio::test]
async fn what_is_remembered_opens_no_relay() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<remembered@example.org>", 250).await?;
    let (mut stranger, _) = SmtpClient::connect_from("127.0.1.1".parse()?, world.smtp).await?;
    stranger.expect("EHLO client.example", 250).await?;
    stranger.expect("MAIL FROM:<bob@example.net>", 250).await?;
    check(&stranger.command("RCPT TO:<remembered@example.org>").await?, 550, "5.7.1")?;
    Ok(())
}
