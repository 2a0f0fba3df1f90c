//! What an operator does about mail that waits, on the command line.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use posthorn_api::trace::v1::EventKind;
use posthorn_dsn::Report;
use posthorn_e2e::{Internet, Posthorn, letter};
use posthorn_testkit::smtp_server::{At, Rule, Script};
use posthorn_testkit::wait;
use serde_json::Value;

const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_retries_bounces_and_suspends() -> Result<()> {
    let internet = Internet::start().await?;
    let options = internet.options().set(r#"queue.retry.schedule=["1h"]"#);
    let posthorn = Posthorn::start_with(options).await?;
    retries_now(&internet, &posthorn).await?;
    holds_and_releases(&internet, &posthorn).await?;
    gives_up_now(&internet, &posthorn).await?;
    suspends_a_destination(&internet, &posthorn).await
}

fn busy(script: Script) -> Script {
    script.rule(Rule::at(At::Mail).replies("450 4.3.2 Busy"))
}

async fn deferred(posthorn: &Posthorn, to: &str) -> Result<String> {
    let id = posthorn.send(BOB, &[to], &letter("Waiting", "x")).await?;
    posthorn.wait_for_event(&id, EventKind::Deferred).await;
    Ok(id)
}

async fn show(posthorn: &Posthorn, id: &str) -> Result<Value> {
    posthorn.ctl_json(&["queue", "show", id]).await?.pop().context("it is shown")
}

async fn retries_now(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("retry.test", busy).await?;
    let id = deferred(posthorn, "dave@retry.test").await?;
    let listed = posthorn.ctl_json(&["queue", "list"]).await?;
    ensure!(listed.len() == 1 && listed[0]["message_id"] == id.as_str(), "{listed:?}");
    let shown = show(posthorn, &id).await?;
    let recipient = &shown["recipients"][0];
    ensure!(recipient["address"] == "dave@retry.test" && recipient["attempts"] == 1, "{shown}");
    ensure!(recipient["state"] == "remote" && recipient["next_attempt_at"].is_string(), "{shown}");
    ensure!(recipient["last_status"]["text"].as_str().is_some_and(|text| text.contains("Busy")), "{shown}");

    server.follow(Script::named("mx.retry.test"));
    posthorn.ctl(&["queue", "retry", &id]).await?;
    server.received(1).await;
    posthorn.wait_for_end(&id).await;
    ensure!(posthorn.ctl_json(&["queue", "list"]).await?.is_empty());
    ensure!(posthorn.ctl(&["queue", "show", &id]).await.is_err(), "it has ended");
    Ok(())
}

async fn holds_and_releases(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("hold.test", busy).await?;
    let id = deferred(posthorn, "dave@hold.test").await?;
    posthorn.ctl(&["queue", "hold", "--sender", BOB]).await?;
    ensure!(show(posthorn, &id).await?["held"] == true);
    ensure!(posthorn.stats().await?.held == 1);
    server.follow(Script::named("mx.hold.test"));
    posthorn.ctl(&["queue", "retry", &id]).await?;
    // Another message passes it by: had it been due, it would have gone along.
    posthorn.send(BOB, &["erin@hold.test"], &letter("Another", "x")).await?;
    let taken = server.received(1).await;
    ensure!(taken.len() == 1 && taken[0].rcpt[0].starts_with("<erin@"), "{taken:?}");

    posthorn.ctl(&["queue", "release", &id]).await?;
    posthorn.ctl(&["queue", "retry", &id]).await?;
    server.received(2).await;
    let events = posthorn.wait_for_end(&id).await;
    for kind in [EventKind::Held, EventKind::Released, EventKind::Retried] {
        ensure!(events.iter().any(|event| event.kind() == kind), "{kind:?} in {events:?}");
    }
    Ok(())
}

async fn gives_up_now(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let _server = internet.domain("bounce.test", busy).await?;
    let id = deferred(posthorn, "dave@bounce.test").await?;
    posthorn.ctl(&["queue", "bounce", &id, "--reason", "No longer wanted"]).await?;
    posthorn.wait_for_end(&id).await;
    let notice = &posthorn.wait_for_mail(BOB, 1).await?[0];
    let report = Report::parse(&notice.raw)?;
    ensure!(report.recipients[0].final_recipient.to_string() == "dave@bounce.test", "{report:?}");
    ensure!(notice.raw.windows(16).any(|bytes| bytes == b"No longer wanted"));

    let id = deferred(posthorn, "dave@bounce.test").await?;
    posthorn.ctl(&["queue", "bounce", "--domain", "bounce.test", "--silent"]).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(!events.iter().any(|event| event.kind() == EventKind::Notice), "{events:?}");
    ensure!(posthorn.list(BOB).await?.len() == 1);
    Ok(())
}

async fn suspends_a_destination(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("suspend.test", busy).await?;
    let other = internet.domain("other.test", |script| script).await?;
    deferred(posthorn, "dave@suspend.test").await?;
    let suspended = posthorn.ctl_json(&["queue", "suspend", "suspend.test", "--reason", "works"]).await?;
    let names = suspended[0]["destinations"].as_array().context("their names")?;
    ensure!(names.iter().any(|name| name == "mx.suspend.test"), "{suspended:?}");
    server.follow(Script::named("mx.suspend.test"));
    let second = posthorn.send(BOB, &["erin@suspend.test"], &letter("Suspended", "x")).await?;
    posthorn.wait_for_event(&second, EventKind::Routed).await;
    posthorn.send(BOB, &["erin@other.test"], &letter("Passes", "x")).await?;
    other.received(1).await;
    let stats = posthorn.ctl_json(&["queue", "stats"]).await?;
    let destinations = stats[0]["destinations"].as_array().context("destinations")?;
    let found = destinations.iter().find(|d| d["destination"] == "mx.suspend.test").context("it")?;
    ensure!(found["suspended"] == true && found["waiting"] == 2, "{found}");
    ensure!(server.messages().is_empty());

    posthorn.ctl(&["queue", "resume", "suspend.test"]).await?;
    server.received(1).await;
    posthorn.ctl(&["queue", "retry", "--domain", "suspend.test"]).await?;
    let taken = wait::until("both messages", Duration::from_secs(20), async || {
        Some(server.messages()).filter(|messages| messages.len() == 2)
    });
    taken.await;
    posthorn.wait_until_empty(Duration::from_secs(60)).await;
    Ok(())
}
