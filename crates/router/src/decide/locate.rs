//! Where one address is: the first step of the decision.

use posthorn_mail::{Address, Domain, Host};

use super::Policy;
use crate::known::{Entry, Key, MailboxName, OurDomain, Own, Snapshot};

/// Where an address is.
pub(super) enum Place<'a> {
    /// In a domain of ours.
    Ours { domain: &'a OurDomain, found: Found<'a> },
    /// In a domain of others.
    Elsewhere(&'a Domain),
    /// It ends in an address literal.
    Literal,
    /// It is the postmaster of this installation itself, at one of its names or addresses: whoever is named, if anybody.
    Here(Option<&'a Address>),
}

/// What an address in a domain of ours is.
pub(super) enum Found<'a> {
    /// It, or what remains of it without its subaddress, is in the directory under `name`.
    Entry { name: MailboxName, entry: &'a Entry },
    /// It is not, and its mail goes to another address.
    Instead { why: &'static str, to: &'a Address },
    /// It is postmaster, and nobody is.
    NoPostmaster,
    /// There is no such user.
    Nothing,
}

/// Finds an address in the snapshot, or says what the snapshot lacks.
pub(super) fn locate<'a>(
    address: &'a Address,
    known: &'a Snapshot,
    policy: &'a Policy,
) -> Result<Place<'a>, Vec<Key>> {
    // RFC 5321 §4.5.1.
    let is_postmaster = address.local().eq_ignore_ascii_case("postmaster");
    let Some(name) = address.domain() else {
        let here = is_postmaster && is_own_literal(address, &policy.own);
        return Ok(if here { Place::Here(policy.postmaster.as_ref()) } else { Place::Literal });
    };
    match known.domains.get(name) {
        None => Err(vec![Key::Domain(name.clone())]),
        Some(None) if is_postmaster && policy.own.names.contains(name) => {
            Ok(Place::Here(policy.postmaster.as_ref()))
        }
        Some(None) => Ok(Place::Elsewhere(name)),
        Some(Some(domain)) => {
            let found = find(MailboxName::new(address.local(), name), domain, known, policy)?;
            Ok(Place::Ours { domain, found })
        }
    }
}

fn find<'a>(
    exact: MailboxName,
    domain: &'a OurDomain,
    known: &'a Snapshot,
    policy: &'a Policy,
) -> Result<Found<'a>, Vec<Key>> {
    let base = without_subaddress(&exact, domain);
    let candidates: Vec<MailboxName> = std::iter::once(exact.clone()).chain(base).collect();
    let missing: Vec<Key> = candidates
        .iter()
        .filter(|name| !known.mailboxes.contains_key(name))
        .map(|name| Key::Mailbox(name.clone()))
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    for name in candidates {
        if let Some(Some(entry)) = known.mailboxes.get(&name) {
            return Ok(Found::Entry { name, entry });
        }
    }
    // An address that stands in for itself stands for nothing.
    let instead =
        |to: &'a Option<Address>| to.as_ref().filter(|to| MailboxName::of(to).as_ref() != Some(&exact));
    // RFC 5321 §4.5.1: mail for postmaster is taken in every domain.
    let is_postmaster = &*exact.local == "postmaster";
    if let Some(to) = instead(&policy.postmaster).filter(|_| is_postmaster) {
        return Ok(Found::Instead { why: "postmaster of", to });
    }
    Ok(match instead(&domain.catch_all) {
        Some(to) => Found::Instead { why: "catch-all of", to },
        None if is_postmaster => Found::NoPostmaster,
        None => Found::Nothing,
    })
}

/// `alice+x@` is `alice@` unless it is in the directory itself (RFC 5233). A local part that begins with the
/// separator has no subaddress.
fn without_subaddress(exact: &MailboxName, domain: &OurDomain) -> Option<MailboxName> {
    let separator = domain.separator.as_deref().filter(|s| !s.is_empty())?;
    let (base, _) = exact.local.split_once(separator).filter(|(base, _)| !base.is_empty())?;
    Some(MailboxName { local: base.into(), domain: exact.domain.clone() })
}

pub(super) fn is_own_literal(address: &Address, own: &Own) -> bool {
    matches!(address.host(), Host::Literal(ip) if own.addresses.contains(ip))
}
