//! What a server does when.

use std::time::Duration;

/// A point of the session at which a rule may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// A client has connected.
    Connect,
    /// EHLO.
    Ehlo,
    /// HELO.
    Helo,
    /// STARTTLS.
    StartTls,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The first bytes of the content have come, after DATA.
    Content,
    /// The final dot, or the last BDAT.
    EndOfData,
    /// RSET.
    Rset,
    /// QUIT.
    Quit,
}

/// What a server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Says this; lines are separated by `\n`.
    Reply(String),
    /// Says this and closes the connection.
    ReplyAndClose(String),
    /// Begins to say this, and closes the connection before the end of the line.
    BreakOff(String),
    /// Closes the connection.
    Drop,
    /// Says nothing, for ever.
    Hang,
    /// Waits, then goes on as if there were no rule.
    Wait(Duration),
}

/// When to do what.
#[derive(Debug, Clone)]
pub struct Rule {
    at: At,
    containing: Option<String>,
    skip: usize,
    left: usize,
    action: Action,
}

/// A server's name, what it offers, and its rules; the first rule that holds is followed.
#[derive(Debug, Clone)]
pub struct Script {
    pub(super) name: String,
    pub(super) extensions: Vec<String>,
    pub(super) tls: Tls,
    rules: Vec<Rule>,
}

/// What becomes of STARTTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    None,
    /// With a certificate of no one that anyone knows.
    SelfSigned,
    /// 220, and then no TLS.
    Broken,
}

impl Rule {
    /// A rule for a point; until one of the endings below is given, it hangs.
    pub fn at(at: At) -> Self {
        Self { at, containing: None, skip: 0, left: usize::MAX, action: Action::Hang }
    }

    /// Only where the line holds this.
    pub fn containing(self, text: &str) -> Self {
        Self { containing: Some(text.to_owned()), ..self }
    }

    /// Only the first so many times.
    pub fn first(self, times: usize) -> Self {
        Self { left: times, ..self }
    }

    /// Not the first so many times.
    pub fn after(self, times: usize) -> Self {
        Self { skip: times, ..self }
    }

    /// Says this; lines are separated by `\n`.
    pub fn replies(self, reply: &str) -> Self {
        self.does(Action::Reply(reply.to_owned()))
    }

    /// Says this and closes the connection.
    pub fn replies_and_closes(self, reply: &str) -> Self {
        self.does(Action::ReplyAndClose(reply.to_owned()))
    }

    /// Begins to say this, and closes the connection before the end of the line.
    pub fn breaks_off(self, text: &str) -> Self {
        self.does(Action::BreakOff(text.to_owned()))
    }

    /// Closes the connection.
    pub fn drops(self) -> Self {
        self.does(Action::Drop)
    }

    /// Says nothing, for ever.
    pub fn hangs(self) -> Self {
        self.does(Action::Hang)
    }

    /// Waits, then goes on as usual.
    pub fn waits(self, time: Duration) -> Self {
        self.does(Action::Wait(time))
    }

    fn does(self, action: Action) -> Self {
        Self { action, ..self }
    }

    fn holds(&mut self, at: At, line: &str) -> bool {
        if self.at != at || !self.containing.as_ref().is_none_or(|text| line.contains(text)) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

impl Script {
    /// A server that takes everything, with the usual extensions but STARTTLS.
    pub fn named(name: &str) -> Self {
        let extensions =
            ["PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"];
        Self {
            name: name.to_owned(),
            extensions: extensions.map(str::to_owned).to_vec(),
            tls: Tls::None,
            rules: Vec::new(),
        }
    }

    /// Offers this too (or with other parameters): `SIZE 1000`, `CHUNKING`.
    pub fn with(self, extension: &str) -> Self {
        let keyword = extension.split(' ').next().unwrap_or_default();
        let mut script = self.without(keyword);
        script.extensions.push(extension.to_owned());
        script
    }

    /// Does not offer this.
    pub fn without(mut self, keyword: &str) -> Self {
        self.extensions.retain(|offered| offered.split(' ').next() != Some(keyword));
        self
    }

    /// Offers STARTTLS, with a certificate of no one that anyone knows.
    pub fn starttls(mut self) -> Self {
        self.tls = Tls::SelfSigned;
        self.with("STARTTLS")
    }

    /// Offers STARTTLS and then fails at it.
    pub fn broken_starttls(mut self) -> Self {
        self.tls = Tls::Broken;
        self.with("STARTTLS")
    }

    /// Adds a rule behind those there are.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    pub(super) fn action(&mut self, at: At, line: &str) -> Option<Action> {
        self.rules.iter_mut().find_map(|rule| rule.holds(at, line).then(|| rule.action.clone()))
    }

    pub(super) fn offers(&self, keyword: &str) -> bool {
        self.extensions.iter().any(|offered| offered.split(' ').next() == Some(keyword))
    }
}
