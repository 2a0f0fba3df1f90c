//! Explain: the decision, its steps, and the hosts, for a person to read.

use posthorn_api::directory::v1 as wire;
use posthorn_mail::{Address, ReversePath};
use tonic::Status;

use crate::decide::{Decision, Target};
use crate::grpc::failed;
use crate::router::{Resolved, Router};

pub(crate) async fn explain(
    router: &Router,
    request: wire::ExplainRequest,
) -> Result<wire::ExplainResponse, Status> {
    let address: Address = posthorn_api::parse_field("address", &request.address)?;
    let sender: ReversePath = posthorn_api::parse_field("sender", &request.sender)?;
    let explanation = router.explain(&sender, &address).await.map_err(|error| failed("address", error))?;
    let mut steps = explanation.steps;
    let mut targets = Vec::with_capacity(explanation.targets.len());
    for target in explanation.targets {
        steps.push(target.reason.clone());
        if let Some(sender) = &target.sender {
            steps.push(format!("failures of the copy for {} are told to {sender}", target.address));
        }
        targets.push(explained(router, target).await?);
    }
    Ok(wire::ExplainResponse { steps, targets })
}

async fn explained(router: &Router, target: Target) -> Result<wire::ExplainedTarget, Status> {
    let mut hosts = Vec::new();
    let (decision, detail) = match target.decision {
        Decision::Local { account_id, .. } => ("local", format!("account {account_id}")),
        Decision::Fail(status) => ("fail", status.to_string()),
        Decision::Later(status) => ("later", status.to_string()),
        Decision::Remote { destination, host } => {
            let mut detail = destination.to_string();
            match router.destination(&host).await.map_err(|error| failed("address", error))? {
                Resolved::Servers(found) => hosts.extend(found.servers.iter().map(ToString::to_string)),
                // Of the hosts of a route only the relay asks for the addresses.
                Resolved::Refused(status) => detail += &format!(": {status}"),
                Resolved::Local => {}
            }
            ("remote", detail)
        }
    };
    let address = target.address.to_string();
    Ok(wire::ExplainedTarget { address, decision: decision.into(), detail, hosts })
}
