//! Where messages go, and what must come of each.

use posthorn_dsn::Action;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// A mailbox here.
    Local,
    /// A server elsewhere.
    Remote,
    /// Both.
    Mixed,
    /// A list: two mailboxes here, one address elsewhere.
    List,
    /// The list, two of its members besides, an alias, and who is behind it: everyone is reached in two ways but one.
    Overlapping,
    /// Two hundred, here and elsewhere.
    Many,
    /// A mailbox here and a server elsewhere, and the sender wants to hear that they have it.
    Told,
    /// Nobody: the server elsewhere refuses it for good.
    Nobody,
}

/// The mailboxes here of [`To::Many`], and its addresses elsewhere: more than one transaction takes.
const MANY: [usize; 2] = [90, 110];

impl To {
    /// All.
    pub const ALL: [Self; 8] = {
        use To::{List, Local, Many, Mixed, Nobody, Overlapping, Remote, Told};
        [Local, Remote, Mixed, List, Overlapping, Many, Told, Nobody]
    };

    /// A client goes through these by turns.
    pub(super) const TURNS: [Self; 40] = {
        use To::{List, Local, Many, Mixed, Nobody, Overlapping, Remote, Told};
        [
            Local,
            Remote,
            Mixed,
            Local,
            Remote,
            Mixed,
            List,
            Overlapping, // 8
            Local,
            Remote,
            Told,
            Mixed,
            Local,
            Remote,
            Nobody,
            List, // 16
            Overlapping,
            Local,
            Remote,
            Mixed,
            Local,
            Remote,
            Told,
            Many, // 24
            Mixed,
            Local,
            List,
            Remote,
            Overlapping,
            Local,
            Remote,
            Nobody, // 32
            Local,
            Mixed,
            Remote,
            Told,
            List,
            Local,
            Remote,
            Overlapping,
        ]
    };

    /// The addresses that a client names, in the order of its turn: which of two ways comes first must not matter.
    pub(super) fn recipients(self, turn: usize) -> Vec<String> {
        let mut recipients = match self {
            Self::Local => own(&["alice@example.test"]),
            Self::Remote => own(&["dave@remote.test"]),
            Self::Mixed | Self::Told => own(&["alice@example.test", "dave@remote.test"]),
            Self::List => own(&["team@example.test"]),
            Self::Overlapping => own(&[
                "alice@example.test",
                "team@example.test",
                "sales@example.test",
                "carl@example.test",
                "eve@remote.test",
            ]),
            Self::Many => [self.mailboxes(), self.elsewhere()].concat(),
            Self::Nobody => own(&["nobody@remote.test"]),
        };
        let first = turn % recipients.len();
        recipients.rotate_left(first);
        recipients
    }

    /// The mailboxes that must have it, once each.
    pub fn mailboxes(self) -> Vec<String> {
        match self {
            Self::Local | Self::Mixed | Self::Told => own(&["alice@example.test"]),
            Self::List => own(&["carl@example.test", "dora@example.test"]),
            Self::Overlapping => own(&["alice@example.test", "carl@example.test", "dora@example.test"]),
            Self::Many => (0..MANY[0]).map(|number| format!("many-{number}@example.test")).collect(),
            Self::Remote | Self::Nobody => Vec::new(),
        }
    }

    /// The addresses elsewhere that must have got it.
    pub fn elsewhere(self) -> Vec<String> {
        match self {
            Self::Remote | Self::Mixed | Self::Told => own(&["dave@remote.test"]),
            Self::List | Self::Overlapping => own(&["eve@remote.test"]),
            Self::Many => (0..MANY[1]).map(|number| format!("many-{number}@remote.test")).collect(),
            Self::Local | Self::Nobody => Vec::new(),
        }
    }

    /// What the sender must be told, once each: of whom, and what.
    pub fn notices(self) -> Vec<(String, Action)> {
        match self {
            Self::Nobody => vec![("nobody@remote.test".to_owned(), Action::Failed)],
            // The server elsewhere knows of NOTIFY: to tell of dave is its own affair.
            Self::Told => vec![("alice@example.test".to_owned(), Action::Delivered)],
            Self::Local | Self::Remote | Self::Mixed | Self::List | Self::Overlapping | Self::Many => {
                Vec::new()
            }
        }
    }

    /// NOTIFY=SUCCESS,FAILURE.
    pub(super) fn is_to_be_told(self) -> bool {
        self == Self::Told
    }
}

fn own(addresses: &[&str]) -> Vec<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}
