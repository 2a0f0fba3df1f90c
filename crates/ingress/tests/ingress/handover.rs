//! How messages go to the queue, and what the client hears.

use std::sync::atomic::Ordering;

use anyhow::Result;
use posthorn_api::mail::v1 as mail;
use posthorn_testkit::smtp_client::dot_stuffed;
use posthorn_testkit::wait::until;

use crate::queue::Mood;
use crate::world::{PATIENCE, World, check};

/// A message of about this many octets.
fn large(size: usize) -> Vec<u8> {
    let line = "0123456789 abcdefghijklmnopqrstuvwxyz. A line of some large message, and more\r\n";
    ["Subject: large\r\n\r\n", &line.repeat(size / line.len())].concat().into_bytes()
}

#[tokio::test]
async fn the_client_hears_what_the_queue_says() -> Result<()> {
    let world = World::start().await;
    let refusal = mail::Status { code: 554, enhanced: "5.7.0".into(), text: "Not this one".into(), words: 0 };
    for content in [b"Subject: x\r\n\r\n".to_vec(), large(1 << 20)] {
        world.queue.set(Mood::Away);
        check(&world.send(&content).await?, 451, "4.3.0")?;
        world.queue.set(Mood::Full);
        check(&world.send(&content).await?, 452, "4.3.1")?;
        world.queue.set(Mood::Refusing(refusal.clone()));
        check(&world.send(&content).await?, 554, "5.7.0 Not this one")?;
        world.queue.set(Mood::Willing);
        check(&world.send(&content).await?, 250, "2.0.0")?;
    }
    assert_eq!(world.queue.messages().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_queue_that_cannot_be_reached_has_no_message() -> Result<()> {
    let world = World::with(&[("queue", "http://127.0.0.1:1"), ("handover.timeout", "300ms")]).await;
    for content in [b"Subject: x\r\n\r\n".to_vec(), large(1 << 20)] {
        check(&world.send(&content).await?, 451, "4.3.0")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_until_it_comes() -> Result<()> {
    let world = World::start().await;
    for (number, content) in [b"Subject: x\r\n\r\n".to_vec(), large(1 << 20)].into_iter().enumerate() {
        world.queue.set(Mood::Unheard(3));
        check(&world.send(&content).await?, 250, "2.0.0")?;
        assert_eq!(world.queue.messages().len(), number + 1);
    }
    Ok(())
}

/// Batches go by a stream, which a queue that stops ends; one of the version before knows none (R9).
#[tokio::test]
async fn each_message_is_handed_over_once_by_whatever_way_there_is() -> Result<()> {
    let world = World::start().await;
    let mut sent = 0;
    for (old, curt) in [(false, false), (false, true), (true, false), (false, false)] {
        world.queue.old.store(old, Ordering::SeqCst);
        world.queue.curt.store(curt, Ordering::SeqCst);
        for _ in 0..10 {
            sent += 1;
            check(&world.send(b"Subject: x\r\n\r\n").await?, 250, "2.0.0")?;
            assert_eq!(world.queue.batches().len(), sent, "old: {old}, curt: {curt}");
        }
    }
    assert_eq!(world.queue.messages().len(), sent);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_is_begun_again() -> Result<()> {
    let world = World::start().await;
    let early = (1, 10 << 20);
    let at_its_end = (usize::MAX, 2 << 20);
    for (number, (after, size)) in [early, at_its_end, (600 << 10, 1 << 20)].into_iter().enumerate() {
        world.queue.set(Mood::Breaking { streams: 2, after });
        let content = large(size);
        check(&world.send(&content).await?, 250, "2.0.0")?;
        let messages = world.queue.messages();
        assert_eq!(messages.len(), number + 1);
        assert!(messages[number].content.ends_with(&content));
        assert!(messages[number].content.starts_with(b"Received: from client.example"));
        assert_eq!(messages[number].start.envelope.as_ref().unwrap().body(), mail::Body::SevenBit);
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_when_much_was_sent_is_for_the_client_to_repeat() -> Result<()> {
    let world = World::start().await;
    world.queue.set(Mood::Breaking { streams: 1, after: 5 << 20 });
    check(&world.send(&large(20 << 20)).await?, 451, "4.3.0")?;
    check(&world.send(&large(20 << 20)).await?, 250, "2.0.0")?;
    assert_eq!(world.queue.messages().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_client_is_told_neither_yes_nor_no_when_nobody_knows() -> Result<()> {
    let world = World::with(&[("handover.timeout", "3s")]).await;
    for content in [b"Subject: x\r\n\r\n".to_vec(), large(1 << 20)] {
        world.queue.set(Mood::Unheard(usize::MAX));
        let silence = world.send(&content).await.unwrap_err();
        assert!(silence.to_string().contains("closed the connection"), "{silence}");
        world.queue.set(Mood::Willing);
        check(&world.send(&content).await?, 250, "2.0.0")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_queue_that_does_not_answer_is_waited_for_so_long_only() -> Result<()> {
    let world = World::with(&[("handover.timeout", "3s")]).await;
    let stopped = world.queue.gate.clone().acquire_many_owned(100).await?;
    world.send(b"Subject: x\r\n\r\n").await.unwrap_err();
    drop(stopped);
    check(&world.send(b"Subject: x\r\n\r\n").await?, 250, "2.0.0")?;
    Ok(())
}

#[tokio::test]
async fn what_arrives_during_a_call_goes_together_in_the_next() -> Result<()> {
    let world = World::with(&[("handover.calls", "1")]).await;
    let stopped = world.queue.gate.clone().acquire_many_owned(100).await?;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = world.client().await;
        client.expect("MAIL FROM:<bob@example.net>", 250).await?;
        client.expect("RCPT TO:<alice@example.test>", 250).await?;
        client.expect("DATA", 354).await?;
        client.send(b"Subject: x\r\n\r\n.\r\nNOOP\r\n").await?;
        clients.push(client);
        until("the first call", PATIENCE, async || (!world.queue.batches().is_empty()).then_some(())).await;
    }
    // The nine have nothing that tells when they wait for the call: their sessions have read all there is when the
    // server's other sessions answer again.
    for _ in 0..20 {
        world.client().await;
    }
    drop(stopped);
    for client in &mut clients {
        check(&client.reply().await?, 250, "2.0.0")?;
    }
    let batches = world.queue.batches();
    assert_eq!((batches[0], batches.iter().sum::<usize>()), (1, 10), "{batches:?}");
    assert!(batches.iter().any(|batch| *batch > 1), "{batches:?}");
    Ok(())
}

#[tokio::test]
async fn a_large_message_goes_in_chunks_and_unchanged() -> Result<()> {
    let world = World::start().await;
    let content = large(20 << 20);
    check(&world.send(&content).await?, 250, "2.0.0")?;
    let message = world.queue.only();
    assert!(message.streamed);
    assert!(message.content.ends_with(&content));
    assert!(message.content.starts_with(b"Received: from client.example"));
    assert_eq!(message.start.envelope.unwrap().body(), mail::Body::SevenBit);
    Ok(())
}

#[tokio::test]
async fn a_late_octet_above_127_is_told_at_the_end() -> Result<()> {
    let world = World::start().await;
    let content = [large(1 << 20), "ä\r\n".into()].concat();
    check(&world.send(&content).await?, 250, "2.0.0")?;
    assert_eq!(world.queue.only().start.envelope.unwrap().body(), mail::Body::EightBitMime);
    Ok(())
}

#[tokio::test]
async fn a_slow_queue_slows_the_client_down() -> Result<()> {
    let world = World::start().await;
    world.queue.chunks.forget_permits(1_000_000);
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    client.expect("DATA", 354).await?;
    let content = large(40 << 20);
    let wire = dot_stuffed(&content);
    let mut sent = 0;
    // Buffers of the sockets, of HTTP/2, and of the session fill; then nothing more is taken.
    for piece in wire.chunks(64 << 10) {
        let write = tokio::time::timeout(std::time::Duration::from_millis(500), client.send(piece));
        if write.await.is_err() {
            break;
        }
        sent += piece.len();
    }
    assert!(sent < 20 << 20, "{sent} octets were taken");
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_content_leaves_nothing() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    client.expect("DATA", 354).await?;
    client.send(&large(2 << 20)).await?;
    drop(client);
    until("the stream to be cut", PATIENCE, async || (world.queue.cut() == 1).then_some(())).await;
    assert!(world.queue.messages().is_empty());
    Ok(())
}

#[tokio::test]
async fn content_that_is_found_wrong_late_leaves_nothing() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    let content = [large(2 << 20), b"bare\nLF\r\n".to_vec()].concat();
    check(&client.data(&content).await?, 550, "5.6.11")?;
    until("the stream to be cut", PATIENCE, async || (world.queue.cut() == 1).then_some(())).await;
    client.expect("MAIL FROM:<bob@example.net>", 250).await?;
    assert!(world.queue.messages().is_empty());
    Ok(())
}
