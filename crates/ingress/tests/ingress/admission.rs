//! Who may send to whom.

use std::sync::atomic::Ordering;

use anyhow::Result;
use posthorn_testkit::smtp_client::SmtpClient;
use posthorn_testkit::wait;

use crate::queue::Mood;
use crate::world::{PATIENCE, World, check};

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

#[tokio::test]
async fn an_answer_is_remembered_until_the_directory_changes() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<remembered@example.test>", 250).await?;
    world.router.deserted.store(true, Ordering::SeqCst);
    client.expect("RCPT TO:<remembered@example.test>", 250).await?;
    check(&client.command("RCPT TO:<alice@example.test>").await?, 550, "5.1.1")?;
    world.router.change().await;
    check(&client.command("RCPT TO:<remembered@example.test>").await?, 550, "5.1.1")?;
    Ok(())
}

/// The router may be one that does not tell of changes.
#[tokio::test]
async fn a_router_that_tells_of_no_change_is_asked_for_each_recipient() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<remembered@example.test>", 250).await?;
    world.router.deserted.store(true, Ordering::SeqCst);
    world.router.fall_silent();
    wait::until("the answer to be forgotten", PATIENCE, async || {
        let reply = client.command("RCPT TO:<remembered@example.test>").await.unwrap();
        (reply.code == 550).then_some(())
    })
    .await;
    world.router.deserted.store(false, Ordering::SeqCst);
    client.expect("RCPT TO:<remembered@example.test>", 250).await?;
    world.router.deserted.store(true, Ordering::SeqCst);
    check(&client.command("RCPT TO:<remembered@example.test>").await?, 550, "5.1.1")?;
    Ok(())
}

/// As long as the router's word holds, it goes with the message, of all recipients or of none.
#[tokio::test]
async fn what_the_router_has_just_said_goes_with_the_message() -> Result<()> {
    let world = World::start().await;
    let (one, two) = ("remembered-1@example.test", "remembered-2@example.test");
    for (recipients, along) in [
        (&[one, two][..], true),
        (&[one, "alice@example.test"], false),
        (&[one, "remembered-alias@example.test"], false),
        (&[one, "remembered@example.org"], false),
    ] {
        let mut client = world.client().await;
        client.expect("MAIL FROM:<bob@example.net>", 250).await?;
        for recipient in recipients {
            client.expect(&format!("RCPT TO:<{recipient}>"), 250).await?;
        }
        client.expect("DATA", 354).await?;
        client.expect("Subject: x\r\n\r\ntext\r\n.", 250).await?;
        let routed = world.queue.messages().pop().expect("a message").start.routed;
        let all: Vec<_> = recipients.iter().copied().map(crate::router::mailbox).collect();
        assert_eq!(routed, if along { all } else { vec![] }, "{recipients:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_the_router_said_is_forgotten_when_the_queue_was_away() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<remembered@example.test>", 250).await?;
    client.expect("DATA", 354).await?;
    world.queue.set(Mood::Unheard(1));
    client.expect("Subject: x\r\n\r\ntext\r\n.", 250).await?;
    assert_eq!(world.queue.routed(), [1, 0], "the second time the queue is to ask");
    Ok(())
}
