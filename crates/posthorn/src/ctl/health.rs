//! `ctl health`

use anyhow::{Result, bail};
use serde::Serialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::connect::{Service, Services, explain};
use super::output::{Output, Table};

#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// Only this one
    #[arg(long, value_name = "NAME")]
    service: Option<Service>,
}

/// A service's health as it is printed.
#[derive(Serialize)]
struct Row {
    service: String,
    url: String,
    serving: bool,
    detail: String,
}

impl Health {
    /// Fails unless all that were asked serve.
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        let asked = self.service.map_or(Service::ALL.to_vec(), |service| vec![service]);
        let rows = futures::future::join_all(asked.into_iter().map(|service| check(services, service))).await;
        Table::new(&["service", "serving", "url", "detail"]).rows(out, &rows)?;
        let ill: Vec<&str> = rows.iter().filter(|row| !row.serving).map(|row| row.service.as_str()).collect();
        if ill.is_empty() { Ok(()) } else { bail!("not serving: {}", ill.join(", ")) }
    }
}

async fn check(services: &Services, service: Service) -> Row {
    let answer = async {
        let mut client = services.health(service).await?;
        anyhow::Ok(client.check(HealthCheckRequest::default()).await?.into_inner().status())
    }
    .await;
    let (serving, detail) = match answer {
        Ok(ServingStatus::Serving) => (true, String::new()),
        Ok(_) => (false, "it answers, but waits for what it needs: its log and /readyz say what".to_owned()),
        Err(error) => (false, explain(error).to_string()),
    };
    Row { service: service.to_string(), url: services.url(service), serving, detail }
}
