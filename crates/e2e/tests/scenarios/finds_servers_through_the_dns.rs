//! RFC 5321 §5: which server a domain's mail goes to.

use anyhow::{Result, ensure};
use posthorn_api::trace::v1::EventKind;
use posthorn_dsn::{Action, Report};
use posthorn_e2e::{Internet, Posthorn, letter};
use posthorn_testkit::dns::Trouble;
use posthorn_testkit::smtp_server::{At, Rule};

const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn in_order_of_preference() -> Result<()> {
    let internet = Internet::start().await?;
    let options = internet.options().set(r#"queue.retry.schedule=["1s"]"#);
    let posthorn = Posthorn::start_with(options).await?;
    prefers_the_lowest(&internet, &posthorn).await?;
    goes_on_to_the_next(&internet, &posthorn).await?;
    does_without_mx(&internet, &posthorn).await?;
    follows_aliases(&internet, &posthorn).await?;
    prefers_routes(&internet, &posthorn).await?;
    waits_for_a_dns_in_trouble(&internet, &posthorn).await?;
    bounces_what_takes_no_mail(&internet, &posthorn).await
}

async fn prefers_the_lowest(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    internet.dns.mx("pref.test", 20, "b.pref.test").mx("pref.test", 10, "a.pref.test");
    let first = internet.server("a.pref.test", |script| script).await?;
    let second = internet.server("b.pref.test", |script| script).await?;
    let content = letter("Preference", "x\n.\n..");
    let id = posthorn.send(BOB, &["dave@pref.test"], &content).await?;
    let messages = first.received(1).await;
    ensure!(messages.len() == 1 && second.connections() == 0);
    let message = &messages[0];
    ensure!(message.content.ends_with(&content), "{}", message.content.escape_ascii());
    ensure!(message.mail.starts_with(&format!("<{BOB}>")), "{message:?}");
    ensure!(message.rcpt.len() == 1 && message.rcpt[0].starts_with("<dave@pref.test>"), "{message:?}");
    let delivered = posthorn.wait_for_event(&id, EventKind::Delivered).await;
    let server = delivered.server.clone().unwrap_or_default();
    ensure!(server.host == "a.pref.test" && server.address == first.address().to_string(), "{delivered:?}");
    ensure!(delivered.status.is_some_and(|status| status.code == 250 && status.text.contains("taken")));
    Ok(())
}

async fn goes_on_to_the_next(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    internet.dns.mx("fail.test", 10, "dead.fail.test").mx("fail.test", 20, "busy.fail.test");
    internet.dns.mx("fail.test", 30, "well.fail.test");
    internet.host("dead.fail.test");
    let busy = |script: posthorn_testkit::smtp_server::Script| {
        script.rule(Rule::at(At::Connect).replies_and_closes("421 4.3.2 busy"))
    };
    let busy = internet.server("busy.fail.test", busy).await?;
    let well = internet.server("well.fail.test", |script| script).await?;
    let id = posthorn.send(BOB, &["dave@fail.test"], &letter("Fail-over", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(well.messages().len() == 1 && busy.connections() > 0);
    let deferrals = events.iter().filter(|event| event.kind() == EventKind::Deferred).count();
    ensure!(deferrals == 0, "all hosts belong to one attempt: {events:?}");
    Ok(())
}

async fn does_without_mx(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.server("implicit.test", |script| script).await?;
    posthorn.send(BOB, &["dave@implicit.test"], &letter("Implicit", "x")).await?;
    ensure!(server.received(1).await.len() == 1);
    Ok(())
}

async fn follows_aliases(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("real.test", |script| script).await?;
    internet.dns.cname("alias.test", "real.test");
    posthorn.send(BOB, &["dave@alias.test"], &letter("CNAME", "x")).await?;
    ensure!(server.received(1).await.len() == 1);
    Ok(())
}

async fn prefers_routes(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let by_dns = internet.domain("routed.test", |script| script).await?;
    let by_route = internet.server("inside.test", |script| script).await?;
    let dead = internet.host("dead.inside.test");
    let hosts = [format!("{dead}:{}", internet.port()), by_route.address().to_string()];
    posthorn.ctl(&["route", "create", "routed.test", &hosts[0], &hosts[1]]).await?;
    posthorn.send(BOB, &["dave@routed.test"], &letter("Route", "x")).await?;
    ensure!(by_route.received(1).await.len() == 1 && by_dns.connections() == 0);
    Ok(())
}

async fn waits_for_a_dns_in_trouble(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let server = internet.domain("trouble.test", |script| script).await?;
    internet.dns.trouble("trouble.test", Trouble::ServFail);
    let id = posthorn.send(BOB, &["dave@trouble.test"], &letter("SERVFAIL", "x")).await?;
    let deferred = posthorn.wait_for_event(&id, EventKind::Deferred).await;
    let status = deferred.status.unwrap_or_default();
    ensure!(status.code / 100 == 4 && status.enhanced.starts_with("4.4."), "{status:?}");
    internet.dns.recover("trouble.test");
    server.received(1).await;
    Ok(())
}

/// RFC 7505, and a domain that is not there.
async fn bounces_what_takes_no_mail(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    internet.dns.mx("null.test", 0, ".");
    let to = ["dave@null.test", "dave@missing.test"];
    let id = posthorn.send(BOB, &to, &letter("Nowhere", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    let mut failed = Vec::new();
    for mail in posthorn.wait_for_mail(BOB, 1).await? {
        failed.extend(Report::parse(&mail.raw)?.recipients);
    }
    failed.sort_by_key(|recipient| recipient.final_recipient.to_string());
    let told: Vec<_> =
        failed.iter().map(|r| (r.final_recipient.to_string(), r.action, r.status.to_string())).collect();
    let wanted = [("dave@missing.test", "5.1.2"), ("dave@null.test", "5.1.10")];
    ensure!(
        told == wanted.map(|(address, status)| (address.to_owned(), Action::Failed, status.to_owned())),
        "{told:?} after {events:?}"
    );
    Ok(())
}
