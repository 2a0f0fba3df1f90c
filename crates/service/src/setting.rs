//! What a setting must be beyond its type: each function is for `#[serde(deserialize_with = "…")]`, so that a value that
//! cannot be is refused where it is read, by its name and with its source.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::client;

/// The longest length of time. Years from now must be in the calendar, here and in the stores.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A number of which at least one is needed, or a size.
pub fn positive<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default + PartialEq,
{
    not_zero(T::deserialize(deserializer)?)
}

/// A length of time, which may be none: `"0s"`.
pub fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let length: Duration = humantime_serde::deserialize(deserializer)?;
    if length > LONGEST { Err(D::Error::custom("is longer than 100 years")) } else { Ok(length) }
}

/// A length of time that is one: a limit, a pause.
pub fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    not_zero(length(deserializer)?)
}

/// Any number of [`period`]s.
pub fn periods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Period(#[serde(deserialize_with = "period")] Duration);
    Ok(Vec::<Period>::deserialize(deserializer)?.into_iter().map(|Period(length)| length).collect())
}

/// The URL of another service, as [`crate::connect`] takes it.
pub fn service_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    client::check(&url).map_err(D::Error::custom)?;
    Ok(url)
}

/// What a text stands for: a domain, a host, an address.
pub fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    parse(&String::deserialize(deserializer)?)
}

/// The same, where the empty text stands for nothing.
pub fn optional<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { parse(&text).map(Some) }
}

/// Any number of them.
pub fn all_parsed<'de, D: Deserializer<'de>, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
{
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| parse(text)).collect()
}

fn parse<T: FromStr<Err: Display>, E: serde::de::Error>(text: &str) -> Result<T, E> {
    text.parse().map_err(|error| E::custom(format!("{text:?}: {error}")))
}

fn not_zero<T: Default + PartialEq, E: serde::de::Error>(value: T) -> Result<T, E> {
    if value == T::default() { Err(E::custom("must not be 0")) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use crate::config::{Sources, load};

    use super::*;

    const DEFAULTS: &str = "[s]\ncount = 1\nlength = '0s'\nperiod = '1s'\nperiods = []\nurl = 'http://queue:7002'\n\
                            parsed = '::1'\noptional = ''\nall_parsed = []\n";

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Section {
        #[serde(deserialize_with = "positive")]
        count: u32,
        #[serde(deserialize_with = "length")]
        length: Duration,
        #[serde(deserialize_with = "period")]
        period: Duration,
        #[serde(deserialize_with = "periods")]
        periods: Vec<Duration>,
        #[serde(deserialize_with = "service_url")]
        url: String,
        #[serde(deserialize_with = "parsed")]
        parsed: IpAddr,
        #[serde(deserialize_with = "optional")]
        optional: Option<IpAddr>,
        #[serde(deserialize_with = "all_parsed")]
        all_parsed: Vec<IpAddr>,
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        for (setting, value, reason) in [
            ("count", "1", None),
            ("count", "0", Some("must not be 0")),
            ("length", "0s", None),
            ("length", "99y", None),
            ("length", "101y", Some("is longer than 100 years")),
            ("period", "1ns", None),
            ("period", "0s", Some("must not be 0")),
            ("periods", "['1s', '1s']", None),
            ("periods", "['1s', '0s']", Some("must not be 0")),
            ("url", "http://[::1]:7002", None),
            ("url", "not a url", Some("is no address of a service: not a URL")),
            ("url", "banana", Some("it names no port")),
            ("url", "https://queue:7002", Some("it must begin with http://")),
            ("parsed", "192.0.2.1", None),
            ("parsed", "", Some("invalid IP address syntax")),
            ("optional", "192.0.2.1", None),
            ("optional", "banana", Some("\"banana\": invalid IP address syntax")),
            ("all_parsed", "['::1', '192.0.2.1']", None),
            ("all_parsed", "['::1', 'banana']", Some("\"banana\": invalid IP address syntax")),
        ] {
            let command_line = vec![(format!("s.{setting}"), value.to_owned())];
            let sources = Sources { command_line, ..Sources::default() };
            let mistakes = load::<Section>("s", DEFAULTS, &sources).err().unwrap_or_default();
            let told: Vec<&str> = mistakes.iter().map(|mistake| mistake.reason.as_str()).collect();
            let as_wanted = match reason {
                None => told.is_empty(),
                Some(reason) => told.len() == 1 && told[0].contains(reason),
            };
            assert!(as_wanted, "{setting} = {value}: {told:?}");
        }
    }
}
