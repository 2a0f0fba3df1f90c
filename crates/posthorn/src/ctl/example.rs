//! `ctl example`: the domain and the accounts to try things with.

use std::time::Duration;

use anyhow::{Context as _, Result};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;
use posthorn_api::directory::v1::{Account, CreateAccountRequest, CreateDomainRequest, Domain};
use serde::Serialize;
use tonic::Code;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as ResponseBody, Bytes, StdError};

use super::connect::Services;
use super::output::{Output, Table};

const DOMAIN: &str = "example.test";
const ACCOUNTS: [&str; 2] = ["alice@example.test", "bob@example.test"];
const PASSWORD: &str = "posthorn";

/// Nothing to choose: it is always the same.
#[derive(Debug, clap::Args)]
pub(super) struct Example {}

#[derive(Serialize)]
struct Row {
    account: &'static str,
    password: &'static str,
}

impl Example {
    pub(super) async fn run(self, services: &Services, out: &mut Output<'_>) -> Result<()> {
        make(&mut services.directory().await?).await?;
        let rows = ACCOUNTS.map(|account| Row { account, password: PASSWORD });
        Table::new(&["account", "password"]).rows(out, &rows)?;
        Ok(())
    }
}

/// Makes `example.test` with `alice` and `bob`; what there is of them already stays as it is.
pub(crate) async fn make<T>(directory: &mut DirectoryServiceClient<T>) -> Result<()>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: ResponseBody<Data = Bytes> + Send + 'static,
    <T::ResponseBody as ResponseBody>::Error: Into<StdError> + Send,
{
    let domain = Domain { name: DOMAIN.into(), ..Domain::default() };
    made(directory.create_domain(deadline(CreateDomainRequest { domain: Some(domain) })).await)?;
    for address in ACCOUNTS {
        let account = Account { address: address.into(), ..Account::default() };
        let request = CreateAccountRequest { account: Some(account), password: PASSWORD.into() };
        made(directory.create_account(deadline(request)).await)?;
    }
    Ok(())
}

fn deadline<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    request
}

/// A first run that was cut off may have made some of them.
fn made<T>(result: Result<T, tonic::Status>) -> Result<()> {
    match result {
        Err(status) if status.code() != Code::AlreadyExists => {
            Err(status).context("making the example's domain and accounts")
        }
        Ok(_) | Err(_) => Ok(()),
    }
}
