//! RFC 3461: NOTIFY, RET, ENVID and ORCPT.

use anyhow::{Result, ensure};
use posthorn_api::trace::v1::EventKind;
use posthorn_dsn::{Action, Report, Returned};
use posthorn_e2e::{Internet, Posthorn, letter, queued_as};
use posthorn_testkit::smtp_client::SmtpClient;
use posthorn_testkit::smtp_server::{At, Rule};

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn and_nothing_else() -> Result<()> {
    let internet = Internet::start().await?;
    let posthorn = Posthorn::start_with(internet.options()).await?;
    success_in_a_mailbox(&posthorn).await?;
    success_beyond(&internet, &posthorn).await?;
    failure(&internet, &posthorn).await
}

/// Sends with parameters; what was asked is in them.
async fn send(posthorn: &Posthorn, mail: &str, rcpt: &[&str]) -> Result<String> {
    let (mut client, _) = SmtpClient::connect(posthorn.smtp()).await?;
    client.expect("EHLO client.test", 250).await?;
    client.expect(&format!("MAIL FROM:<{BOB}> {mail}"), 250).await?;
    for rcpt in rcpt {
        client.expect(&format!("RCPT TO:{rcpt}"), 250).await?;
    }
    queued_as(&client.data(&letter("Asked for", "secret words")).await?)
}

async fn notices(posthorn: &Posthorn, count: usize) -> Result<Vec<Report>> {
    let mails = posthorn.wait_for_mail(BOB, count).await?;
    ensure!(mails.len() == count, "{count} notices and no more, not {}", mails.len());
    mails.iter().map(|mail| Ok(Report::parse(&mail.raw)?)).collect()
}

async fn success_in_a_mailbox(posthorn: &Posthorn) -> Result<()> {
    let rcpt = format!("<{ALICE}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Alice+2BX@example.test");
    let id = send(posthorn, "RET=HDRS ENVID=order+2B17", &[&rcpt]).await?;
    posthorn.wait_for_end(&id).await;
    let report = &notices(posthorn, 1).await?[0];
    ensure!(report.envelope_id.as_deref() == Some("order+17"), "{report:?}");
    let told = &report.recipients[0];
    ensure!(told.action == Action::Delivered && told.status.to_string().starts_with("2."), "{told:?}");
    ensure!(told.final_recipient.to_string() == ALICE, "{told:?}");
    ensure!(told.original_recipient.as_deref() == Some("rfc822;Alice+X@example.test"), "{told:?}");
    // A notice of success brings no message back, RET or not (RFC 3461 §4.3).
    ensure!(!matches!(report.returned, Returned::Full(_)), "{report:?}");
    Ok(())
}

/// A server with DSN is asked for it; for one without, "relayed" is all that can be said.
async fn success_beyond(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let knows = internet.domain("knows.test", |script| script).await?;
    let lacks = internet.domain("lacks.test", |script| script.without("DSN")).await?;
    let rcpt =
        ["<dave@knows.test> NOTIFY=SUCCESS ORCPT=rfc822;D@knows.test", "<dave@lacks.test> NOTIFY=SUCCESS"];
    let id = send(posthorn, "RET=FULL ENVID=id-2", &rcpt).await?;
    posthorn.wait_for_end(&id).await;
    let asked = &knows.received(1).await[0];
    ensure!(asked.mail.contains("RET=FULL") && asked.mail.contains("ENVID=id-2"), "{asked:?}");
    ensure!(asked.rcpt[0].contains("NOTIFY=SUCCESS") && asked.rcpt[0].contains("ORCPT=rfc822;D@knows.test"));
    lacks.received(1).await;
    let report = &notices(posthorn, 2).await?[1];
    ensure!(report.recipients.len() == 1, "{report:?}");
    let told = &report.recipients[0];
    ensure!(told.action == Action::Relayed && told.final_recipient.to_string() == "dave@lacks.test");
    ensure!(told.remote_mta.as_deref() == Some("mx.lacks.test"), "{told:?}");
    Ok(())
}

async fn failure(internet: &Internet, posthorn: &Posthorn) -> Result<()> {
    let refuses = |rule: Rule| rule.replies("550 5.1.1 no such user");
    let _server = internet.domain("no.test", |s| s.rule(refuses(Rule::at(At::Rcpt)))).await?;
    // Nobody is to be told of the first, and of the second only success.
    let rcpt = [
        "<a@no.test> NOTIFY=NEVER",
        "<b@no.test> NOTIFY=SUCCESS",
        "<c@no.test>",
        "<d@no.test> NOTIFY=FAILURE",
    ];
    let id = send(posthorn, "RET=HDRS", &rcpt).await?;
    let events = posthorn.wait_for_end(&id).await;
    let failed = events.iter().filter(|event| event.kind() == EventKind::Failed).count();
    ensure!(failed == rcpt.len(), "{events:?}");
    let report = &notices(posthorn, 3).await?[2];
    let mut told: Vec<_> = report.recipients.iter().map(|told| told.final_recipient.to_string()).collect();
    told.sort();
    ensure!(told == ["c@no.test", "d@no.test"], "{report:?}");
    let Returned::Headers(headers) = &report.returned else { anyhow::bail!("only the headers: {report:?}") };
    let headers = String::from_utf8_lossy(headers);
    ensure!(headers.contains("Subject: Asked for") && !headers.contains("secret words"), "{headers}");
    Ok(())
}
