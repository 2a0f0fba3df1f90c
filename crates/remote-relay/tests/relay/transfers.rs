//! What becomes of messages, by what the servers do.

use std::net::SocketAddr;

use crate::support::{MESSAGE, World, item, one, server};
use bytes::Bytes;
use posthorn_api::mail::v1 as wire;
use posthorn_api::routing::v1::DomainIsLocal;
use posthorn_api::routing::v1::resolve_destination_response::Result as Answer;
use posthorn_testkit::smtp_server::{At, Rule, Script, SmtpServer};

/// An address at which nothing listens.
async fn nobody() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_message_arrives_byte_for_byte() {
    let (world, server) = one(Script::named("mx1.test"), &[]).await;
    let (id, item) = item(&["b@example.org", "c@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    assert_eq!(
        world.outcomes(id).await,
        ["delivered+dsn 250 2.0.0 taken at mx1.test", "delivered+dsn 250 2.0.0 taken at mx1.test"]
    );
    let message = &server.messages()[0];
    assert_eq!(message.content, MESSAGE);
    assert_eq!(message.mail, format!("<a@example.net> SIZE={}", MESSAGE.len()));
    assert_eq!(message.rcpt, ["<b@example.org>", "<c@example.org>"]);
    assert_eq!(message.helo, "relay.test");
    world.stop().await;
    assert_eq!(server.lines().last().unwrap(), "QUIT");
}

#[tokio::test]
async fn recipients_are_told_apart() {
    let script = Script::named("mx1.test")
        .rule(Rule::at(At::Rcpt).containing("<nobody@").replies("550-5.1.1 no such\n550 5.1.1 user"))
        .rule(Rule::at(At::Rcpt).containing("<grey@").replies("451 4.7.1 greylisted"));
    let (world, server) = one(script, &[]).await;
    let (id, item) = item(&["nobody@example.org", "grey@example.org", "b@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    assert_eq!(
        world.outcomes(id).await,
        [
            "failed 550 5.1.1 no such user at mx1.test",
            "deferred 451 4.7.1 greylisted at mx1.test",
            "delivered+dsn 250 2.0.0 taken at mx1.test",
        ]
    );
    assert_eq!(server.messages()[0].rcpt, ["<b@example.org>"]);
}

#[tokio::test]
async fn the_next_host_is_tried_where_one_takes_nothing() {
    for first in [
        Rule::at(At::Connect).replies_and_closes("554 5.7.1 not for you"),
        Rule::at(At::Connect).replies_and_closes("421 4.3.2 busy"),
        Rule::at(At::Connect).drops(),
        Rule::at(At::Connect).hangs(),
        Rule::at(At::Mail).replies("451 4.3.0 not now"),
        Rule::at(At::Rcpt).replies_and_closes("421 4.3.2 shutting down"),
        Rule::at(At::Data).drops(),
    ] {
        let world = World::start(&[("relay.timeouts.greeting", "3s")]).await;
        let [bad, good] =
            [server(Script::named("mx1.test").rule(first)).await, server(Script::named("mx2.test")).await];
        let hosts = [("mx0.test", nobody().await), ("mx1.test", bad.address()), ("mx2.test", good.address())];
        world.router.hosts("example.org", &hosts);
        let (id, item) = item(&["b@example.org"], MESSAGE);
        world.queue.give("t", vec![item]);
        assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx2.test"]);
        assert_eq!((bad.connections(), good.messages().len()), (1, 1));
    }
}

/// RFC 5321 §5.1: whom one host puts off another may take.
#[tokio::test]
async fn recipients_that_a_host_puts_off_go_on_to_the_next() {
    for (rule, the_other_is_taken_at) in [
        (Rule::at(At::Rcpt).containing("<grey@").replies("450 4.2.0 greylisted"), "mx1.test"),
        (Rule::at(At::Data).replies("451 4.3.0 not now"), "mx2.test"),
        (Rule::at(At::EndOfData).replies("451 4.7.1 come back later"), "mx2.test"),
    ] {
        let world = World::start(&[]).await;
        let [first, second] =
            [server(Script::named("mx1.test").rule(rule)).await, server(Script::named("mx2.test")).await];
        let hosts = [("mx1.test", first.address()), ("mx2.test", second.address())];
        world.router.hosts("example.org", &hosts);
        let (id, item) = item(&["b@example.org", "grey@example.org"], MESSAGE);
        world.queue.give("t", vec![item]);
        let taken_at = |host: &str| format!("delivered+dsn 250 2.0.0 taken at {host}");
        assert_eq!(world.outcomes(id).await, [taken_at(the_other_is_taken_at), taken_at("mx2.test")]);
        assert_eq!((first.connections(), second.messages().len()), (1, 1));
    }
}

#[tokio::test]
async fn whom_every_host_puts_off_waits_with_the_last_ones_words() {
    let world = World::start(&[]).await;
    let grey = |name: &str, text: &str| Script::named(name).rule(Rule::at(At::Rcpt).replies(text));
    let first = server(grey("mx1.test", "450 4.2.0 greylisted")).await;
    let second = server(grey("mx2.test", "451 4.7.1 greylisted too")).await;
    // Another address of a host that was asked is not asked.
    let again = server(Script::named("mx1.test")).await;
    let hosts =
        [("mx1.test", first.address()), ("mx1.test", again.address()), ("mx2.test", second.address())];
    world.router.hosts("example.org", &hosts);
    let (ids, items): (Vec<_>, Vec<_>) = (0..2).map(|_| item(&["b@example.org"], MESSAGE)).unzip();
    world.queue.give("t", items);
    for id in ids {
        assert_eq!(world.outcomes(id).await, ["deferred 451 4.7.1 greylisted too at mx2.test"]);
    }
    // Each message begins with the first host, over the connections that there are.
    assert_eq!((first.connections(), second.connections(), again.connections()), (1, 1, 0));
    let asked = |server: &SmtpServer| server.lines().iter().filter(|line| line.starts_with("RCPT")).count();
    assert_eq!((asked(&first), asked(&second)), (2, 2));
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_dot_leaves_no_doubt() {
    let world = World::start(&[]).await;
    let bad = server(Script::named("mx1.test").rule(Rule::at(At::Content).drops())).await;
    let good = server(Script::named("mx2.test")).await;
    world.router.hosts("example.org", &[("mx1.test", bad.address()), ("mx2.test", good.address())]);
    let (id, mut item) = item(&["b@example.org"], b"");
    // More than the sockets between us hold: the end is not sent before the connection breaks.
    let pieces = vec![Bytes::from("a line\r\n".repeat(32_000)); 100];
    item.size = pieces.iter().map(|piece| piece.len() as u64).sum();
    item.content = None;
    world.queue.keep(id, pieces);
    world.queue.give("t", vec![item]);
    assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx2.test"]);
    assert_eq!((bad.messages().len(), good.messages().len()), (0, 1));
}

#[tokio::test]
async fn where_no_host_takes_anything_the_message_waits_or_fails() {
    let refusing =
        |reply: &str| Script::named("mx.test").rule(Rule::at(At::Connect).replies_and_closes(reply));
    for (replies, wanted) in [
        (["554 5.7.1 never", "421 4.3.2 later"], "unavailable 421 4.3.2 later at mx2.test"),
        (["421 4.3.2 later", "554 5.7.1 never"], "unavailable 421 4.3.2 later at mx1.test"),
        (["554 5.7.1 never", "521 5.3.2 no mail"], "failed 521 5.3.2 no mail at mx2.test"),
    ] {
        let world = World::start(&[]).await;
        let servers = [server(refusing(replies[0])).await, server(refusing(replies[1])).await];
        let hosts = [("mx1.test", servers[0].address()), ("mx2.test", servers[1].address())];
        world.router.hosts("example.org", &hosts);
        let [(first, item_1), (second, item_2)] =
            [item(&["b@example.org"], MESSAGE), item(&["c@example.org"], MESSAGE)];
        world.queue.give("t", vec![item_1, item_2]);
        assert_eq!(world.outcomes(first).await, [wanted]);
        // The rest of the batch need not find out for itself.
        assert_eq!(world.outcomes(second).await, [wanted]);
        assert_eq!(servers[0].connections(), 1);
    }
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let world = World::start(&[]).await;
    let address = nobody().await;
    world.router.hosts("example.org", &[("mx1.test", address)]);
    let (id, item) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    let outcome = &world.outcomes(id).await[0];
    assert!(
        outcome.starts_with(&format!("unavailable 451 4.4.1 cannot connect to mx1.test at {address}")),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_dot_without_an_answer_is_uncertain() {
    for rule in [Rule::at(At::EndOfData).drops(), Rule::at(At::EndOfData).hangs()] {
        let (world, server) =
            one(Script::named("mx1.test").rule(rule), &[("relay.timeouts.final_dot", "200ms")]).await;
        let (id, item) = item(&["b@example.org"], MESSAGE);
        world.queue.give("t", vec![item]);
        let outcome = &world.outcomes(id).await[0];
        assert!(outcome.starts_with("uncertain 451 4.4.2 "), "{outcome}");
        assert_eq!(server.messages().len(), 1);
    }
}

#[tokio::test]
async fn recipients_over_the_servers_limit_go_in_another_transaction() {
    let script = Script::named("mx1.test")
        .rule(Rule::at(At::Rcpt).containing("<r3@").first(1).replies("452 4.5.3 too many recipients"))
        .rule(Rule::at(At::Rcpt).containing("<r4@").first(1).replies("452 4.5.3 too many recipients"));
    let (world, server) = one(script, &[]).await;
    let (id, item) = item(&["r1@example.org", "r2@example.org", "r3@example.org", "r4@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    assert_eq!(world.outcomes(id).await, vec!["delivered+dsn 250 2.0.0 taken at mx1.test"; 4]);
    let rcpt: Vec<_> = server.messages().into_iter().map(|m| m.rcpt.len()).collect();
    assert_eq!((rcpt, server.connections()), (vec![2, 2], 1));
}

#[tokio::test]
async fn our_own_limit_of_recipients_holds() {
    let (world, server) = one(Script::named("mx1.test"), &[("relay.max_recipients", "2")]).await;
    let (id, item) = item(&["r1@example.org", "r2@example.org", "r3@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    world.outcomes(id).await;
    let rcpt: Vec<_> = server.messages().into_iter().map(|m| m.rcpt.len()).collect();
    assert_eq!(rcpt, [2, 1]);
}

#[tokio::test]
async fn senders_of_their_own_have_transactions_of_their_own() {
    let (world, server) = one(Script::named("mx1.test"), &[]).await;
    let (id, mut item) = item(&["r1@example.org", "r2@example.org", "r3@example.org"], MESSAGE);
    item.recipients[1].sender = Some("owner@list.example".to_owned());
    item.recipients[2].sender = Some(String::new());
    world.queue.give("t", vec![item]);
    assert_eq!(world.outcomes(id).await.len(), 3);
    let senders: Vec<_> =
        server.messages().into_iter().map(|m| m.mail.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(senders, ["<a@example.net>", "<owner@list.example>", "<>"]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_the_router_says_without_hosts_is_an_outcome() {
    let world = World::start(&[]).await;
    world.router.say("local.example", Answer::Local(DomainIsLocal {}));
    let status =
        |code, enhanced: &str| wire::Status { code, enhanced: enhanced.into(), text: "why".into(), words: 0 };
    world.router.say("never.example", Answer::Refused(status(556, "5.1.10")));
    world.router.say("later.example", Answer::Refused(status(451, "4.4.3")));
    let (id, item) = item(&["a@local.example", "b@never.example", "c@later.example"], MESSAGE);
    world.queue.give("t", vec![item]);
    assert_eq!(
        world.outcomes(id).await,
        ["reroute local.example is a domain of ours now", "failed 556 5.1.10 why", "deferred 451 4.4.3 why"]
    );
}

#[tokio::test]
async fn a_router_that_is_away_puts_the_message_off() {
    let world = World::start(&[("relay.router_patience", "0s")]).await;
    let (id, item) = item(&["b@unknown.example"], MESSAGE);
    world.queue.give("t", vec![item]);
    let wanted = "deferred 451 4.4.3 where this mail goes cannot be found out now";
    assert_eq!(world.outcomes(id).await, [wanted]);
}

#[tokio::test]
async fn mail_does_not_go_in_circles_or_to_private_addresses() {
    let (world, us) = one(Script::named("relay.test"), &[]).await;
    let (id, message) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![message]);
    let wanted = "failed 554 5.4.6 mail loops back to myself: the server greets as relay.test at mx1.test";
    assert_eq!(world.outcomes(id).await, [wanted]);
    assert_eq!(us.messages(), []);

    let settings = [("relay.allow_private_destinations", "false")];
    let (world, server) = one(Script::named("mx1.test"), &settings).await;
    let (id, message) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![message]);
    let wanted =
        "failed 550 5.4.4 mx1.test has the address 127.0.0.1, which is not one of the public internet";
    assert_eq!(world.outcomes(id).await, [wanted]);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn large_content_is_streamed() {
    for script in [Script::named("mx1.test"), Script::named("mx1.test").with("CHUNKING")] {
        let (world, server) = one(script, &[]).await;
        let line = "..a line of a large message\r\n".repeat(10_000);
        let pieces = vec![Bytes::from(line); 20];
        let (id, mut item) = item(&["b@example.org"], b"");
        item.size = pieces.iter().map(|piece| piece.len() as u64).sum();
        item.content = None;
        world.queue.keep(id, pieces.clone());
        world.queue.give("t", vec![item]);
        assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
        assert_eq!(server.messages()[0].content, pieces.concat());
    }
}

#[tokio::test]
async fn content_that_is_gone_ends_no_message() {
    let (world, server) = one(Script::named("mx1.test"), &[]).await;
    let (id, mut item) = item(&["b@example.org"], b"");
    (item.size, item.content) = (300_000, None);
    world.queue.give("t", vec![item]);
    let wanted = "deferred 451 4.3.0 the content cannot be read: no such message at mx1.test";
    assert_eq!(world.outcomes(id).await, [wanted]);
    assert_eq!(server.messages(), []);
}

#[tokio::test]
async fn a_server_that_refuses_a_large_message_midway_is_heard() {
    let script =
        Script::named("mx1.test").rule(Rule::at(At::Content).replies_and_closes("552 5.3.4 too big"));
    let (world, _server) = one(script, &[]).await;
    let (id, mut item) = item(&["b@example.org"], b"");
    let pieces = vec![Bytes::from("a line\r\n".repeat(32_000)); 100];
    item.size = pieces.iter().map(|piece| piece.len() as u64).sum();
    item.content = None;
    world.queue.keep(id, pieces);
    world.queue.give("t", vec![item]);
    let outcome = &world.outcomes(id).await[0];
    // The system may throw the reply away with the connection; then the next try hears it.
    assert!(
        outcome == "failed 552 5.3.4 too big at mx1.test" || outcome.starts_with("unavailable 451 4.4.2"),
        "{outcome}"
    );
}

#[tokio::test]
async fn wishes_for_notices_are_passed_on_where_they_are_understood() {
    let script = Script::named("mx1.test").without("DSN");
    let (world, plain) = one(script, &[]).await;
    let dsn = server(Script::named("mx2.test")).await;
    world.router.hosts("dsn.example", &[("mx2.test", dsn.address())]);
    let (id, mut item) = item(&["b@example.org", "b@dsn.example"], MESSAGE);
    item.envelope_id = "QQ1".to_owned();
    item.set_ret(wire::Ret::Headers);
    for recipient in &mut item.recipients {
        recipient.notify = Some(wire::Notify { success: true, ..wire::Notify::default() });
        recipient.original_recipient = "rfc822;b+x@example.org".to_owned();
    }
    world.queue.give("t", vec![item]);
    assert_eq!(
        world.outcomes(id).await,
        ["delivered 250 2.0.0 taken at mx1.test", "delivered+dsn 250 2.0.0 taken at mx2.test"]
    );
    assert_eq!(plain.messages()[0].rcpt, ["<b@example.org>"]);
    let message = &dsn.messages()[0];
    assert!(message.mail.ends_with(" RET=HDRS ENVID=QQ1"), "{}", message.mail);
    assert_eq!(message.rcpt, ["<b@dsn.example> NOTIFY=SUCCESS ORCPT=rfc822;b+2Bx@example.org"]);
}

#[tokio::test]
async fn a_message_over_the_servers_limit_is_not_sent() {
    let (world, server) = one(Script::named("mx1.test").with("SIZE 10"), &[]).await;
    let (id, item) = item(&["b@example.org"], MESSAGE);
    world.queue.give("t", vec![item]);
    let size = MESSAGE.len();
    let wanted = format!("failed 552 5.3.4 the message has {size} bytes, the server takes 10 at mx1.test");
    assert_eq!(world.outcomes(id).await, [wanted]);
    assert!(!server.lines().iter().any(|line| line.starts_with("MAIL")));
}

#[tokio::test]
async fn eight_bit_content_is_converted_for_a_server_that_cannot_take_it() {
    let (world, old) = one(Script::named("mx1.test").without("8BITMIME"), &[]).await;
    let new = server(Script::named("mx2.test")).await;
    world.router.hosts("new.example", &[("mx2.test", new.address())]);
    let content = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nein schöner Tag\r\n";
    let (id, mut message) = item(&["b@example.org", "b@new.example"], content.as_bytes());
    message.set_body(wire::Body::EightBitMime);
    world.queue.give("t1", vec![message]);
    world.outcomes(id).await;
    let [old_message, new_message] = [&old.messages()[0], &new.messages()[0]];
    assert!(old_message.content.is_ascii() && !old_message.mail.contains("BODY="), "{old_message:?}");
    assert!(old_message.content.ends_with(b"sch=C3=B6ner Tag\r\n"), "{old_message:?}");
    assert_eq!(new_message.content, content.as_bytes());
    assert!(new_message.mail.contains(" BODY=8BITMIME"), "{}", new_message.mail);

    // A large one is read first, and converted as well.
    let line = Bytes::from("a somewhat longer line with just one ö in it\r\n".repeat(8_000));
    let head = Bytes::from_static(b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n");
    let (id, mut message) = item(&["b@example.org"], b"");
    message.size = (head.len() + line.len()) as u64;
    message.content = None;
    world.queue.keep(id, vec![head, line]);
    world.queue.give("t2", vec![message]);
    assert_eq!(world.outcomes(id).await, ["delivered+dsn 250 2.0.0 taken at mx1.test"]);
    assert!(old.messages()[1].content.is_ascii());
}
