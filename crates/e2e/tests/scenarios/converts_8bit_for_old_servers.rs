//! A server without 8BITMIME gets what it can take (RFC 6152 §3), or the sender hears that it cannot.

use anyhow::{Context as _, Result, ensure};
use mail_parser::MessageParser;
use posthorn_api::trace::v1::EventKind;
use posthorn_dsn::Report;
use posthorn_e2e::{Internet, Posthorn, letter, queued_as};
use posthorn_testkit::smtp_client::SmtpClient;

const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn or_says_that_it_cannot() -> Result<()> {
    let internet = Internet::start().await?;
    let posthorn = Posthorn::start_with(internet.options()).await?;
    let knows = internet.domain("new.test", |script| script).await?;
    let lacks = internet.domain("old.test", |script| script.without("8BITMIME").without("SMTPUTF8")).await?;
    let words = "Grüße aus Köln 🎺";
    let head = "From: Bob <bob@example.test>\r\nSubject: Umlauts\r\nDate: Mon, 23 Nov 2026 09:00:00 +0000\r\n\
        MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    let content = format!("{head}\r\n{words}\r\n.dots\r\n").into_bytes();
    posthorn.send(BOB, &["dave@new.test", "dave@old.test"], &content).await?;

    let as_it_was = &knows.received(1).await[0];
    ensure!(
        as_it_was.content.ends_with(&content) && as_it_was.mail.contains("BODY=8BITMIME"),
        "{as_it_was:?}"
    );
    let converted = &lacks.received(1).await[0];
    ensure!(converted.content.is_ascii() && !converted.mail.contains("BODY="), "{converted:?}");
    let parsed = MessageParser::new().parse(&converted.content).context("a message")?;
    let text = parsed.body_text(0).context("its text")?;
    ensure!(text.replace("\r\n", "\n").trim_end() == format!("{words}\n.dots"), "{text}");

    // Plain ASCII needs nothing of a server.
    let plain = letter("Plain", "x");
    posthorn.send(BOB, &["dave@old.test"], &plain).await?;
    ensure!(lacks.received(2).await[1].content.ends_with(&plain));

    // Octets in a header that nobody announced: whatever is made of them, the server can take it.
    let raw = "Subject: Größe\r\n\r\nx\r\n".as_bytes();
    let id = posthorn.send(BOB, &["dave@old.test"], raw).await?;
    for event in posthorn.wait_for_end(&id).await {
        if event.kind() == EventKind::Notice {
            posthorn.wait_for_end(&event.detail).await;
        }
    }
    ensure!(lacks.messages().iter().all(|message| message.content.is_ascii()), "{:?}", lacks.messages());
    let earlier = posthorn.list(BOB).await?.len();

    // An address beyond ASCII cannot be written otherwise.
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{BOB}> SMTPUTF8 BODY=8BITMIME"), 250).await?;
    client.expect("RCPT TO:<jürgen@old.test>", 250).await?;
    client.expect("RCPT TO:<jürgen@new.test>", 250).await?;
    queued_as(&client.data(&content).await?)?;
    let received = &knows.received(2).await[1];
    ensure!(
        received.mail.contains("SMTPUTF8") && received.rcpt[0].starts_with("<jürgen@new.test>"),
        "{received:?}"
    );
    let report = Report::parse(&posthorn.wait_for_mail(BOB, earlier + 1).await?[earlier].raw)?;
    ensure!(report.recipients.len() == 1, "{report:?}");
    let told = &report.recipients[0];
    ensure!(told.final_recipient.to_string() == "jürgen@old.test", "{told:?}");
    ensure!(told.status.to_string() == "5.6.7", "{told:?}");
    Ok(())
}
