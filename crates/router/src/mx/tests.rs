use std::collections::HashSet;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn own() -> Own {
    Own {
        names: HashSet::from([domain("us.example")]),
        addresses: HashSet::from(["192.0.2.99".parse().unwrap(), "2001:db8::99".parse().unwrap()]),
    }
}

/// "10 mx1.example, 20 ."
fn mx(records: &str) -> Answer<Mx> {
    let record = |text: &str| {
        let (preference, name) = text.trim().split_once(' ').unwrap();
        let exchange = match name {
            "." => Exchange::Null,
            name => name.parse().map_or(Exchange::Unusable, Exchange::Host),
        };
        Mx { preference: preference.parse().unwrap(), exchange }
    };
    Answer::Found(records.split(',').map(record).collect())
}

/// "192.0.2.1 2001:db8::1", or "-" for no data, "!" for trouble, "?" for no such name.
fn addresses(text: &str) -> Addresses {
    match text {
        "-" => return Addresses { v4: Answer::NoData, v6: Answer::NoData },
        "?" => return Addresses { v4: Answer::NoName, v6: Answer::NoName },
        "!" => {
            return Addresses { v4: Answer::Trouble("time".into()), v6: Answer::Trouble("time".into()) };
        }
        _ => {}
    }
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for ip in text.split(' ') {
        match ip.parse().unwrap() {
            IpAddr::V4(ip) => v4.push(ip),
            IpAddr::V6(ip) => v6.push(ip),
        }
    }
    let v4 = if v4.is_empty() { Answer::NoData } else { Answer::Found(v4) };
    let v6 = if v6.is_empty() { Answer::NoData } else { Answer::Found(v6) };
    Addresses { v4, v6 }
}

/// The names of the servers in order, or the status.
fn servers(records: &Answer<Mx>, found: &[(&str, &str)]) -> String {
    let resolve = || -> Result<Vec<Server>, Status> {
        let mut exchangers = Exchangers::of(&domain("example.net"), records, &own())?;
        exchangers.shuffle(10, &mut SmallRng::seed_from_u64(1));
        let found = found.iter().map(|(name, ips)| (domain(name), addresses(ips))).collect();
        exchangers.servers(&found, &own(), Ipv6::Interleave)
    };
    match resolve() {
        Ok(servers) => servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(" "),
        Err(status) => format!("{} {}", status.code(), status.enhanced()),
    }
}

#[test]
fn hosts_are_tried_by_preference() {
    let found = [
        ("a.example", "192.0.2.1"),
        ("b.example", "192.0.2.2"),
        ("c.example", "192.0.2.3"),
        ("same.example", "192.0.2.99"),
        ("same6.example", "192.0.2.4 2001:db8::99"),
        ("us.example", "192.0.2.5"),
        ("none.example", "-"),
        ("gone.example", "?"),
        ("late.example", "!"),
        ("example.net", "192.0.2.10"),
    ];
    for (records, want) in [
        ("20 b.example, 10 a.example, 30 c.example", "a.example b.example c.example"),
        ("10 a.example", "a.example"),
        // Null MX (RFC 7505); beside others it says nothing.
        ("0 .", "556 5.1.10"),
        ("0 ., 10 a.example", "a.example"),
        ("10 -.example", "550 5.4.4"),
        ("10 -.example, 20 b.example", "b.example"),
        // Ourselves, by name or address: it and all that are no better are left out.
        ("10 a.example, 20 us.example, 20 b.example, 30 c.example", "a.example"),
        ("10 a.example, 20 same.example, 30 c.example", "a.example"),
        ("10 a.example, 20 same6.example, 20 b.example", "a.example"),
        ("10 us.example, 20 a.example", "554 5.4.6"),
        ("10 same.example, 20 a.example", "554 5.4.6"),
        ("10 gone.example, 20 same.example", "554 5.4.6"),
        ("10 late.example, 20 same.example", "451 4.4.3"),
        // Without addresses.
        ("10 none.example, 20 b.example", "b.example"),
        ("10 none.example, 20 gone.example", "550 5.4.4"),
        ("10 late.example, 20 b.example", "b.example"),
        ("10 late.example, 20 gone.example", "451 4.4.3"),
    ] {
        assert_eq!(servers(&mx(records), &found), want, "{records}");
    }
}

#[test]
fn a_domain_without_mx_is_its_own_host() {
    for (records, ips, want) in [
        (Answer::NoData, "192.0.2.10", "example.net"),
        (Answer::NoData, "-", "550 5.4.4"),
        (Answer::NoData, "!", "451 4.4.3"),
        (Answer::NoData, "192.0.2.99", "554 5.4.6"),
        (Answer::NoName, "-", "550 5.1.2"),
        (Answer::Trouble("time".into()), "192.0.2.10", "451 4.4.3"),
    ] {
        assert_eq!(servers(&records, &[("example.net", ips)]), want, "{records:?} {ips}");
    }
}

#[test]
fn equals_share_the_load() {
    let records = mx("10 a.example, 10 b.example, 10 c.example, 5 first.example, 20 last.example");
    let mut orders = HashSet::new();
    for seed in 0..200 {
        let mut exchangers = Exchangers::of(&domain("example.net"), &records, &own()).unwrap();
        exchangers.shuffle(10, &mut SmallRng::seed_from_u64(seed));
        let names: Vec<String> = exchangers.names().map(ToString::to_string).collect();
        assert_eq!((names[0].as_str(), names[4].as_str()), ("first.example", "last.example"));
        orders.insert(names);
    }
    assert_eq!(orders.len(), 6, "each order of the three comes up");
}

#[test]
fn only_the_best_hosts_are_looked_at() {
    let records = mx("30 c.example, 10 a.example, 20 b.example");
    let mut exchangers = Exchangers::of(&domain("example.net"), &records, &own()).unwrap();
    exchangers.shuffle(2, &mut SmallRng::seed_from_u64(1));
    assert_eq!(exchangers.names().map(Domain::as_str).collect::<Vec<_>>(), ["a.example", "b.example"]);
}

#[test]
fn addresses_come_in_the_order_that_is_set() {
    let found = addresses("192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1 2001:db8::2");
    for (ipv6, want) in [
        (Ipv6::Interleave, "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2 192.0.2.3"),
        (Ipv6::First, "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2 192.0.2.3"),
        (Ipv6::Last, "192.0.2.1 192.0.2.2 192.0.2.3 2001:db8::1 2001:db8::2"),
        (Ipv6::Never, "192.0.2.1 192.0.2.2 192.0.2.3"),
    ] {
        let ordered: Vec<String> = order(&found, ipv6).iter().map(ToString::to_string).collect();
        assert_eq!(ordered.join(" "), want, "{ipv6:?}");
    }
}

#[test]
fn a_destination_is_the_set_of_its_hosts() {
    let name = |records: &str| {
        Exchangers::of(&domain("example.net"), &mx(records), &own()).unwrap().destination().to_string()
    };
    assert_eq!(name("20 a.example, 10 b.example"), "a.example,b.example");
    assert_eq!(name("10 a.example, 10 b.example, 30 a.example"), "a.example,b.example");
    assert_eq!(name("10 a.example, 20 us.example"), "a.example,us.example", "what is left out still counts");
    let many = |last: &str| {
        let hosts: Vec<String> = (0..20).map(|n| format!("10 mx{n}.mail.example")).collect();
        name(&format!("{}, 10 {last}", hosts.join(", ")))
    };
    assert!(many("x.example").len() <= 200);
    assert_ne!(many("x.example"), many("y.example"));
    assert_eq!(many("x.example"), many("x.example"));
}
