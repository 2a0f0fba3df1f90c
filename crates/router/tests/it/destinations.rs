//! The servers for a domain.

use std::time::Duration;

use posthorn_api::routing::v1 as wire;
use posthorn_api::routing::v1::resolve_destination_response::Result as Resolved;
use posthorn_testkit::dns::{Dns, Trouble};

use crate::running::{LIMIT, Router};

/// The servers, shortly: "DESTINATION: NAME:PORT IP IP; ...", "local", or the status.
async fn resolve(router: &mut Router, domain: &str) -> String {
    let request = wire::ResolveDestinationRequest { domain: domain.into() };
    let response = router.routing.resolve_destination(request).await.unwrap().into_inner();
    match response.result.unwrap() {
        Resolved::Local(_) => "local".into(),
        Resolved::Refused(status) => format!("{} {}", status.code, status.enhanced),
        Resolved::Hosts(found) => {
            let hosts = found
                .hosts
                .iter()
                .map(|host| format!("{}:{} {}", host.name, host.port, host.addresses.join(" ")));
            format!("{}: {}", found.destination, hosts.collect::<Vec<_>>().join("; "))
        }
    }
}

/// A DNS with a domain of each kind.
async fn world() -> Dns {
    let dns = Dns::start().await;
    dns.mx("two.example", 20, "b.mx.example").mx("two.example", 10, "a.mx.example");
    dns.a("a.mx.example", [192, 0, 2, 1].into()).a("b.mx.example", [192, 0, 2, 2].into());
    dns.aaaa("b.mx.example", "2001:db8::2".parse().unwrap());
    dns.a("implicit.example", [192, 0, 2, 3].into());
    dns.mx("null.example", 0, ".");
    dns.cname("alias.example", "two.example");
    dns.cname("chain.example", "alias.example");
    dns.cname("plain.example", "implicit.example");
    dns.cname("circle.example", "ring.example").cname("ring.example", "circle.example");
    dns.cname("dangling.example", "gone.example");
    dns.exists("empty.example");
    dns.mx("lost.example", 10, "gone.example").mx("lost.example", 20, "empty.example");
    dns.mx("half.example", 10, "gone.example").mx("half.example", 20, "a.mx.example");
    dns.mx("host-alias.example", 10, "plain.example");
    dns.mx("ours.example", 10, "a.mx.example").mx("ours.example", 20, "mail.here.example");
    dns.mx("loop.example", 10, "mail.here.example").mx("loop.example", 20, "a.mx.example");
    dns.mx("by-address.example", 10, "b.mx.example").mx("by-address.example", 5, "c.mx.example");
    dns.a("c.mx.example", [192, 0, 2, 99].into()).a("mail.here.example", [192, 0, 2, 98].into());
    dns.trouble("servfail.example", Trouble::ServFail).trouble("refused.example", Trouble::Refused);
    dns.mx("part.example", 10, "servfail.example").mx("part.example", 20, "a.mx.example");
    dns.mx("all-fail.example", 10, "servfail.example").mx("all-fail.example", 20, "gone.example");
    dns.trouble("silent.example", Trouble::Silent);
    dns
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dns_says_which_servers() {
    let dns = world().await;
    let mut router = Router::with_users(
        &dns,
        &[
            ("router.hostname", "mail.here.example"),
            ("router.own_addresses", "[\"192.0.2.99\"]"),
            ("router.dns.timeout", "300ms"),
        ],
    )
    .await;
    for (domain, want) in [
        (
            "two.example",
            "a.mx.example,b.mx.example: a.mx.example:0 192.0.2.1; b.mx.example:0 2001:db8::2 192.0.2.2",
        ),
        (
            "TWO.example.",
            "a.mx.example,b.mx.example: a.mx.example:0 192.0.2.1; b.mx.example:0 2001:db8::2 192.0.2.2",
        ),
        ("implicit.example", "implicit.example: implicit.example:0 192.0.2.3"),
        ("null.example", "556 5.1.10"),
        (
            "alias.example",
            "a.mx.example,b.mx.example: a.mx.example:0 192.0.2.1; b.mx.example:0 2001:db8::2 192.0.2.2",
        ),
        (
            "chain.example",
            "a.mx.example,b.mx.example: a.mx.example:0 192.0.2.1; b.mx.example:0 2001:db8::2 192.0.2.2",
        ),
        ("plain.example", "plain.example: plain.example:0 192.0.2.3"),
        ("dangling.example", "550 5.1.2"),
        ("missing.example", "550 5.1.2"),
        ("empty.example", "550 5.4.4"),
        ("lost.example", "550 5.4.4"),
        ("half.example", "a.mx.example,gone.example: a.mx.example:0 192.0.2.1"),
        ("host-alias.example", "plain.example: plain.example:0 192.0.2.3"),
        ("ours.example", "a.mx.example,mail.here.example: a.mx.example:0 192.0.2.1"),
        ("loop.example", "554 5.4.6"),
        ("by-address.example", "554 5.4.6"),
        ("servfail.example", "451 4.4.3"),
        ("refused.example", "451 4.4.3"),
        ("silent.example", "451 4.4.3"),
        ("part.example", "a.mx.example,servfail.example: a.mx.example:0 192.0.2.1"),
        ("all-fail.example", "451 4.4.3"),
        ("[192.0.2.7]", "[192.0.2.7]: [192.0.2.7]:0 192.0.2.7"),
        ("[IPv6:2001:db8::7]", "[IPv6:2001:db8::7]: [IPv6:2001:db8::7]:0 2001:db8::7"),
        ("[192.0.2.99]", "550 5.1.2"),
        ("example.test", "local"),
    ] {
        assert_eq!(resolve(&mut router, domain).await, want, "{domain}");
    }
    let circle = resolve(&mut router, "circle.example").await;
    assert!(["451 4.4.3", "550 5.4.4"].contains(&circle.as_str()), "{circle}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_goes_before_the_dns() {
    let dns = Dns::start().await;
    dns.a("smart.example", [192, 0, 2, 1].into()).a("second.example", [192, 0, 2, 2].into());
    dns.a("direct.example", [192, 0, 2, 3].into());
    let mut router = Router::with_users(&dns, &[]).await;
    router.route("*", &[("smart.example", 0), ("second.example", 2525)]).await;
    router.route(".example.net", &[("[2001:db8::1]", 26), ("127.0.0.9", 27)]).await;
    router.route("gone.example", &[("missing.example", 0)]).await;
    for (domain, want) in [
        (
            "direct.example",
            "route:smart.example,second.example:2525: smart.example:0 192.0.2.1; second.example:2525 192.0.2.2",
        ),
        (
            "a.b.example.net",
            "route:[2001:db8::1]:26,127.0.0.9:27: 2001:db8::1:26 2001:db8::1; 127.0.0.9:27 127.0.0.9",
        ),
        ("gone.example", "451 4.4.4"),
        ("example.test", "local"),
    ] {
        assert_eq!(resolve(&mut router, domain).await, want, "{domain}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_kept_for_their_ttl() {
    let dns = Dns::start().await;
    dns.ttl(300)
        .negative_ttl(300)
        .mx("kept.example", 10, "long.example")
        .a("long.example", [192, 0, 2, 2].into());
    let mut router = Router::with_users(&dns, &[]).await;
    for _ in 0..3 {
        resolve(&mut router, "kept.example").await;
        resolve(&mut router, "nowhere.example").await;
    }
    assert_eq!(dns.asked("kept.example", "MX"), 1);
    assert_eq!(dns.asked("nowhere.example", "MX"), 1, "what is not there is kept too");
    dns.ttl(1).negative_ttl(1).mx("short.example", 10, "mx.example").a("mx.example", [192, 0, 2, 1].into());
    resolve(&mut router, "short.example").await;
    resolve(&mut router, "missing.example").await;
    dns.remove("short.example").mx("short.example", 10, "long.example").mx(
        "missing.example",
        10,
        "long.example",
    );
    let again = |answer: &str| answer.starts_with("long.example: ");
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !again(&resolve(&mut router, "short.example").await)
        || !again(&resolve(&mut router, "missing.example").await)
    {
        assert!(tokio::time::Instant::now() < deadline, "the new records are never seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_udp_is_asked_by_tcp() {
    let dns = Dns::start().await;
    dns.mx("big.example", 10, "mx.example").a("mx.example", [192, 0, 2, 1].into()).truncate();
    let mut router = Router::with_users(&dns, &[]).await;
    assert_eq!(resolve(&mut router, "big.example").await, "mx.example: mx.example:0 192.0.2.1");
    assert!(dns.asked_by_tcp() >= 2);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_comes_back_is_asked_again() {
    let dns = Dns::start().await;
    let address = dns.address();
    let settings = [("router.dns.timeout", "300ms"), ("router.dns.attempts", "1")];
    let mut router = Router::with_users(&dns, &settings).await;
    drop(dns);
    assert_eq!(resolve(&mut router, "late.example").await, "451 4.4.3");
    let dns = loop {
        if let Ok(dns) = Dns::start_at(address).await {
            break dns;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    dns.a("late.example", [192, 0, 2, 1].into());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while resolve(&mut router, "late.example").await != "late.example: late.example:0 192.0.2.1" {
        assert!(tokio::time::Instant::now() < deadline, "the name server is never asked again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    router.stop().await;
}
