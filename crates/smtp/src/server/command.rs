//! Commands out of lines (RFC 5321 §4.1.1).

use posthorn_mail::{Address, AddressError, EnhancedStatus, Host, Status};

/// What a client can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    StartTls,
    /// What a browser says that was led to this port; nothing after it is to be believed.
    Http,
}

/// Room for the parameters of MAIL beyond the 512 octets: SIZE 26, BODY 17, SMTPUTF8 10, RET and ENVID 117.
const MAIL_PARAMETERS: usize = 170;
/// And of RCPT (RFC 3461 §5.4): ORCPT 506, NOTIFY 29.
const RCPT_PARAMETERS: usize = 535;

/// How much longer than the limit any command line may be.
pub(super) const LONGEST_PARAMETERS: usize = RCPT_PARAMETERS;

impl Verb {
    /// Splits a line into verb and argument; `None` when the verb is not known.
    pub(super) fn parse(line: &str) -> Option<(Self, &str)> {
        let line = line.trim_end();
        let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
        let verb = match word.to_ascii_uppercase().as_str() {
            "HELO" => Self::Helo,
            "EHLO" => Self::Ehlo,
            "MAIL" => Self::Mail,
            "RCPT" => Self::Rcpt,
            "DATA" => Self::Data,
            "BDAT" => Self::Bdat,
            "RSET" => Self::Rset,
            "NOOP" => Self::Noop,
            "QUIT" => Self::Quit,
            "VRFY" => Self::Vrfy,
            "EXPN" => Self::Expn,
            "HELP" => Self::Help,
            "STARTTLS" => Self::StartTls,
            "GET" | "POST" | "CONNECT" => Self::Http,
            _ => return None,
        };
        Some((verb, argument.trim_start()))
    }

    /// Octets that a line of this verb may have beyond the limit.
    pub(super) fn extra_length(self) -> usize {
        match self {
            Self::Mail => MAIL_PARAMETERS,
            Self::Rcpt => RCPT_PARAMETERS,
            _ => 0,
        }
    }
}

/// The longest name that a client may give itself (RFC 5321 §4.5.3.1.2).
const LONGEST_NAME: usize = 255;

/// The name that a client gives in HELO or EHLO, as it gave it. Any word is taken, as by other servers: many clients
/// call themselves what no host may be called, and no mail is better for being refused for it.
pub(super) fn helo(argument: &str) -> Result<String, Status> {
    // A name in UTF-8 would have to come as A-labels (RFC 6531 §3.7.1).
    let is_word = !argument.is_empty() && argument.bytes().all(|b| b.is_ascii_graphic());
    if is_word && argument.len() <= LONGEST_NAME {
        return Ok(argument.to_owned());
    }
    Err(syntax("Syntax: EHLO hostname or [address]"))
}

/// Splits `FROM:<path> parameters` or `TO:<path> parameters` into what stands in the brackets and what follows.
pub(super) fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let start = argument.get(..keyword.len())?;
    if !start.eq_ignore_ascii_case(keyword) {
        return None;
    }
    // RFC 5321 §3.3 has no space here, but real clients do.
    let path = argument[keyword.len()..].trim_start_matches(' ').strip_prefix('<')?;
    let end = closing_bracket(path)?;
    let rest = &path[end + 1..];
    (rest.is_empty() || rest.starts_with(' ')).then(|| (&path[..end], rest))
}

/// Where the path ends: brackets in a quoted local part do not count.
fn closing_bracket(path: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in path.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// The mailbox of a path; a source route before it is read and forgotten (RFC 5321 §4.1.1.3, appendix C).
pub(super) fn mailbox(path: &str) -> Result<Address, AddressError> {
    if !path.starts_with('@') {
        return path.parse();
    }
    let (route, mailbox) = path.split_once(':').ok_or(AddressError::Local)?;
    for hop in route.split(',') {
        hop.strip_prefix('@').ok_or(AddressError::Local)?.parse::<Host>()?;
    }
    mailbox.parse()
}

/// `BDAT size [LAST]` (RFC 3030 §2).
pub(super) fn chunk(argument: &str) -> Result<(u64, bool), Status> {
    let (size, last) = match argument.split_once(' ') {
        None => (argument, false),
        Some((size, last)) if last.trim_start().eq_ignore_ascii_case("LAST") => (size, true),
        Some(_) => return Err(syntax("Syntax: BDAT size [LAST]")),
    };
    number(size).map(|size| (size, last)).ok_or_else(|| syntax("Syntax: BDAT size [LAST]"))
}

/// Digits, and nothing else (`str::parse` takes a sign).
pub(super) fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// 501: the command is known, its argument is not right.
pub(super) fn syntax(text: &str) -> Status {
    Status::new(501, EnhancedStatus::new(5, 5, 4), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_where_they_end() {
        for (argument, want) in [
            ("FROM:<a@b>", Some(("a@b", ""))),
            ("from: <a@b> SIZE=1", Some(("a@b", " SIZE=1"))),
            ("FROM:<>", Some(("", ""))),
            ("FROM:<\"a>\\\"b\"@c> X", Some(("\"a>\\\"b\"@c", " X"))),
            ("FROM:<a@b>X", None),
            ("FROM:<a@b", None),
            ("FROM:a@b", None),
            ("FROM<a@b>", None),
            ("TO:<a@b>", None),
            ("", None),
        ] {
            assert_eq!(path(argument, "FROM:"), want, "{argument}");
        }
    }

    #[test]
    fn source_routes_are_forgotten() {
        assert_eq!(mailbox("@a.example,@b.example:c@d.example").unwrap().to_string(), "c@d.example");
        for path in ["@a.example", "@a,b:c@d", "@a b:c@d", "@:c@d"] {
            assert!(mailbox(path).is_err(), "{path}");
        }
    }

    #[test]
    fn chunk_sizes_are_digits() {
        assert_eq!(chunk("10"), Ok((10, false)));
        assert_eq!(chunk("0 LAST"), Ok((0, true)));
        for argument in ["", "LAST", "-1", "+1", "1 2", "1 LAST 2", "99999999999999999999"] {
            assert!(chunk(argument).is_err(), "{argument}");
        }
    }
}
