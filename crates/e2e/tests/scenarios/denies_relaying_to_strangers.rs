//! An open relay carries the world's spam: mail for others is taken only from those we know.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use posthorn_e2e::{Options, Posthorn};
use posthorn_testkit::smtp_client::SmtpClient;

const FRIEND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[tokio::test(flavor = "multi_thread")]
async fn relays_for_trusted_networks_alone() -> Result<()> {
    let options = Options::default().set(r#"ingress.trusted_networks=["127.0.0.2/32"]"#);
    let posthorn = Posthorn::start_with(options).await?;
    for server in [posthorn.smtp(), posthorn.submission()] {
        for (client, remote, own) in [(FRIEND, 250, 250), (STRANGER, 550, 250)] {
            let (mut client, _) = SmtpClient::connect_from(client.into(), server).await?;
            client.expect("EHLO client.test", 250).await?;
            if server == posthorn.submission() && remote != 250 {
                // RFC 6409 §4.3: submission is not for strangers at all.
                client.expect("MAIL FROM:<carol@elsewhere.test>", 530).await?;
                continue;
            }
            client.expect("MAIL FROM:<carol@elsewhere.test>", 250).await?;
            let reply = client.expect("RCPT TO:<dave@remote.test>", remote).await?;
            ensure!(remote == 250 || reply.text.starts_with("5.7.1 "), "{reply:?}");
            // Tricks of old: a route, and a percent sign in a local part of ours (RFC 5321 §3.6.1).
            let reply = client.command("RCPT TO:<dave%remote.test@example.test>").await?;
            ensure!(reply.code == 550, "{reply:?}");
            if remote != 250 {
                let reply = client.command("RCPT TO:<@example.test:dave@remote.test>").await?;
                ensure!(reply.code >= 500, "{reply:?}");
            }
            client.expect("RCPT TO:<alice@example.test>", own).await?;
        }
    }
    Ok(())
}
