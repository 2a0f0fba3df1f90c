mod world;

use std::collections::HashSet;

use proptest::prelude::*;

use self::world::*;
use super::*;

#[test]
fn each_kind_of_recipient_has_its_decision() {
    let world = world();
    let cases: &[(&str, &[&str])] = &[
        // Accounts.
        ("alice@example.test", &["alice@example.test local alice"]),
        ("Alice@Example.TEST", &["Alice@example.test local alice"]),
        ("gone@example.test", &["gone@example.test later 450 4.2.1"]),
        ("nobody@example.test", &["nobody@example.test fail 550 5.1.1"]),
        ("\"a b\"@example.test", &["\"a b\"@example.test fail 550 5.1.1"]),
        // Subaddresses.
        ("alice+x@example.test", &["alice+x@example.test local alice"]),
        ("alice+x+y@example.test", &["alice+x+y@example.test local alice"]),
        ("ALICE+X@example.test", &["ALICE+X@example.test local alice"]),
        ("alice+@example.test", &["alice+@example.test local alice"]),
        ("+alice@example.test", &["+alice@example.test fail 550 5.1.1"]),
        ("nobody+x@example.test", &["nobody+x@example.test fail 550 5.1.1"]),
        ("a+b@example.test", &["a+b@example.test local a+b"]),
        ("a+c@example.test", &["a+c@example.test fail 550 5.1.1"]),
        ("sales+x@example.test", &["bob@example.test local bob"]),
        ("carol--x@dash.test", &["carol--x@dash.test local carol"]),
        ("carol+x@dash.test", &["carol+x@dash.test fail 550 5.1.1"]),
        ("dave+x@plain.test", &["dave+x@plain.test fail 550 5.1.1"]),
        // Aliases.
        ("sales@example.test", &["bob@example.test local bob"]),
        (
            "all@example.test",
            &[
                "alice@example.test local alice",
                "x@example.net remote mx.example.net example.net",
                "bob@example.test local bob",
            ],
        ),
        ("twice@example.test", &["alice@example.test local alice"]),
        ("out@example.test", &["x@example.net remote mx.example.net example.net"]),
        ("quoted@example.test", &["\"a b\"@example.test fail 550 5.1.1"]),
        (
            "mixed@example.test",
            &[
                "nobody@example.test fail 550 5.1.1",
                "gone@example.test later 450 4.2.1",
                "alice@example.test local alice",
            ],
        ),
        // Loops.
        ("loop1@example.test", &["loop1@example.test fail 554 5.4.6"]),
        ("self@example.test", &["bob@example.test local bob"]),
        // Lists.
        (
            "team@example.test",
            &["alice@example.test local alice", "x@example.net remote mx.example.net example.net"],
        ),
        ("empty@example.test", &["empty@example.test fail 550 5.2.4"]),
        // Catch-all.
        ("known@catch.test", &["known@catch.test local known"]),
        ("any@catch.test", &["alice@example.test local alice"]),
        ("any@catch-out.test", &["all@example.net remote mx.example.net example.net"]),
        ("any@catch-self.test", &["nobody@catch-self.test fail 550 5.1.1"]),
        ("nobody@catch-self.test", &["nobody@catch-self.test fail 550 5.1.1"]),
        ("any@catch-kept.test", &["keeper@catch-kept.test local keeper"]),
        // Postmaster.
        ("postmaster@example.test", &["postmaster@example.test later 451 4.3.5"]),
        ("PostMaster@catch.test", &["alice@example.test local alice"]),
        ("postmaster@mx.example.test", &["postmaster@mx.example.test later 451 4.3.5"]),
        // Elsewhere.
        ("x@example.net", &["x@example.net remote mx.example.net example.net"]),
        ("X+y@example.net", &["X+y@example.net remote mx.example.net example.net"]),
        ("x@slow.example", &["x@slow.example later 451 4.4.3"]),
        ("x@null.example", &["x@null.example fail 556 5.1.10"]),
        ("x@missing.example", &["x@missing.example fail 550 5.1.2"]),
        ("x@routed.example", &["x@routed.example remote route:smart.example routed.example"]),
        // Literals.
        ("x@[192.0.2.1]", &["x@[192.0.2.1] remote [192.0.2.1] [192.0.2.1]"]),
        ("x@[IPv6:2001:db8::1]", &["x@[IPv6:2001:db8::1] remote [IPv6:2001:db8::1] [IPv6:2001:db8::1]"]),
        ("x@[192.0.2.99]", &["x@[192.0.2.99] fail 550 5.1.2"]),
    ];
    for (recipient, want) in cases {
        assert_eq!(world.decide(recipient, &policy()), *want, "{recipient}");
    }
}

#[test]
fn what_is_accepted_is_what_may_be_delivered() {
    let world = world();
    for (recipient, want) in [
        ("alice@example.test", "ours"),
        ("alice+x@example.test", "ours"),
        ("sales@example.test", "ours"),
        ("team@example.test", "ours"),
        ("any@catch.test", "ours"),
        ("gone@example.test", "450 4.2.1"),
        ("nobody@example.test", "550 5.1.1"),
        ("postmaster@example.test", "451 4.3.5"),
        ("x@example.net", "relay"),
        ("x@missing.example", "relay"),
        ("x@[192.0.2.1]", "relay"),
        ("x@[192.0.2.99]", "550 5.1.2"),
    ] {
        let (recipient, mut known) = (address(recipient), Snapshot::default());
        let acceptance = loop {
            match accept(&recipient, &known, &policy()) {
                Ok(acceptance) => break acceptance,
                Err(keys) => keys.iter().for_each(|key| world.answer(key, &mut known)),
            }
        };
        if let Verdict::Ours(Some(target)) = &acceptance.verdict {
            let decided = match decide(&recipient, &ReversePath::Null, &known, &policy()) {
                Step::Done(decided) => decided,
                Step::Need(keys) => panic!("{recipient}: {keys:?}"),
            };
            assert_eq!(decided, std::slice::from_ref(target), "{recipient}: the same as is decided later");
        }
        let is_mailbox = matches!(acceptance.verdict, Verdict::Ours(Some(_)));
        assert_eq!(is_mailbox, recipient.local().starts_with("alice"), "{recipient}");
        let got = match acceptance.verdict {
            Verdict::Ours(_) => "ours".into(),
            Verdict::Relay => "relay".into(),
            Verdict::Refused(status) => format!("{} {}", status.code(), status.enhanced()),
        };
        assert_eq!(got, want, "{recipient}");
        let is_in_ours = matches!(known.domains.values().next(), Some(Some(_)));
        assert!(acceptance.tenant_id.is_some() || !is_in_ours, "{recipient}: whose domain it is");
        assert!(known.destinations.is_empty() && known.routes.is_empty(), "only the directory is asked");
    }
}

#[test]
fn the_named_postmaster_gets_mail_of_all_domains() {
    let policy = Policy { postmaster: Some(address("bob@example.test")), ..policy() };
    let world = world().account("postmaster@dash.test");
    for (recipient, want) in [
        ("postmaster@example.test", "bob@example.test local bob"),
        ("POSTMASTER@plain.test", "bob@example.test local bob"),
        ("postmaster@catch.test", "bob@example.test local bob"),
        ("postmaster@dash.test", "postmaster@dash.test local postmaster"),
        ("Postmaster@mx.example.test", "bob@example.test local bob"),
        ("postmaster@[192.0.2.99]", "bob@example.test local bob"),
        ("bob@mx.example.test", "bob@mx.example.test fail 550 5.1.2"),
    ] {
        assert_eq!(world.decide(recipient, &policy), [want], "{recipient}");
    }
    let itself = Policy { postmaster: Some(address("postmaster@example.test")), ..policy };
    assert_eq!(world.decide("postmaster@example.test", &itself), ["postmaster@example.test later 451 4.3.5"]);
}

#[test]
fn a_lists_owner_takes_the_senders_place() {
    let senders = |recipient: &str, sender: &str| -> Vec<String> {
        let targets = world().targets(recipient, sender, &policy());
        targets
            .iter()
            .map(|t| format!("{} {}", t.address, t.sender.as_ref().map_or("-".into(), ToString::to_string)))
            .collect()
    };
    for (recipient, want) in [
        (
            "team@example.test",
            vec!["alice@example.test owner@example.test", "x@example.net owner@example.test"],
        ),
        // The nearest owner counts; a list without one leaves what is.
        (
            "both@example.test",
            vec![
                "bob@example.test boss@example.test",
                "alice@example.test owner@example.test",
                "x@example.net owner@example.test",
            ],
        ),
        ("ownerless@example.test", vec!["alice@example.test -"]),
        ("around@example.test", vec!["alice@example.test boss@example.test"]),
        ("sales@example.test", vec!["bob@example.test -"]),
    ] {
        assert_eq!(senders(recipient, "sender@example.net"), want, "{recipient}");
    }
    assert_eq!(senders("team@example.test", ""), ["alice@example.test -", "x@example.net -"], "notices");
}

#[test]
fn reasons_tell_the_way() {
    let world = world();
    for (recipient, want) in [
        ("alice+x@example.test", vec!["account alice@example.test"]),
        (
            "all@example.test",
            vec![
                "alias all@example.test -> account alice@example.test",
                "alias all@example.test -> x@example.net (by DNS)",
                "alias all@example.test -> alias sales@example.test -> account bob@example.test",
            ],
        ),
        ("any@catch.test", vec!["catch-all of catch.test -> account alice@example.test"]),
        ("x@routed.example", vec!["x@routed.example (by route *)"]),
        ("nobody@example.test", vec!["nobody@example.test: There is no mailbox nobody@example.test here"]),
    ] {
        let targets = world.targets(recipient, "", &policy());
        let reasons: Vec<&str> = targets.iter().map(|target| target.reason.as_str()).collect();
        assert_eq!(reasons, want, "{recipient}");
    }
}

#[test]
fn expansion_is_limited() {
    // a0 -> a1 -> ... -> a10 -> alice
    let mut chain = world();
    for n in 0..=10 {
        let next = if n == 10 { "alice@example.test".to_owned() } else { format!("a{}@example.test", n + 1) };
        chain = chain.alias(&format!("a{n}@example.test"), &[&next]);
    }
    assert_eq!(chain.decide("a1@example.test", &policy()), ["alice@example.test local alice"]);
    assert_eq!(chain.decide("a0@example.test", &policy()), ["a10@example.test fail 554 5.4.6"]);

    let members: Vec<String> = (0..50).map(|n| format!("u{n}@example.net")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    let wide = world().list("wide@example.test", "", &members);
    let policy = |targets| Policy { targets, ..policy() };
    assert_eq!(wide.decide("wide@example.test", &policy(51)).len(), 50);
    assert_eq!(wide.decide("wide@example.test", &policy(50)), ["wide@example.test fail 554 5.5.3"]);
}

#[test]
fn what_one_level_needs_is_asked_for_together() {
    let world = world();
    let (recipient, mut known, mut rounds) = (address("all@example.test"), Snapshot::default(), Vec::new());
    while let Step::Need(keys) = decide(&recipient, &ReversePath::Null, &known, &policy()) {
        keys.iter().for_each(|key| world.answer(key, &mut known));
        rounds.push(keys.len());
    }
    // The domain; the alias; alice, sales and the domain of x; bob and the route; the DNS.
    assert_eq!(rounds, [1, 1, 3, 2, 1]);
}

/// Names of a small world, so that they meet often.
fn any_name() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..8u8).prop_map(|n| format!("n{n}@example.test")),
        (0..8u8, 0..3u8).prop_map(|(n, m)| format!("N{n}+{m}@example.test")),
        (0..3u8).prop_map(|n| format!("u{n}@catch.test")),
        (0..4u8).prop_map(|n| format!("x{n}@example.net")),
    ]
}

fn any_entry() -> impl Strategy<Value = (u8, Vec<String>)> {
    (0..4u8, proptest::collection::vec(any_name(), 1..5))
}

proptest! {
    #[test]
    fn expansion_ends_and_doubles_nothing(
        entries in proptest::collection::vec(any_entry(), 8),
        catch_all in any_name(),
        recipient in any_name(),
        depth in 0..12usize,
        most in 1..40usize,
    ) {
        let mut world = World::default()
            .ours("example.test", "", "+")
            .ours("catch.test", &catch_all, "+")
            .dns("example.net", Ok("mx.example.net"));
        for (n, (kind, targets)) in entries.iter().enumerate() {
            let name = format!("n{n}@example.test");
            let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
            world = match kind {
                0 => world.account(&name),
                1 => world.list(&name, "owner@example.test", &targets),
                2 => world.alias(&name, &targets),
                _ => world,
            };
        }
        let policy = Policy { depth, targets: most, ..policy() };
        let targets = world.targets(&recipient, "sender@example.net", &policy);
        prop_assert!(!targets.is_empty(), "a recipient came to nothing");
        prop_assert!(targets.len() <= most.max(1), "{} targets", targets.len());
        let mut seen = HashSet::new();
        for target in &targets {
            let what = match &target.decision {
                Decision::Local { account_id, .. } => account_id.to_string(),
                _ => target.address.to_string(),
            };
            prop_assert!(seen.insert(what), "doubled: {targets:?}");
        }
        prop_assert_eq!(&targets, &world.targets(&recipient, "sender@example.net", &policy), "not a function");
    }
}
