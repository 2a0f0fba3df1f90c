//! Callers from elsewhere need an API key, and see the mailboxes of its tenant alone.

use posthorn_api::mailbox::v1 as api;
use tonic::{Code, Request};

use crate::world::{ALICE, KEY, OTHER_SCOPE, OTHER_TENANT, World};

fn list(key: Option<&str>) -> Request<api::ListFoldersRequest> {
    let mut request = Request::new(api::ListFoldersRequest { mailbox: ALICE.into() });
    if let Some(key) = key {
        request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_mailboxes_of_its_tenant() {
    let mut world = World::start_with(|config| config.trusted_networks = Default::default()).await;
    world.account(ALICE, 0);
    for (key, code) in [
        (None, Code::Unauthenticated),
        (Some("pk_unknown"), Code::Unauthenticated),
        (Some(OTHER_SCOPE), Code::PermissionDenied),
        (Some(OTHER_TENANT), Code::NotFound),
        (Some(KEY), Code::Ok),
        // From memory.
        (Some(KEY), Code::Ok),
    ] {
        let answer = world.mailbox.list_folders(list(key)).await;
        assert_eq!(answer.err().map_or(Code::Ok, |status| status.code()), code, "{key:?}");
    }
    let refused = world.append("INBOX", &[], b"x", 1).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_caller_with_a_key_has_no_more_than_the_key() {
    let mut world = World::start().await;
    world.account(ALICE, 0);
    world.mailbox.list_folders(list(None)).await.unwrap();
    let refused = world.mailbox.list_folders(list(Some(OTHER_TENANT))).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}
