//! The domain and the accounts to try things with.

use std::path::Path;

use anyhow::{Context as _, Result};
use posthorn_api::directory::v1::directory_service_client::DirectoryServiceClient;

use crate::ctl::example;

/// Makes `example.test` with `alice` and `bob` unless this directory has seen it done: what the user deletes later
/// stays deleted.
pub(super) async fn prepare(router: &str, data: &Path) -> Result<()> {
    let done = data.join("first-run-done");
    if done.exists() {
        return Ok(());
    }
    let mut directory = DirectoryServiceClient::new(posthorn_service::connect(router)?);
    example::make(&mut directory).await?;
    std::fs::write(&done, "").context("noting that the first run is done")
}
