//! What becomes of connections, and of the messages on them.

use std::time::Duration;

use crate::support::{MESSAGE, item, one};
use posthorn_testkit::smtp_server::{At, Rule, Script};

#[tokio::test]
async fn tls_is_used_where_it_is_offered_and_done_without_where_it_fails() {
    let (world, server) = one(Script::named("mx1.test").starttls(), &[]).await;
    let (id, message) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![message]);
    let outcome = &world.verdicts(id).await[0];
    assert!(outcome.remote.as_ref().unwrap().tls.starts_with("TLSv1_3 "), "{outcome:?}");
    assert!(server.messages()[0].tls);

    let (world, server) = one(Script::named("mx1.test").broken_starttls(), &[]).await;
    let (id, message) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![message]);
    assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
    assert_eq!((server.connections(), server.messages()[0].tls), (2, false));
}

#[tokio::test]
async fn a_server_that_falls_silent_or_closes_at_starttls_gets_its_mail_in_the_clear() {
    for rule in [Rule::at(At::StartTls).hangs(), Rule::at(At::StartTls).drops()] {
        let script = Script::named("mx1.test").starttls().rule(rule);
        let (world, server) = one(script, &[("relay.timeouts.hello", "300ms")]).await;
        let (id, message) = item(&["b@example.org"], MESSAGE);
        world.queue.give("t", vec![message]);
        assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
        assert_eq!((server.connections(), server.messages()[0].tls), (2, false));
    }
}

#[tokio::test]
async fn connections_are_used_again_and_closed_when_idle() {
    let (world, server) = one(Script::named("mx1.test"), &[("relay.reuse.idle", "300ms")]).await;
    for token in ["t1", "t2", "t3"] {
        let (id, item) = item(&["b@example.org"], MESSAGE);
        world.queue.give(token, vec![item]);
        world.outcomes(id).await;
    }
    assert_eq!((server.connections(), server.messages().len()), (1, 3));
    posthorn_testkit::wait::until("QUIT", crate::support::PATIENCE, async || {
        (server.open_connections() == 0).then_some(())
    })
    .await;
    assert_eq!(server.lines().last().unwrap(), "QUIT");
}

#[tokio::test]
async fn a_connection_carries_no_more_than_its_share() {
    let (world, server) = one(Script::named("mx1.test"), &[("relay.reuse.messages", "2")]).await;
    let (ids, items): (Vec<_>, Vec<_>) = (0..5).map(|_| item(&["b@example.org"], MESSAGE)).unzip();
    world.queue.give("t", items);
    for id in ids {
        world.outcomes(id).await;
    }
    let on: Vec<_> = server.messages().into_iter().map(|message| message.connection).collect();
    assert_eq!(on, [1, 1, 2, 2, 3]);
}

#[tokio::test]
async fn an_idle_connection_that_the_server_gave_up_costs_nothing() {
    let script = Script::named("mx1.test")
        .rule(Rule::at(At::Mail).after(1).first(1).replies_and_closes("421 4.4.2 idle"));
    let (world, server) = one(script, &[]).await;
    let (first, item_1) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t1", vec![item_1]);
    world.outcomes(first).await;
    let (second, item_2) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t2", vec![item_2]);
    assert_eq!(world.outcomes(second).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_slow_server_keeps_its_lease() {
    let script = Script::named("mx1.test").rule(Rule::at(At::EndOfData).waits(Duration::from_millis(900)));
    let (world, _server) = one(script, &[]).await;
    let (id, item) = item(&["b@example.org"], MESSAGE);
    world.queue.give_for("t", vec![item], Duration::from_millis(600));
    world.outcomes(id).await;
    assert!(world.queue.told().extended >= 3, "{}", world.queue.told().extended);
}

#[tokio::test]
async fn a_message_that_the_server_runs_from_does_not_hold_up_the_others() {
    let script = Script::named("mx1.test").rule(Rule::at(At::Rcpt).containing("<bad@").drops());
    let (world, server) = one(script, &[]).await;
    let [(bad, item_1), (good, item_2)] =
        [item(&["bad@example.org"], MESSAGE), item(&["good@example.org"], MESSAGE)];
    world.queue.give("t", vec![item_1, item_2]);
    let outcome = &world.outcomes(bad).await[0];
    assert!(outcome.starts_with("unavailable 451 4.4.2 lost the connection at RCPT"), "{outcome}");
    assert_eq!(world.outcomes(good).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn a_server_that_falls_silent_again_and_again_is_not_waited_for_by_all() {
    let script = Script::named("mx1.test").rule(Rule::at(At::EndOfData).hangs());
    let (world, server) = one(script, &[("relay.timeouts.final_dot", "200ms")]).await;
    let (ids, items): (Vec<_>, Vec<_>) = (0..4).map(|_| item(&["b@example.org"], MESSAGE)).unzip();
    world.queue.give("t", items);
    let mut words = Vec::new();
    for id in ids {
        words.push(world.outcomes(id).await[0].split(' ').next().unwrap().to_owned());
    }
    assert_eq!(words, ["uncertain", "uncertain", "unavailable", "unavailable"]);
    assert_eq!(server.messages().len(), 2);
}
