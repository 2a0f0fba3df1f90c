//! Golden transcripts of the client's side: `tests/client/*.txt`, each a session as a text.
//!
//! - `S: 250 ok`: the server says a line; `S+ 250 ok`: one more, in the same packet. `S: <closes>`: it closes the
//!   connection.
//! - `C: QUIT`: the client says a line; lines in a row are one write. `C: <DATA>` and `C: <BDAT>`: it writes the
//!   content that way. `C: <waits>`: for a reply. `C: <TLS>`: it shakes hands. `C: <ready>`: it waits for work.
//! - `C: <closes>`: it closes after QUIT; `C: <closes: loop 554 ...>` or `refused` or `lost`: for that reason.
//! - `+30s`: time passes.
//! - `> from=a@example.net to=b@example.org,c@example.org size=100`: a transaction begins; also `body=8bit`,
//!   `body=binary`, `headers=utf8`, `ret=hdrs`, `envid=x`, `notify=success`, `orcpt=rfc822;x`. `> quit`: QUIT is asked
//!   for. `> content lost`: the content cannot be read.
//! - `= b@example.org delivered 250 2.0.0 ok`: what became of a recipient; `delivered+dsn`, `refused`, `no-content`,
//!   `next-server`, `next-transaction`, `uncertain`.
//! - `starttls`, `hostname localhost`, `own-name mx.example`: settings, at the top. `#`: a comment.

#![expect(clippy::unwrap_used, reason = "a panic is the report of a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use posthorn_mail::{Body, EnhancedStatus, Envelope, Notify, Recipient, Ret, Status};
use posthorn_smtp::client::{Answer, Ending, Framing, Session, Settings, Step, Timeouts, Transaction};

#[test]
fn sessions_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client");
    let mut transcripts: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    transcripts.sort();
    assert!(transcripts.len() > 10, "the transcripts are missing");
    for path in transcripts {
        Run::new(&fs::read_to_string(&path).unwrap(), path.file_name().unwrap().to_str().unwrap()).play();
    }
}

/// What became of the content when the session wanted it: written, or cut.
fn answers_of(replies: &[(u16, bool)], recipients: usize) -> (Vec<Answer>, bool) {
    let now = Instant::now();
    let settings = Settings {
        hostname: "relay.example".to_owned(),
        own_names: vec![],
        starttls: false,
        timeouts: Timeouts::default(),
    };
    let mut session = Session::new(settings, now);
    let (mut replies, mut begun, mut taken) = (replies.iter(), false, false);
    // Each round takes a reply, or ends; a session that does neither would hang here.
    for _ in 0..10_000 {
        match session.step(now) {
            Step::Send(_) => {}
            Step::Receive { .. } => match replies.next() {
                None => session.disconnected("the test has no more to say"),
                Some((code, pipelining)) => {
                    let more = if *pipelining { "250-mx\r\n250 PIPELINING\r\n" } else { "" };
                    let reply = format!("{code} x\r\n");
                    session.received(if *code == 250 && !begun { more.as_bytes() } else { reply.as_bytes() });
                    taken = *code / 100 == 2;
                }
            },
            Step::Content(_) => session.content_sent(now),
            Step::Ready | Step::Close(_) if !begun => {
                begun = true;
                session.begin(transaction(&format!("from=a@example.net many={recipients}")));
            }
            Step::Done(answers) => return (answers, taken),
            step => panic!("{step:?}"),
        }
    }
    panic!("the session does not come to an end");
}

proptest! {
    #[test]
    fn whatever_the_server_says_each_recipient_has_one_answer(
        codes in prop::collection::vec(prop_oneof![
            4 => Just(250u16), 2 => Just(354), 1 => Just(220), 1 => Just(421), 1 => Just(450), 1 => Just(452),
            1 => Just(550), 1 => 200u16..600,
        ], 0..40),
        pipelining in any::<bool>(),
        recipients in 1usize..60,
    ) {
        let greeting_and_ehlo = [(220, false), (250, true)];
        let replies: Vec<_> = greeting_and_ehlo
            .into_iter()
            .map(|(code, _)| (code, pipelining))
            .chain(codes.into_iter().map(|code| (code, false)))
            .collect();
        let (answers, last_was_positive) = answers_of(&replies, recipients);
        prop_assert_eq!(answers.len(), recipients);
        let delivered = answers.iter().any(|answer| matches!(answer, Answer::Delivered { .. }));
        prop_assert!(!delivered || last_was_positive, "nothing is delivered but by a positive last word");
    }
}

struct Run {
    name: String,
    lines: Vec<String>,
    session: Session,
    now: Instant,
    recipients: Vec<String>,
}

impl Run {
    fn new(text: &str, name: &str) -> Self {
        let mut settings = Settings {
            hostname: "relay.example".to_owned(),
            own_names: vec![],
            starttls: false,
            timeouts: Timeouts::default(),
        };
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(' ') {
                None if line == "starttls" => settings.starttls = true,
                Some(("hostname", name)) => settings.hostname = name.to_owned(),
                Some(("own-name", name)) => settings.own_names.push(name.to_owned()),
                _ => lines.push(line.to_owned()),
            }
        }
        let now = Instant::now();
        let session = Session::new(settings, now);
        Self { name: name.to_owned(), lines, session, now, recipients: vec![] }
    }

    fn play(mut self) {
        let lines = std::mem::take(&mut self.lines);
        let mut at = 0;
        while at < lines.len() {
            let line = &lines[at];
            if line.starts_with("C: ") || line.starts_with("= ") {
                let mark = &line[..2];
                let same = lines[at..].iter().take_while(|l| l.starts_with(mark)).count();
                // What is written down, line by line, until the step's text is complete.
                let step = self.next_step();
                let count = step.lines().count().min(same);
                let wanted = lines[at..at + count].join("\n");
                assert_eq!(step, wanted, "{}, entry {}", self.name, at + 1);
                at += count;
            } else {
                self.tell(line);
                at += 1;
            }
        }
    }

    fn tell(&mut self, line: &str) {
        if let Some(text) = line.strip_prefix("S: ") {
            // The client has done all it can before the server speaks.
            let step = self.session.step(self.now);
            let content = matches!(step, Step::Content(_));
            assert!(
                content || matches!(step, Step::Receive { .. } | Step::Ready),
                "{}: the server says {text:?} while the client wants {step:?}",
                self.name
            );
            match text {
                "<closes>" => self.session.disconnected("closed by the server"),
                text => self.session.received(format!("{text}\r\n").as_bytes()),
            }
        } else if let Some(text) = line.strip_prefix("S+ ") {
            self.session.received(format!("{text}\r\n").as_bytes());
        } else if let Some(seconds) = line.strip_prefix('+') {
            self.now += Duration::from_secs(seconds.trim_end_matches('s').parse().unwrap());
        } else if line == "> quit" {
            self.ready();
            self.session.quit();
        } else if line == "> content lost" {
            let status = Status::new(451, EnhancedStatus::new(4, 3, 0), "the content cannot be read");
            self.session.content_unavailable(status);
        } else if let Some(words) = line.strip_prefix("> ") {
            self.ready();
            let transaction = transaction(words);
            self.recipients = transaction.envelope.recipients.iter().map(|r| r.address.to_string()).collect();
            self.session.begin(transaction);
        } else {
            panic!("{}: what is {line:?}?", self.name);
        }
    }

    fn ready(&mut self) {
        let step = self.session.step(self.now);
        assert!(matches!(step, Step::Ready | Step::Close(_)), "{}: {step:?}", self.name);
    }

    /// The session's next step as a transcript has it.
    fn next_step(&mut self) -> String {
        match self.session.step(self.now) {
            Step::Send(bytes) => {
                let text = String::from_utf8(bytes).unwrap();
                assert!(text.ends_with("\r\n"));
                text.lines().map(|line| format!("C: {line}")).collect::<Vec<_>>().join("\n")
            }
            Step::Receive { .. } => "C: <waits>".to_owned(),
            Step::StartTls => {
                self.session.tls_started();
                "C: <TLS>".to_owned()
            }
            Step::Content(framing) => {
                let name = if framing == Framing::Data { "DATA" } else { "BDAT" };
                self.session.content_sent(self.now);
                format!("C: <{name}>")
            }
            Step::Ready => "C: <ready>".to_owned(),
            Step::Done(answers) => {
                assert_eq!(answers.len(), self.recipients.len());
                let told = self.recipients.iter().zip(answers).map(|(r, a)| format!("= {r} {}", show(&a)));
                told.collect::<Vec<_>>().join("\n")
            }
            Step::Close(ending) => match ending {
                Ending::Quit => "C: <closes>".to_owned(),
                Ending::Loop(status) => format!("C: <closes: loop {status}>"),
                Ending::Refused(status) => format!("C: <closes: refused {status}>"),
                Ending::Lost(status) => format!("C: <closes: lost {status}>"),
            },
        }
    }
}

fn show(answer: &Answer) -> String {
    match answer {
        Answer::Delivered { status, dsn_passed_on: false } => format!("delivered {status}"),
        Answer::Delivered { status, dsn_passed_on: true } => format!("delivered+dsn {status}"),
        Answer::Refused(status) => format!("refused {status}"),
        Answer::NoContent(status) => format!("no-content {status}"),
        Answer::NextServer(status) => format!("next-server {status}"),
        Answer::NextTransaction => "next-transaction".to_owned(),
        Answer::Uncertain(status) => format!("uncertain {status}"),
    }
}

fn transaction(words: &str) -> Transaction {
    let mut envelope = Envelope::new("".parse().unwrap(), vec![]);
    let (mut size, mut utf8_headers) = (100, false);
    for word in words.split(' ') {
        let (key, value) = word.split_once('=').unwrap();
        match (key, value) {
            ("from", sender) => envelope.sender = sender.parse().unwrap(),
            ("to", many) => {
                envelope.recipients = many.split(',').map(|r| Recipient::new(r.parse().unwrap())).collect();
            }
            ("many", count) => {
                let address = |n: usize| format!("r{n}@example.org").parse().unwrap();
                envelope.recipients =
                    (1..=count.parse().unwrap()).map(|n| Recipient::new(address(n))).collect();
            }
            ("size", bytes) => size = bytes.parse().unwrap(),
            ("body", "8bit") => envelope.body = Body::EightBitMime,
            ("body", "binary") => envelope.body = Body::BinaryMime,
            ("headers", "utf8") => utf8_headers = true,
            ("ret", "hdrs") => envelope.ret = Some(Ret::Headers),
            ("envid", id) => envelope.envelope_id = Some(id.to_owned()),
            ("notify", "success") => {
                let notify = Notify::On { success: true, failure: false, delay: false };
                envelope.recipients.iter_mut().for_each(|r| r.notify = Some(notify));
            }
            ("orcpt", original) => {
                envelope.recipients.iter_mut().for_each(|r| r.original_recipient = Some(original.to_owned()));
            }
            _ => panic!("what is {word:?}?"),
        }
    }
    Transaction { envelope, size, utf8_headers }
}
