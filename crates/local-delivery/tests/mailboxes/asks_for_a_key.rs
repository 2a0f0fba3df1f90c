//! Callers from elsewhere need an API key, and see the mailboxes of its tenant alone.

use std::time::Duration;

use posthorn_api::error::reason;
use posthorn_api::mailbox::v1 as api;
use tonic::{Code, Request};

use crate::world::{ALICE, KEY, LIMIT, OTHER_SCOPE, OTHER_TENANT, World};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_key() {
    let mut world = World::start_with(|config| {
        config.trusted_networks = Default::default();
        config.mailbox.recheck_watched_every = Duration::from_millis(50);
    })
    .await;
    let alice = world.account(ALICE, 0);
    let watch = api::WatchRequest { mailbox: ALICE.into(), folder: String::new(), after_modseq: None };
    let mut request = Request::new(watch);
    request.metadata_mut().insert("authorization", format!("Bearer {KEY}").parse().unwrap());
    let mut changes = world.mailbox.watch(request).await.unwrap().into_inner();
    changes.message().await.unwrap().expect("it has started");
    world.until_asked(2).await;
    world.deliver(alice, "Subject: x\r\n\r\n").await;
    changes.message().await.unwrap().expect("the key is good: it goes on");
    world.revoke_key();
    let end = tokio::time::timeout(LIMIT, changes.message()).await.expect("it ends").unwrap_err();
    assert_eq!((end.code(), reason(&end).as_deref()), (Code::Unauthenticated, Some("API_KEY_REFUSED")));
}
