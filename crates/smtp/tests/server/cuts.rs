//! However the network cuts what a client sends, the session says and does the same.

use crate::shell::{Shell, settings};
use posthorn_smtp::server::Settings;
use proptest::prelude::*;

/// What sessions are made of, the wrong with the right.
const PIECES: [&str; 30] = [
    "EHLO client.example\r\n",
    "MAIL FROM:<bob@example.net>\r\n",
    "MAIL FROM:<bob@example.net> BODY=BINARYMIME\r\n",
    "MAIL FROM:<>\r\n",
    "RCPT TO:<alice@example.test>\r\n",
    "RCPT TO:<carol@example.test> NOTIFY=NEVER\r\n",
    "RCPT TO:<unknown@example.test>\r\n",
    "RCPT TO:<wrong\r\n",
    "DATA\r\n",
    "Subject: x\r\n",
    "\r\n",
    ".\r\n",
    "..\r\n",
    ".\r",
    "\n.\n",
    "\r",
    "\n",
    "\0",
    ".",
    "text",
    "a line of some length that is longer than the others of this little language\r\n",
    "\u{e4}",
    "BDAT 5\r\n",
    "BDAT 0 LAST\r\n",
    "BDAT 9 LAST\r\n",
    "BDAT x\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "QUIT\r\n",
    "NOOP ",
];

/// A session that gets past the envelope often enough.
fn input() -> impl Strategy<Value = String> {
    let beginning = prop::sample::select(vec![
        "",
        "EHLO c.example\r\nMAIL FROM:<b@example.net>\r\nRCPT TO:<alice@example.test>\r\n",
        "EHLO c.example\r\nMAIL FROM:<b@example.net>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n",
    ]);
    let rest = prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40);
    (beginning, rest).prop_map(|(beginning, rest)| beginning.to_owned() + &rest.concat())
}

/// Small limits, so that they are met.
fn tight() -> Settings {
    Settings { message_size: 200, recipients: 3, text_line: 90, errors: 8, commands: 30, ..settings() }
}

/// What was said, and what was done; which recipients were asked about together is left out, for that is what may
/// differ.
fn played<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Vec<String>) {
    let mut shell = Shell::new(tight());
    for piece in pieces {
        shell.send(piece);
    }
    let done = shell.lines.into_iter().filter(|line| !line.starts_with("E: verify"));
    done.partition(|line| line.starts_with("S: "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn cuts_change_nothing(input in input(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let input = input.as_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let whole = played([input]);
        prop_assert_eq!(&played(cuts.windows(2).map(|ends| &input[ends[0]..ends[1]])), &whole);
        prop_assert_eq!(&played(input.chunks(1)), &whole);
    }
}
