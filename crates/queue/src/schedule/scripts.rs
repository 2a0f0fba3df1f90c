//! The scripts, and how what they are told and answer is written.

use redis::{Script, Value};
use time::OffsetDateTime;

use super::{Item, Leased, Leasing, Token};

/// One script per thing that is done to the schedule; each is a file.
pub(super) struct Scripts {
    pub(super) add: Script,
    pub(super) lease: Script,
    pub(super) claim: Script,
    pub(super) extend: Script,
    pub(super) settle: Script,
    pub(super) lane: Script,
    pub(super) restore: Script,
    pub(super) done: Script,
}

pub(super) fn scripts() -> &'static Scripts {
    static SCRIPTS: std::sync::OnceLock<Scripts> = std::sync::OnceLock::new();
    macro_rules! script {
        ($file:literal) => {
            Script::new(concat!(include_str!("common.lua"), "\n", include_str!($file)))
        };
    }
    SCRIPTS.get_or_init(|| Scripts {
        add: script!("add.lua"),
        lease: script!("lease.lua"),
        claim: script!("claim.lua"),
        extend: script!("extend.lua"),
        settle: script!("settle.lua"),
        lane: script!("lane.lua"),
        restore: script!("restore.lua"),
        done: script!("done.lua"),
    })
}

pub(super) fn read_leasing(answer: &[Value]) -> Option<Leasing> {
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        _ => None,
    };
    let (verb, rest) = answer.split_first()?;
    match &bytes(verb)?[..] {
        b"empty" => Some(Leasing::Empty),
        b"nothing" => {
            let next = String::from_utf8(bytes(rest.first()?)?).ok()?;
            Some(Leasing::Nothing(next.parse().ok().and_then(time_of)))
        }
        b"batch" => {
            let (token, rest) = rest.split_first()?;
            let items = rest.chunks_exact(2).map(|pair| {
                let Value::Int(count) = pair[1] else { return None };
                Some((Item::parse(&bytes(&pair[0])?)?, u8::try_from(count).ok()?))
            });
            let token = Token::parse(&bytes(token)?)?;
            Some(Leasing::Batch(Leased { token, items: items.collect::<Option<_>>()? }))
        }
        _ => None,
    }
}

/// Lua's numbers come as integers; a `Vec<u8>` would be read as a string.
pub(super) fn numbers(answer: Vec<i64>) -> Vec<u8> {
    answer.into_iter().map(|n| u8::try_from(n).unwrap_or(u8::MAX)).collect()
}

pub(super) fn malformed(script: &'static str) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "a script answered something else", script.to_owned()).into()
}

pub(super) fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

pub(super) fn time_of(millis: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}
