//! Messages by SMTP: what reaches the queue.

use anyhow::Result;
use posthorn_api::mail::v1::{Body, Ret};
use posthorn_mail::MessageId;
use posthorn_testkit::smtp_client::SmtpClient;

use crate::world::{World, check};

#[tokio::test]
async fn a_message_reaches_the_queue_behind_its_received_line() -> Result<()> {
    let world = World::start().await;
    let content = b"From: bob@example.net\r\nSubject: hi\r\n\r\n.dots\r\n..\r\nbye\r\n";
    let reply = world.send(content).await?;
    let message = world.queue.only();
    let id = MessageId::try_from(&message.start.message_id[..])?;
    check(&reply, 250, &format!("2.0.0 Ok: queued as {id}"))?;
    let text = String::from_utf8(message.content)?;
    let (trace, rest) = text.split_at(text.len() - content.len());
    assert_eq!(rest.as_bytes(), content);
    let head = format!(
        "Received: from client.example ([127.0.0.1])\r\n\tby mx.example.test with ESMTP id {id}\r\n\
         \tfor <alice@example.test>;\r\n\t"
    );
    assert!(trace.starts_with(&head) && trace.ends_with(" +0000\r\n"), "{trace}");
    let envelope = message.start.envelope.unwrap();
    assert_eq!((envelope.sender.as_str(), envelope.recipients.len()), ("bob@example.net", 1));
    assert_eq!(envelope.body(), Body::SevenBit);
    let origin = message.start.origin.unwrap();
    assert_eq!((origin.protocol.as_str(), origin.client_address.as_str()), ("ESMTP", "127.0.0.1"));
    assert_eq!((origin.helo, origin.server_address), ("client.example".into(), world.smtp.to_string()));
    assert!(message.start.received_at.is_some());
    world.stop().await;
    Ok(())
}

#[tokio::test]
async fn the_envelope_comes_whole() -> Result<()> {
    let world = World::start().await;
    let mut client = world.client().await;
    client.expect("MAIL FROM:<> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb", 250).await?;
    client.expect("RCPT TO:<jürgen@example.test> NOTIFY=SUCCESS ORCPT=rfc822;x+2By@z", 250).await?;
    client.expect("RCPT TO:<alice@example.test>", 250).await?;
    // Named twice, it still is one recipient.
    client.expect("RCPT TO:<alice@EXAMPLE.test>", 250).await?;
    check(&client.data(b"Subject: x\r\n\r\n").await?, 250, "2.0.0")?;
    let message = world.queue.only();
    let envelope = message.start.envelope.unwrap();
    assert_eq!((envelope.sender.as_str(), envelope.envelope_id.as_str()), ("", "a+b"));
    assert_eq!(
        (envelope.body(), envelope.smtputf8, envelope.ret()),
        (Body::EightBitMime, true, Ret::Headers)
    );
    let [jurgen, alice] = &envelope.recipients[..] else { panic!("{:?}", envelope.recipients) };
    assert_eq!(
        (jurgen.address.as_str(), jurgen.original_recipient.as_str()),
        ("jürgen@example.test", "rfc822;x+y@z")
    );
    assert!(jurgen.notify.as_ref().unwrap().success && alice.notify.is_none());
    let text = String::from_utf8(message.content)?;
    assert!(text.contains(" with UTF8SMTP id ") && !text.contains("\tfor "), "{text}");
    Ok(())
}

#[tokio::test]
async fn eight_bit_content_is_marked_even_if_the_client_does_not_say_so() -> Result<()> {
    let world = World::start().await;
    check(&world.send("Subject: ä\r\n\r\n".as_bytes()).await?, 250, "2.0.0")?;
    assert_eq!(world.queue.only().start.envelope.unwrap().body(), Body::EightBitMime);
    Ok(())
}

#[tokio::test]
async fn only_a_submission_gets_what_it_lacks() -> Result<()> {
    let world = World::start().await;
    check(&world.send(b"Subject: a\r\n\r\nbody\r\n").await?, 250, "2.0.0")?;
    let (mut client, _) = SmtpClient::connect(world.submission).await?;
    client.expect("EHLO [127.0.0.1]", 250).await?;
    for content in [
        &b"Subject: a\r\n\r\nbody\r\n"[..],
        b"date: x\r\nSubject: a\r\nMessage-Id: <y>\r\n\r\nbody\r\n",
        b"no header at all\r\n",
    ] {
        client.expect("MAIL FROM:<alice@example.test>", 250).await?;
        client.expect("RCPT TO:<bob@example.net>", 250).await?;
        check(&client.data(content).await?, 250, "2.0.0")?;
    }
    let below = |at: usize| {
        let text = String::from_utf8(world.queue.messages()[at].content.clone()).unwrap();
        text.split_once(" +0000\r\n").unwrap().1.to_owned()
    };
    assert_eq!(below(0), "Subject: a\r\n\r\nbody\r\n");
    let (date, rest) = below(1)
        .strip_prefix("Subject: a\r\nDate: ")
        .unwrap()
        .split_once("\r\n")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert!(date.ends_with(" +0000"), "{date}");
    let id = MessageId::try_from(&world.queue.messages()[1].start.message_id[..])?;
    assert_eq!(rest, format!("Message-ID: <{id}@mx.example.test>\r\n\r\nbody\r\n"));
    assert_eq!(below(2), "date: x\r\nSubject: a\r\nMessage-Id: <y>\r\n\r\nbody\r\n");
    assert!(
        below(3).starts_with("Date: ") && below(3).ends_with("@mx.example.test>\r\nno header at all\r\n")
    );
    Ok(())
}

#[tokio::test]
async fn a_message_that_loops_is_refused() -> Result<()> {
    let world = World::with(&[("limits.hops", "3")]).await;
    let hops = |count| ["Received: from a by b; c\r\n".repeat(count).as_str(), "Subject: x\r\n\r\n"].concat();
    check(&world.send(hops(3).as_bytes()).await?, 250, "2.0.0")?;
    check(&world.send(hops(4).as_bytes()).await?, 554, "5.4.6")?;
    assert_eq!(world.queue.messages().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_header_section_without_end_is_refused() -> Result<()> {
    let world = World::with(&[("limits.header_size", "4KiB")]).await;
    let content = |lines| "X-Filler: yes and more of it\r\n".repeat(lines) + "\r\nbody\r\n";
    check(&world.send(content(100).as_bytes()).await?, 250, "2.0.0")?;
    check(&world.send(content(200).as_bytes()).await?, 554, "5.6.0")?;
    Ok(())
}
