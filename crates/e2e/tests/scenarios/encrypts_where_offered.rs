//! STARTTLS is used where it is offered, whoever signed the certificate; where it fails, mail goes in the clear
//! (RFC 7435).

use anyhow::{Result, ensure};
use posthorn_api::trace::v1::EventKind;
use posthorn_e2e::{Internet, Posthorn, letter};
use posthorn_testkit::smtp_server::Script;

const BOB: &str = "bob@example.test";

#[tokio::test(flavor = "multi_thread")]
async fn and_goes_in_the_clear_otherwise() -> Result<()> {
    let internet = Internet::start().await?;
    let posthorn = Posthorn::start_with(internet.options()).await?;
    let tls = internet.domain("tls.test", Script::starttls).await?;
    let broken = internet.domain("broken.test", Script::broken_starttls).await?;
    let id = posthorn.send(BOB, &["dave@tls.test"], &letter("Encrypted", "x")).await?;
    ensure!(tls.received(1).await[0].tls);
    let server = posthorn.wait_for_event(&id, EventKind::Delivered).await.server.unwrap_or_default();
    ensure!(server.tls.contains("TLS"), "{server:?}");

    let id = posthorn.send(BOB, &["dave@broken.test"], &letter("In the clear", "x")).await?;
    ensure!(!broken.received(1).await[0].tls);
    let server = posthorn.wait_for_event(&id, EventKind::Delivered).await.server.unwrap_or_default();
    ensure!(server.tls.is_empty(), "{server:?}");
    Ok(())
}
