//! A server elsewhere takes the message and drops the connection before, during and after its 250.

use std::time::Duration;

use anyhow::Result;
use posthorn_e2e::account::Leases;
use posthorn_testkit::smtp_server::{At, Rule};
use posthorn_testkit::wait;

use crate::storm::{Storm, usual};

/// How often each.
const TIMES: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn around_their_250() -> Result<()> {
    let mut storm = Storm::start().await?;
    for (name, rule) in [
        ("before", Rule::at(At::EndOfData).first(TIMES).drops()),
        ("during", Rule::at(At::EndOfData).first(TIMES).breaks_off("250 2.0.0 tak")),
        ("after", Rule::at(At::EndOfData).first(TIMES).replies_and_closes("250 2.0.0 taken")),
    ] {
        storm
            .blow(&format!("the server drops {name} its 250"), Leases::Kept, async |storm| {
                let taken = storm.server.messages().len();
                storm.server.follow(usual().rule(rule));
                wait::until("the server's drops", Duration::from_secs(60), async || {
                    (storm.server.messages().len() > taken + TIMES).then_some(())
                })
                .await;
                Ok(())
            })
            .await?;
    }
    storm.server.follow(usual());
    storm.finish().await?;
    Ok(())
}
