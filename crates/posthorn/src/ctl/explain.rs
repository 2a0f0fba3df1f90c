//! `ctl explain`

use anyhow::Result;
use posthorn_api::directory::v1 as api;
use serde::Serialize;

use super::connect::Services;
use super::output::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    address: String,
    /// As if this sender wrote; without it, the null sender
    #[arg(long = "from", value_name = "ADDRESS")]
    sender: Option<String>,
}

/// The answer as it is printed.
#[derive(Serialize)]
struct Explanation {
    address: String,
    steps: Vec<String>,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Target {
    address: String,
    decision: String,
    detail: String,
    hosts: Vec<String>,
}

impl Explain {
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let mut directory = services.directory().await?;
        let request =
            api::ExplainRequest { address: self.address.clone(), sender: self.sender.unwrap_or_default() };
        let answer = directory.explain(request).await?.into_inner();
        let target = |target: api::ExplainedTarget| Target {
            address: target.address,
            decision: target.decision,
            detail: target.detail,
            hosts: target.hosts,
        };
        let explanation = Explanation {
            address: self.address,
            steps: answer.steps,
            targets: answer.targets.into_iter().map(target).collect(),
        };
        if out.json() {
            return Ok(out.object(&explanation)?);
        }
        for step in &explanation.steps {
            out.line(&format!("- {step}"))?;
        }
        for target in &explanation.targets {
            out.line(&format!("=> {}: {}: {}", target.address, target.decision, target.detail))?;
            for (number, host) in (1..).zip(&target.hosts) {
                out.line(&format!("   {number}. {host}"))?;
            }
        }
        Ok(())
    }
}
