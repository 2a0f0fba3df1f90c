//! What may be taken.

use std::time::{Duration, Instant};

use posthorn_api::directory::v1 as directory;
use posthorn_api::routing::v1 as wire;
use posthorn_testkit::dns::Dns;
use posthorn_testkit::proxy::{Flow, Proxy};

use crate::running::{Router, database};

/// What Verify says of each, shortly: "local TENANT", "relay", or the status.
async fn verify(router: &mut Router, recipients: &[&str]) -> Vec<String> {
    let request = wire::VerifyRequest { recipients: recipients.iter().map(|r| (*r).to_owned()).collect() };
    let results = router.routing.verify(request).await.unwrap().into_inner().results;
    results
        .into_iter()
        .map(|result| match result.result.unwrap() {
            wire::verify_result::Result::Local(local) => format!("local {}", local.tenant_id),
            wire::verify_result::Result::Relay(_) => "relay".to_owned(),
            wire::verify_result::Result::Refused(status) => format!("{} {}", status.code, status.enhanced),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_has_its_answer() {
    let dns = Dns::start().await;
    let mut router = Router::with_users(&dns, &[]).await;
    router.alias("sales@example.test", &["bob@example.test"]).await;
    let cases = [
        ("alice@example.test", "local default"),
        ("Alice@EXAMPLE.test", "local default"),
        ("alice+news@example.test", "local default"),
        ("sales@example.test", "local default"),
        ("nobody@example.test", "550 5.1.1"),
        ("postmaster@example.test", "451 4.3.5"),
        ("someone@example.net", "relay"),
        ("someone@[192.0.2.1]", "relay"),
        ("no address", "553 5.1.3"),
    ];
    let recipients: Vec<&str> = cases.iter().map(|(recipient, _)| *recipient).collect();
    let answers = verify(&mut router, &recipients).await;
    for ((recipient, want), got) in cases.iter().zip(answers) {
        assert_eq!(got, *want, "{recipient}");
    }
    assert_eq!(dns.asked("example.net", "MX"), 0, "the DNS is not asked at RCPT time");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_known_once_created() {
    let dns = Dns::start().await;
    let mut router = Router::with_users(&dns, &[("router.postmaster", "alice@example.test")]).await;
    assert_eq!(verify(&mut router, &["carol@example.test"]).await, ["550 5.1.1"]);
    router.account("carol@example.test").await;
    assert_eq!(verify(&mut router, &["carol@example.test"]).await, ["local default"]);
    assert_eq!(verify(&mut router, &["PostMaster@example.test"]).await, ["local default"]);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_a_domain_is_does_not_depend_on_the_user() {
    let dns = Dns::start().await;
    let mut router = Router::with_users(&dns, &[]).await;
    let recipients = ["alice@example.test", "nobody@example.test", "someone@example.net", "no address"];
    let request = wire::VerifyRequest { recipients: recipients.map(str::to_owned).into() };
    let results = router.routing.verify(request).await.unwrap().into_inner().results;
    let tenants: Vec<&str> = results.iter().map(|result| result.tenant_id.as_str()).collect();
    assert_eq!(tenants, ["default", "default", "", ""]);
    let kept: Vec<bool> = results.iter().map(|result| result.cache_for.is_some()).collect();
    assert_eq!(kept, [true, false, true, false], "only what may be taken is to be kept");
    let target = |result: &wire::VerifyResult| match &result.result {
        Some(wire::verify_result::Result::Local(local)) => Some(local.target.as_ref()?.address.clone()),
        _ => None,
    };
    let targets: Vec<_> = results.iter().map(target).collect();
    assert_eq!(targets, [Some("alice@example.test".to_owned()), None, None, None]);
    router.stop().await;
}

/// Whoever keeps answers is told of a change before it is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_answered_when_those_who_keep_answers_have_forgotten_them() {
    let database = database().await;
    // Another makes the user: the notices of that, come late, would be taken for the change.
    let mut other = Router::start(&database, &[]).await;
    other.domain("example.test").await;
    other.account("alice@example.test").await;
    other.stop().await;
    let mut router = Router::start(&database, &[]).await;
    let (confirm, confirmed) = tokio::sync::mpsc::channel(1);
    let confirmed = tokio_stream::wrappers::ReceiverStream::new(confirmed);
    let mut told = router.routing.watch_directory(confirmed).await.unwrap().into_inner();
    let first = told.message().await.unwrap().unwrap().generation;
    confirm.send(wire::WatchDirectoryRequest { generation: first }).await.unwrap();

    let mut directory = router.directory.clone();
    let request = directory::DeleteAccountRequest { address: "alice@example.test".into() };
    let at = Instant::now();
    let deleting = tokio::spawn(async move { directory.delete_account(request).await });
    let changed = told.message().await.unwrap().unwrap().generation;
    assert!(changed > first);
    assert_eq!(verify(&mut router, &["alice@example.test"]).await, ["550 5.1.1"], "it is asked at once");
    assert!(
        !deleting.is_finished() || at.elapsed() >= Duration::from_secs(1),
        "it waits, though not for long"
    );
    // What Postgres tells may come before or after.
    confirm.send(wire::WatchDirectoryRequest { generation: changed + 1 }).await.unwrap();
    deleting.await.unwrap().unwrap();

    let stopping = tokio::spawn(router.stop());
    while told.message().await.is_ok_and(|told| told.is_some()) {}
    stopping.await.unwrap();
}

/// Found by an audit: a statement over a connection that has become silent waited for as long as TCP does.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_silent_is_away() {
    let (proxy, through) = Proxy::before_postgres(&database().await).await.unwrap();
    let limits = [("router.database.acquire_timeout", "1s"), ("router.database.statement_timeout", "1s")];
    let mut router = Router::start(&through, &limits).await;
    router.domain("example.test").await;
    // Over the connection that has just been used.
    proxy.set(Flow::HalfOpen);
    let request = wire::VerifyRequest { recipients: vec!["alice@example.test".to_owned()] };
    let answer = tokio::time::timeout(Duration::from_secs(30), router.routing.verify(request));
    let answer = answer.await.expect("an answer in time");
    assert_eq!(answer.unwrap_err().code(), tonic::Code::Unavailable);
    router.stop().await;
}
