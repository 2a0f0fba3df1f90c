//! What a client may do, and going down.

use anyhow::Result;
use posthorn_testkit::smtp_client::SmtpClient;

use crate::world::{World, check};

#[tokio::test]
async fn connections_are_limited_by_client_and_in_all() -> Result<()> {
    let world = World::with(&[("limits.connections_per_client", "2"), ("limits.connections", "3")]).await;
    let first = world.client().await;
    let _second = world.client().await;
    let (_, refused) = SmtpClient::connect(world.smtp).await?;
    check(&refused, 421, "4.7.0")?;
    let _third = world.stranger().await;
    let (_, refused) = SmtpClient::connect_from("127.0.2.1".parse()?, world.submission).await?;
    check(&refused, 421, "4.7.0")?;
    drop(first);
    posthorn_testkit::wait::until("a free place", crate::world::PATIENCE, async || {
        let (_, greeting) = SmtpClient::connect(world.smtp).await.ok()?;
        (greeting.code == 220).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn content_beyond_the_limit_is_read_past_and_refused() -> Result<()> {
    let world = World::with(&[("limits.message_size", "1MiB")]).await;
    let mut client = world.client().await;
    check(&client.command("MAIL FROM:<bob@example.net> SIZE=2000000").await?, 552, "5.3.4")?;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    client.expect("DATA", 354).await?;
    let piece = "a line of text that nobody will read\r\n".repeat(30_000);
    for _ in 0..100 {
        client.send(piece.as_bytes()).await?;
    }
    client.send(b".\r\n").await?;
    check(&client.reply().await?, 552, "5.3.4")?;
    check(&client.command("NOOP").await?, 250, "2.0.0")?;
    Ok(())
}

#[tokio::test]
async fn a_silent_client_is_dismissed() -> Result<()> {
    let world = World::with(&[("limits.command_timeout", "100ms")]).await;
    let (mut client, _) = SmtpClient::connect(world.smtp).await?;
    check(&client.reply().await?, 421, "4.4.2")?;
    assert!(client.reply().await.is_err(), "the connection is closed");
    Ok(())
}

#[tokio::test]
async fn going_down_lets_messages_end_and_sends_the_idle_home() -> Result<()> {
    let world = World::start().await;
    let mut idle = world.client().await;
    let mut busy = world.client().await;
    busy.expect("MAIL FROM:<bob@example.net>", 250).await?;
    busy.expect("RCPT TO:<alice@example.test>", 250).await?;
    busy.expect("DATA", 354).await?;
    busy.send(b"Subject: x\r\n\r\n").await?;
    world.process.shutdown.cancel();
    check(&idle.reply().await?, 421, "4.3.2")?;
    busy.send(b".\r\n").await?;
    check(&busy.reply().await?, 250, "2.0.0")?;
    check(&busy.reply().await?, 421, "4.3.2")?;
    assert_eq!(world.queue.messages().len(), 1);
    world.stop().await;
    Ok(())
}
