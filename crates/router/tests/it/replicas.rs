//! Several routers on one directory.

use std::time::Duration;

use posthorn_api::directory::v1 as directory;
use posthorn_api::routing::v1 as wire;
use posthorn_testkit::wait;
use sqlx::Connection as _;

use crate::running::{LIMIT, Router, database};

async fn asked(router: &mut Router, recipient: &str) -> Result<bool, tonic::Status> {
    let request = wire::VerifyRequest { recipients: vec![recipient.into()] };
    let results = router.routing.verify(request).await?.into_inner().results;
    Ok(matches!(results[0].result, Some(wire::verify_result::Result::Local(_))))
}

async fn is_taken(router: &mut Router, recipient: &str) -> bool {
    asked(router, recipient).await.unwrap()
}

async fn until(router: &mut Router, recipient: &str, taken: bool) {
    let what = format!("{recipient} to be taken: {taken}");
    // No answer for a moment, where connections to the directory were cut, is no answer to the question.
    let answered = async || asked(router, recipient).await.is_ok_and(|answer| answer == taken).then_some(());
    wait::until(&what, LIMIT, answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_one_is_seen_by_the_other() {
    let database = database().await;
    let (mut one, mut other) = (Router::start(&database, &[]).await, Router::start(&database, &[]).await);
    one.domain("example.test").await;
    until(&mut other, "alice@example.test", false).await;
    one.account("alice@example.test").await;
    until(&mut other, "alice@example.test", true).await;
    let request = directory::DeleteAccountRequest { address: "alice@example.test".into() };
    other.directory.delete_account(request).await.unwrap();
    until(&mut one, "alice@example.test", false).await;
    let domain = directory::Domain {
        name: "example.test".into(),
        catch_all: "someone@example.net".into(),
        ..Default::default()
    };
    other.directory.update_domain(directory::UpdateDomainRequest { domain: Some(domain) }).await.unwrap();
    until(&mut one, "alice@example.test", true).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_missed_while_the_listener_was_away_is_seen() {
    let database = database().await;
    // Another makes the domain: the notice of it, come late, would make this one forget what it is to keep.
    let mut other = Router::start(&database, &[]).await;
    other.domain("example.test").await;
    other.stop().await;
    let mut router = Router::start(&database, &[]).await;
    assert!(!is_taken(&mut router, "alice@example.test").await);
    // A change that nobody is told of, and then the listener's connection is cut.
    let mut owner = sqlx::PgConnection::connect(&database).await.unwrap();
    for statement in [
        "SET session_replication_role = replica",
        "INSERT INTO directory.addresses VALUES ('example.test', 'alice', 'alias')",
        "INSERT INTO directory.aliases (domain, local, targets)
             VALUES ('example.test', 'alice', '{bob@example.net}')",
    ] {
        sqlx::query(statement).execute(&mut owner).await.unwrap();
    }
    assert!(!is_taken(&mut router, "alice@example.test").await, "it is kept that there is none");
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE usename = 'posthorn_router' AND datname = current_database()",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    until(&mut router, "alice@example.test", true).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_spares_the_directory() {
    let database = database().await;
    let mut router = Router::start(&database, &[]).await;
    router.domain("example.test").await;
    router.account("alice@example.test").await;
    until(&mut router, "alice@example.test", true).await;
    let mut owner = sqlx::PgConnection::connect(&database).await.unwrap();
    // What a late notice made it forget is kept from the next answer on.
    wait::until("an answer without the directory", LIMIT, async || {
        assert!(is_taken(&mut router, "alice@example.test").await);
        let mut lock = owner.begin().await.unwrap();
        let tables = "LOCK TABLE directory.addresses, directory.domains IN ACCESS EXCLUSIVE MODE";
        sqlx::query(tables).execute(&mut *lock).await.unwrap();
        let asked = is_taken(&mut router, "alice@example.test");
        let answered = tokio::time::timeout(Duration::from_millis(500), asked).await;
        lock.rollback().await.unwrap();
        answered.is_ok_and(|taken| taken).then_some(())
    })
    .await;
    router.stop().await;
}
