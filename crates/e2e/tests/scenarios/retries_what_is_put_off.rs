//! Servers that say "later", say nothing, or go away.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_api::trace::v1::{Event, EventKind};
use posthorn_dsn::{Action, Report};
use posthorn_e2e::{Internet, Posthorn, letter};
use posthorn_testkit::smtp_server::{At, Rule};

const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn until_it_is_taken() -> Result<()> {
    let internet = Internet::start().await?;
    let options = internet
        .options()
        .set(r#"queue.retry.schedule=["1s"]"#)
        .set(r#"queue.retry.uncertain="1s""#)
        .set(r#"relay.timeouts.greeting="5s""#)
        .set(r#"relay.timeouts.rcpt="5s""#)
        .set(r#"relay.timeouts.final_dot="5s""#);
    let posthorn = Posthorn::start_with(options).await?;
    tokio::try_join!(
        greylisting(&internet, &posthorn),
        one_refused_and_one_accepted(&internet, &posthorn),
        one_put_off_and_one_accepted(&internet, &posthorn),
        a_server_that_hangs(&internet, &posthorn),
        a_server_that_drops_after_the_dot(&internet, &posthorn),
        a_server_that_hangs_after_the_dot(&internet, &posthorn),
        a_server_that_drops_before_the_dot(&internet, &posthorn),
    )?;
    let deadline = Duration::from_secs(60);
    posthorn.wait_until_empty(deadline).await;
    Ok(())
}

fn kinds(events: &[Event]) -> Vec<EventKind> {
    let said = [EventKind::Delivered, EventKind::Deferred, EventKind::Failed, EventKind::Uncertain];
    events.iter().map(Event::kind).filter(|kind| said.contains(kind)).collect()
}

async fn greylisting(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let script = Rule::at(At::Rcpt).first(1).replies("451 4.7.1 Greylisted, come back");
    let server = internet.domain("grey.test", |s| s.rule(script)).await?;
    let id = posthorn.send(BOB, &["dave@grey.test"], &letter("Greylisting", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(kinds(&events) == [EventKind::Deferred, EventKind::Delivered], "{events:?}");
    let deferred = events.iter().find(|event| event.kind() == EventKind::Deferred).context("deferred")?;
    let status = deferred.status.clone().context("the remote's words")?;
    ensure!((status.code, status.enhanced.as_str()) == (451, "4.7.1"), "{status:?}");
    ensure!(status.text.contains("Greylisted, come back"), "{status:?}");
    ensure!(deferred.attempt == 1 && deferred.next_attempt_at.is_some(), "{deferred:?}");
    ensure!(deferred.server.as_ref().is_some_and(|server| server.host == "mx.grey.test"), "{deferred:?}");
    ensure!(server.messages().len() == 1);
    Ok(())
}

async fn one_refused_and_one_accepted(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let script = Rule::at(At::Rcpt).containing("<nobody@").replies("550 5.1.1 Nobody lives here");
    let server = internet.domain("half.test", |s| s.rule(script)).await?;
    let to = ["dave@half.test", "nobody@half.test"];
    let id = posthorn.send(BOB, &to, &letter("Half", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    let messages = server.messages();
    ensure!(messages.len() == 1 && messages[0].rcpt.len() == 1, "{messages:?}");
    ensure!(messages[0].rcpt[0].starts_with("<dave@half.test>"), "{messages:?}");
    for (address, kind) in [("dave@half.test", EventKind::Delivered), ("nobody@half.test", EventKind::Failed)]
    {
        let found = events.iter().any(|event| event.recipient == address && event.kind() == kind);
        ensure!(found, "{address}: {events:?}");
    }
    let notice = &posthorn.wait_for_mail(BOB, 1).await?[0];
    let report = Report::parse(&notice.raw)?;
    ensure!(report.recipients.len() == 1, "{report:?}");
    let told = &report.recipients[0];
    ensure!(told.final_recipient.to_string() == "nobody@half.test" && told.action == Action::Failed);
    ensure!(told.status.to_string() == "5.1.1", "{told:?}");
    ensure!(told.diagnostic.as_ref().is_some_and(|said| said.to_string().contains("Nobody lives here")));
    ensure!(told.remote_mta.as_deref() == Some("mx.half.test"), "{told:?}");
    Ok(())
}

async fn one_put_off_and_one_accepted(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let script = Rule::at(At::Rcpt).containing("<full@").first(2).replies("452 4.2.2 Mailbox full");
    let server = internet.domain("full.test", |s| s.rule(script)).await?;
    let to = ["dave@full.test", "full@full.test"];
    let id = posthorn.send(BOB, &to, &letter("Full", "x")).await?;
    posthorn.wait_for_end(&id).await;
    let rcpt: Vec<_> = server.messages().into_iter().map(|message| message.rcpt).collect();
    ensure!(rcpt.len() == 2 && rcpt.iter().all(|rcpt| rcpt.len() == 1), "each once: {rcpt:?}");
    Ok(())
}

async fn a_server_that_hangs(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    internet.dns.mx("hang.test", 10, "mute.hang.test").mx("hang.test", 20, "stuck.hang.test");
    internet.dns.mx("hang.test", 30, "well.hang.test");
    let _mute = internet.server("mute.hang.test", |s| s.rule(Rule::at(At::Connect).hangs())).await?;
    let _stuck = internet.server("stuck.hang.test", |s| s.rule(Rule::at(At::Rcpt).hangs())).await?;
    let well = internet.server("well.hang.test", |s| s).await?;
    let id = posthorn.send(BOB, &["dave@hang.test"], &letter("Hanging", "x")).await?;
    posthorn.wait_for_end(&id).await;
    ensure!(well.messages().len() == 1);
    Ok(())
}

/// It may have taken the message or not: that is said, and the message is sent again after a pause of its own.
async fn a_server_that_drops_after_the_dot(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("drop.test", |s| s.rule(Rule::at(At::EndOfData).first(1).drops())).await?;
    let id = posthorn.send(BOB, &["dave@drop.test"], &letter("Uncertain", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(kinds(&events) == [EventKind::Uncertain, EventKind::Delivered], "{events:?}");
    ensure!(server.messages().len() == 2);
    Ok(())
}

async fn a_server_that_hangs_after_the_dot(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("dot.test", |s| s.rule(Rule::at(At::EndOfData).first(1).hangs())).await?;
    let id = posthorn.send(BOB, &["dave@dot.test"], &letter("Silence", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(kinds(&events) == [EventKind::Uncertain, EventKind::Delivered], "{events:?}");
    ensure!(server.messages().len() == 2);
    Ok(())
}

/// It cannot have taken the message.
async fn a_server_that_drops_before_the_dot(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("cut.test", |s| s.rule(Rule::at(At::Data).first(1).drops())).await?;
    let id = posthorn.send(BOB, &["dave@cut.test"], &letter("Cut", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(kinds(&events) == [EventKind::Deferred, EventKind::Delivered], "{events:?}");
    ensure!(server.messages().len() == 1);
    Ok(())
}
