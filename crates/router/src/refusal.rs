//! What the router says when mail cannot go somewhere: reply code, enhanced code (RFC 3463) and words, in one place.

use posthorn_mail::{Address, Domain, EnhancedStatus, Host, Status};

fn status(code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Status {
    Status::new(code, EnhancedStatus::new(enhanced.0, enhanced.1, enhanced.2), text)
}

pub(crate) fn unknown_user(address: &Address) -> Status {
    status(550, (5, 1, 1), format!("There is no mailbox {address} here"))
}

/// A disabled account may be enabled again, so this is temporary.
pub(crate) fn disabled(address: &Address) -> Status {
    status(450, (4, 2, 1), format!("The mailbox {address} is disabled"))
}

/// RFC 5321 §4.5.1 wants mail for postmaster taken. Where the operator has named nobody, guessing an account would
/// hand it what certificate authorities send to postmaster; so it is "later", until somebody is named.
pub(crate) fn no_postmaster() -> Status {
    status(451, (4, 3, 5), "No postmaster has been named here yet")
}

pub(crate) fn own_literal(host: &Host) -> Status {
    status(550, (5, 1, 2), format!("Mail for {host} is taken by domain name only"))
}

pub(crate) fn alias_loop() -> Status {
    status(554, (5, 4, 6), "The alias leads back to itself")
}

pub(crate) fn too_deep(limit: usize) -> Status {
    status(554, (5, 4, 6), format!("More than {limit} aliases or lists stand one behind the other"))
}

pub(crate) fn too_many(limit: usize) -> Status {
    status(554, (5, 5, 3), format!("The address expands to more than {limit} addresses"))
}

pub(crate) fn too_many_at_once() -> Status {
    status(451, (4, 5, 3), "The message's recipients expand to too many addresses at once")
}

pub(crate) fn empty_list() -> Status {
    status(550, (5, 2, 4), "The list has no members")
}

pub(crate) fn malformed() -> Status {
    status(553, (5, 1, 3), "This is no mailbox address")
}

/// RFC 7505 §4.
pub(crate) fn null_mx(domain: &Domain) -> Status {
    status(556, (5, 1, 10), format!("The domain {domain} accepts no mail (null MX)"))
}

pub(crate) fn no_domain(domain: &Domain) -> Status {
    status(550, (5, 1, 2), format!("The domain {domain} does not exist"))
}

pub(crate) fn no_host(domain: &Domain) -> Status {
    status(550, (5, 4, 4), format!("The domain {domain} has neither MX nor address records"))
}

pub(crate) fn no_exchanger(domain: &Domain) -> Status {
    status(550, (5, 4, 4), format!("None of the mail exchangers of {domain} has an address"))
}

pub(crate) fn no_route_host(hosts: &str) -> Status {
    status(451, (4, 4, 4), format!("None of the hosts of the route has an address: {hosts}"))
}

pub(crate) fn mail_loop(domain: &Domain) -> Status {
    status(554, (5, 4, 6), format!("Mail for {domain} comes back to this server, which does not serve it"))
}

pub(crate) fn dns_trouble(domain: &str, trouble: &str) -> Status {
    status(451, (4, 4, 3), format!("The DNS does not tell where mail for {domain} goes: {trouble}"))
}
