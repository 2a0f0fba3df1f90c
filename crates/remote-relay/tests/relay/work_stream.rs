//! The relay and the queue: credits, what happens when the stream breaks, and stopping.

use std::time::Duration;

use crate::support::{MESSAGE, PATIENCE, World, item, server};
use posthorn_testkit::smtp_server::{At, Rule, Script};
use posthorn_testkit::wait;

#[tokio::test]
async fn each_ended_batch_gives_its_credit_back() {
    let (world, server) =
        (World::start(&[("relay.connections", "3")]).await, server(Script::named("mx")).await);
    world.router.hosts("example.org", &[("mx1.test", server.address())]);
    wait::until("credits", PATIENCE, async || (world.queue.told().credits == 3).then_some(())).await;
    for token in ["t1", "t2"] {
        let (_, first) = item(&["b@example.org"], MESSAGE);
        let (_, second) = item(&["b@example.org"], MESSAGE);
        world.queue.give(token, vec![first, second]);
    }
    wait::until("credits", PATIENCE, async || (world.queue.told().credits == 5).then_some(())).await;
    assert_eq!(world.queue.told().outcomes.len(), 4);
}

#[tokio::test]
async fn outcomes_found_while_the_queue_was_away_are_reported_when_it_is_back() {
    let script = Script::named("mx1.test").rule(Rule::at(At::EndOfData).waits(Duration::from_millis(300)));
    let (world, server) = (World::start(&[]).await, server(script).await);
    world.router.hosts("example.org", &[("mx1.test", server.address())]);
    let (id, item) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    server.received(1).await;
    world.queue.break_streams(false);
    assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
    assert_eq!((world.queue.told().streams, server.messages().len()), (2, 1));
}

#[tokio::test]
async fn nothing_is_begun_on_a_lease_that_has_ended() {
    let script = Script::named("mx1.test").rule(Rule::at(At::EndOfData).waits(Duration::from_secs(2)));
    let (world, server) = (World::start(&[]).await, server(script).await);
    world.router.hosts("example.org", &[("mx1.test", server.address())]);
    let [(first, item_1), (second, item_2)] =
        [item(&["b@example.org"], MESSAGE), item(&["c@example.org"], MESSAGE)];
    world.queue.give_for("t", vec![item_1, item_2], Duration::from_millis(600));
    server.received(1).await;
    // It cannot be extended any more.
    world.queue.break_streams(true);
    // The first is answered after two seconds, when the lease has ended.
    let answered = async || server.messages()[0].was_accepted().then_some(());
    wait::until("the answer", PATIENCE, answered).await;
    world.queue.break_streams(false);
    assert_eq!(world.outcomes(first).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
    let id = posthorn_api::message_id_bytes(second);
    wait::until("the release", PATIENCE, async || world.queue.told().released.contains(&id).then_some(()))
        .await;
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn stopping_finishes_what_was_begun_and_gives_the_rest_back() {
    let script = Script::named("mx1.test").rule(Rule::at(At::EndOfData).waits(Duration::from_millis(300)));
    let (world, server) = (World::start(&[]).await, server(script).await);
    world.router.hosts("example.org", &[("mx1.test", server.address())]);
    let (ids, items): (Vec<_>, Vec<_>) = (0..3).map(|_| item(&["b@example.org"], MESSAGE)).unzip();
    let queue = world.queue.clone();
    queue.give("t", items);
    server.received(1).await;
    world.stop().await;
    let told = queue.told();
    assert_eq!((told.outcomes.len(), told.released.len()), (1, 2));
    assert!(queue.outcomes(ids[0]).is_some());
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn stopping_breaks_off_what_takes_too_long() {
    let script = Script::named("mx1.test").rule(Rule::at(At::EndOfData).hangs());
    let (world, mx1) = (World::start(&[("relay.listen.drain", "3500ms")]).await, server(script).await);
    let mx2 = server(Script::named("mx2.test").rule(Rule::at(At::Mail).hangs())).await;
    world.router.hosts("example.org", &[("mx1.test", mx1.address())]);
    world.router.hosts("example.com", &[("mx2.test", mx2.address())]);
    let [(sent, item_1), (begun, item_2)] =
        [item(&["b@example.org"], MESSAGE), item(&["b@example.com"], MESSAGE)];
    let queue = world.queue.clone();
    queue.give("t1", vec![item_1]);
    queue.give("t2", vec![item_2]);
    mx1.received(1).await;
    wait::until("MAIL", PATIENCE, async || mx2.lines().iter().any(|l| l.starts_with("MAIL")).then_some(()))
        .await;
    world.stop().await;
    let verdict = |id| format!("{:?}", queue.outcomes(id).unwrap()[0].verdict);
    assert!(verdict(sent).starts_with("Uncertain"), "{}", verdict(sent));
    assert!(verdict(begun).starts_with("Deferred"), "{}", verdict(begun));
}
