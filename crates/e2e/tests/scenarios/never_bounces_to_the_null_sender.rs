//! A notice about a notice would go round for ever (RFC 5321 §4.5.5).

use anyhow::{Result, ensure};
use posthorn_api::trace::v1::EventKind;
use posthorn_e2e::{Internet, Posthorn, letter};
use posthorn_testkit::smtp_server::{At, Rule};

#[tokio::test(flavor = "multi_thread")]
async fn but_lets_it_end() -> Result<()> {
    let internet = Internet::start().await?;
    let posthorn = Posthorn::start_with(internet.options()).await?;
    let rule = Rule::at(At::Rcpt).replies("550 5.1.1 no such user");
    let server = internet.domain("no.test", |script| script.rule(rule)).await?;

    let id = posthorn.send("", &["dave@no.test"], &letter("From nobody", "x")).await?;
    let events = posthorn.wait_for_end(&id).await;
    ensure!(events.iter().any(|event| event.kind() == EventKind::Failed), "{events:?}");
    ensure!(!events.iter().any(|event| event.kind() == EventKind::Notice), "{events:?}");

    // The notice to a sender that is not there: it ends, and nobody hears of it.
    let id = posthorn.send("erin@no.test", &["dave@no.test"], &letter("From someone", "x")).await?;
    let notice = posthorn.wait_for_event(&id, EventKind::Notice).await.detail;
    let events = posthorn.wait_for_end(&notice).await;
    ensure!(events.iter().any(|event| event.kind() == EventKind::Failed), "{events:?}");
    ensure!(!events.iter().any(|event| event.kind() == EventKind::Notice), "{events:?}");
    let from_nobody = server.lines().iter().filter(|line| line.starts_with("MAIL FROM:<>")).count();
    ensure!(from_nobody == 2, "{:?}", server.lines());
    for mailbox in ["alice@example.test", "bob@example.test"] {
        ensure!(posthorn.list(mailbox).await?.is_empty());
    }
    posthorn.wait_until_empty(std::time::Duration::from_secs(60)).await;
    Ok(())
}
