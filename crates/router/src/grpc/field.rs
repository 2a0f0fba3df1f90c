//! Reads fields; what is wrong is refused by the field's name.

use posthorn_api::error::invalid;
use posthorn_mail::{Address, Domain};
use tonic::Status;

use crate::known::MailboxName;

const DEFAULT_PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1_000;

/// A message that must be there.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(|| invalid(field, "is missing"))
}

pub(crate) fn domain(field: &str, text: &str) -> Result<Domain, Status> {
    posthorn_api::parse_field(field, text)
}

/// An address, or none when the text is empty.
pub(crate) fn optional_address(field: &str, text: &str) -> Result<Option<Address>, Status> {
    if text.is_empty() { Ok(None) } else { posthorn_api::parse_field(field, text).map(Some) }
}

/// RFC 5321 §4.5.3.1.1: more than this not every server takes. Others' addresses may be longer, ours should not.
const LONGEST_LOCAL: usize = 64;

/// An address that can be in the directory: one in a domain, not in a literal.
pub(crate) fn mailbox(field: &str, text: &str) -> Result<MailboxName, Status> {
    let address: Address = posthorn_api::parse_field(field, text)?;
    if address.local().len() > LONGEST_LOCAL {
        return Err(invalid(field, format!("has a local part of more than {LONGEST_LOCAL} octets")));
    }
    MailboxName::of(&address).ok_or_else(|| invalid(field, "ends in an address literal, not in a domain"))
}

/// Addresses as they are stored, without those that are there twice.
pub(crate) fn addresses(field: &str, texts: &[String], most: usize) -> Result<Vec<String>, Status> {
    if texts.len() > most {
        return Err(invalid(field, format!("has more than {most} addresses")));
    }
    let mut seen = std::collections::HashSet::with_capacity(texts.len());
    let mut addresses = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let address: Address = posthorn_api::parse_field(&format!("{field}[{at}]"), text)?;
        let address = address.to_string();
        if seen.insert(address.clone()) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Text for people, of bounded length and on one line.
pub(crate) fn text<'a>(field: &str, text: &'a str, longest: usize) -> Result<&'a str, Status> {
    if text.len() > longest {
        return Err(invalid(field, format!("is longer than {longest} bytes")));
    }
    posthorn_api::one_line(field, text)
}

/// A tenant's id; "default" when empty.
pub(crate) fn tenant<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    match text {
        "" => Ok("default"),
        text => tenant_id(field, text),
    }
}

/// A tenant's id: a short name.
pub(crate) fn tenant_id<'a>(field: &str, text: &'a str) -> Result<&'a str, Status> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits { Ok(text) } else { Err(invalid(field, "is not 1 to 63 of a-z, 0-9 and -")) }
}

/// How many rows a page has, and one more to see whether another page follows.
pub(crate) fn page_size(asked: u32) -> Result<(usize, i64), Status> {
    match asked {
        0 => Ok((DEFAULT_PAGE as usize, i64::from(DEFAULT_PAGE) + 1)),
        1..=LARGEST_PAGE => Ok((asked as usize, i64::from(asked) + 1)),
        _ => Err(invalid("page_size", format!("is more than {LARGEST_PAGE}"))),
    }
}

/// The place after which a page of names begins; none of ours is longer.
pub(crate) fn after_name(token: &str) -> Result<&str, Status> {
    text("page_token", token, 255)
}

/// The place after which a page of addresses begins: domain and local part.
pub(crate) fn after_address(token: &str) -> Result<(String, String), Status> {
    if token.is_empty() {
        return Ok(Default::default());
    }
    let name = mailbox("page_token", token)?;
    Ok((name.domain.to_string(), name.local.into()))
}

/// Cuts the row too many off and gives the token of the next page, if one follows.
pub(crate) fn cut_page<T>(rows: &mut Vec<T>, size: usize, token: impl FnOnce(&T) -> String) -> String {
    if rows.len() <= size {
        return String::new();
    }
    rows.truncate(size);
    rows.last().map(token).unwrap_or_default()
}
