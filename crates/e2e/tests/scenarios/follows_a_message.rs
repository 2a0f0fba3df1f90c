//! Where a message is and why, and where one would go (R12).

use anyhow::{Context as _, Result, ensure};
use posthorn_e2e::{Internet, Posthorn, letter};
use posthorn_testkit::smtp_server::{At, Rule};

const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn from_the_door_to_its_ends() -> Result<()> {
    let internet = Internet::start().await?;
    let options = internet.options().set(r#"queue.retry.schedule=["1s"]"#);
    let posthorn = Posthorn::start_with(options).await?;
    traces_each_attempt(&internet, &posthorn).await?;
    explains_without_sending(&internet, &posthorn).await
}

async fn traces_each_attempt(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let rules = [
        Rule::at(At::Rcpt).first(1).replies("451 4.7.1 Greylisted for a second"),
        Rule::at(At::Rcpt).containing("<nobody@").replies("550 5.1.1 Nobody by that name"),
        Rule::at(At::EndOfData).replies("250 2.6.0 Thanks, kept as 4711"),
    ];
    let told = |script| rules.into_iter().fold(script, posthorn_testkit::smtp_server::Script::rule);
    let server = internet.domain("trace.test", told).await?;
    let to = ["dave@trace.test", "nobody@trace.test", "alice@example.test"];
    let id = posthorn.send(BOB, &to, &letter("Followed", "x")).await?;
    posthorn.wait_for_end(&id).await;
    let events = posthorn.ctl_json(&["trace", &id]).await?;
    let kinds: Vec<_> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    ensure!(kinds.first() == Some(&"accepted") && kinds.contains(&"routed"), "{kinds:?}");
    ensure!(kinds.contains(&"notice") && kinds.contains(&"ended"), "{kinds:?}");
    let origin = &events[0]["origin"];
    ensure!(origin["client_address"] == "127.0.0.1" && origin["helo"] == "client.test", "{origin}");
    // "42.3Z" is before "42.321Z": only without the Z do they sort as text.
    let times = events.iter().filter_map(|event| event["at"].as_str()?.strip_suffix('Z'));
    let times: Vec<_> = times.collect();
    ensure!(times.len() == events.len() && times.is_sorted(), "oldest first: {times:?}");
    let text = posthorn.ctl(&["trace", &id]).await?;
    for words in [
        "451 4.7.1 Greylisted for a second",
        "550 5.1.1 Nobody by that name",
        "250 2.6.0 Thanks, kept as 4711",
        "mx.trace.test",
        &server.address().to_string(),
        "alice@example.test",
    ] {
        ensure!(text.contains(words), "no {words:?} in\n{text}");
    }
    Ok(())
}

async fn explains_without_sending(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("explain.test", |script| script).await?;
    posthorn
        .ctl(&["alias", "create", "mixed@example.test", "alice@example.test", "dave@explain.test"])
        .await?;
    let explained = posthorn.ctl_json(&["explain", "mixed@example.test"]).await?;
    let explained = explained.first().context("an answer")?;
    ensure!(explained["steps"].as_array().is_some_and(|steps| steps.len() > 1), "{explained}");
    let targets = explained["targets"].as_array().context("targets")?;
    let target = |address: &str| targets.iter().find(|target| target["address"] == address);
    ensure!(target("alice@example.test").is_some_and(|target| target["decision"] == "local"), "{explained}");
    let remote = target("dave@explain.test").context("the remote one")?;
    ensure!(remote["decision"] == "remote", "{explained}");
    let host = remote["hosts"][0].as_str().unwrap_or_default();
    let address = server.address().ip().to_string();
    ensure!(host.contains("mx.explain.test") && host.contains(&address), "{explained}");
    let unknown = posthorn.ctl_json(&["explain", "nobody@example.test"]).await?;
    ensure!(unknown[0]["targets"][0]["decision"] == "fail", "{unknown:?}");
    ensure!(server.connections() == 0 && posthorn.stats().await?.messages == 0);
    Ok(())
}
