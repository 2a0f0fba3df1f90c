//! A sender hears when a message is late, and again when it is given up; not when it came through after all.

use anyhow::{Context as _, Result, ensure};
use mail_parser::{MessageParser, MimeHeaders as _};
use posthorn_api::trace::v1::EventKind;
use posthorn_dsn::{Action, Report, Returned};
use posthorn_e2e::{Internet, Mail, Posthorn, letter};
use posthorn_testkit::smtp_server::{At, Rule, Script, SmtpServer};

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";
const WORDS: &str = "451 4.3.2 Out for lunch";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_delay() -> Result<()> {
    let internet = Internet::start().await?;
    let options = internet
        .options()
        .set(r#"queue.retry.schedule=["2s","2s","4s"]"#)
        .set(r#"queue.notice.after=["6s"]"#)
        .set(r#"queue.give_up.after="20s""#);
    let posthorn = Posthorn::start_with(options).await?;
    let lunch = |script: Script| script.rule(Rule::at(At::Mail).replies(WORDS));
    let late = internet.domain("late.test", lunch).await?;
    let never = internet.domain("never.test", lunch).await?;
    tokio::try_join!(delay_then_delivery(&posthorn, &late), delay_then_bounce(&posthorn, &never))?;
    Ok(())
}

async fn delay_then_delivery(posthorn: &Posthorn, server: &SmtpServer) -> Result<()> {
    let content = letter("Late", "but it comes");
    let id = posthorn.send(ALICE, &["dave@late.test"], &content).await?;
    let notice = &posthorn.wait_for_mail(ALICE, 1).await?[0];
    check(notice, ALICE, "dave@late.test", Action::Delayed, "4.3.2", "mx.late.test")?;
    let report = Report::parse(&notice.raw)?;
    ensure!(report.recipients[0].will_retry_until.is_some(), "{report:?}");
    ensure!(report.about.is_some_and(|about| about.to_string() == id), "{report:?}");

    server.follow(Script::named("mx.late.test"));
    let events = posthorn.wait_for_end(&id).await;
    ensure!(events.iter().any(|event| event.kind() == EventKind::Delivered), "{events:?}");
    ensure!(server.messages().len() == 1 && server.messages()[0].content.ends_with(&content));
    ensure!(posthorn.list(ALICE).await?.len() == 1, "success is not told unless asked for");
    Ok(())
}

async fn delay_then_bounce(posthorn: &Posthorn, server: &SmtpServer) -> Result<()> {
    let content = letter("Never", "it won't come");
    let id = posthorn.send(BOB, &["dave@never.test"], &content).await?;
    let notices = posthorn.wait_for_mail(BOB, 2).await?;
    check(&notices[0], BOB, "dave@never.test", Action::Delayed, "4.3.2", "mx.never.test")?;
    check(&notices[1], BOB, "dave@never.test", Action::Failed, "5.4.7", "mx.never.test")
        .or_else(|_| check(&notices[1], BOB, "dave@never.test", Action::Failed, "4.4.7", "mx.never.test"))
        .or_else(|_| check(&notices[1], BOB, "dave@never.test", Action::Failed, "4.3.2", "mx.never.test"))?;
    let report = Report::parse(&notices[1].raw)?;
    let Returned::Full(returned) = &report.returned else {
        anyhow::bail!("a failure brings the message back: {report:?}")
    };
    ensure!(returned.ends_with(&content) || content.ends_with(returned.trim_ascii_end()), "{report:?}");
    let events = posthorn.wait_for_end(&id).await;
    let attempts = events.iter().filter(|event| event.kind() == EventKind::Deferred).count();
    // 20 s are over after the attempts at 0, 2, 4, 8, 12, 16 s.
    ensure!((3..=7).contains(&attempts), "{attempts} attempts: {events:?}");
    ensure!(server.messages().is_empty());
    ensure!(posthorn.list(BOB).await?.len() == 2);
    Ok(())
}

/// Reads the notice with a parser of others first, then as a report.
fn check(notice: &Mail, to: &str, about: &str, action: Action, status: &str, remote: &str) -> Result<()> {
    let parsed = MessageParser::new().parse(&notice.raw).context("a message")?;
    let content_type = parsed.content_type().context("a type")?;
    ensure!(content_type.ctype() == "multipart" && content_type.subtype() == Some("report"));
    ensure!(content_type.attribute("report-type") == Some("delivery-status"));
    ensure!(notice.raw.starts_with(b"Return-Path: <>\r\n"), "a notice has the null sender");
    ensure!(parsed.header_raw("Auto-Submitted").is_some_and(|value| value.trim() == "auto-replied"));

    let report = Report::parse(&notice.raw)?;
    ensure!(report.to.to_string() == to && report.recipients.len() == 1, "{report:?}");
    let told = &report.recipients[0];
    ensure!(told.final_recipient.to_string() == about && told.action == action, "{told:?}");
    ensure!(told.status.to_string() == status, "{told:?}");
    ensure!(told.remote_mta.as_deref() == Some(remote), "{told:?}");
    let said = told.diagnostic.as_ref().map(ToString::to_string).unwrap_or_default();
    ensure!(said.contains("Out for lunch"), "{told:?}");
    // The words for people name it too.
    let words = parsed.body_text(0).context("words")?;
    ensure!(words.contains(about) && words.contains("Out for lunch"), "{words}");
    Ok(())
}
