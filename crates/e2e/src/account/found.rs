//! What came where.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use posthorn_api::mailbox::v1::MessageSummary;
use posthorn_dsn::{Action, Report, Returned};
use posthorn_testkit::smtp_server::SmtpServer;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Api;
use crate::load::{SENDER, To};

/// All that was found, by where it was and the subject.
#[derive(Debug, Default)]
pub struct Found {
    pub(super) mailboxes: BTreeMap<(String, String), Vec<Copy>>,
    pub(super) elsewhere: BTreeMap<(String, String), Vec<Arrival>>,
    /// By the subject of what they return: who it is about, and what is said of it.
    pub(super) notices: BTreeMap<String, Vec<(String, Action)>>,
    /// What cannot be right, whatever was sent.
    pub(super) wrong: Vec<String>,
}

/// A message as somebody has it.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    /// The id in its Received line.
    pub(super) id: String,
    pub(super) digest: u64,
    pub(super) at: SystemTime,
}

/// A message that came to the server elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) copy: Copy,
    pub(super) at: Instant,
    /// The server said 250, and was heard or not.
    pub(super) accepted: bool,
}

/// How many mailboxes are read at the same time, and how long each may take.
const READERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What every message of the load begins with; above it stands what Posthorn has put there.
const BEGINNING: &[u8] = b"From: Carol <carol@elsewhere.test>\r\n";

/// Of the content as it was handed in, every byte of it.
pub(super) fn digest(content: &[u8]) -> u64 {
    let at = content.windows(BEGINNING.len()).position(|bytes| bytes == BEGINNING).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    content[at..].hash(&mut hasher);
    hasher.finish()
}

impl Copy {
    pub(super) fn of(content: &[u8], at: SystemTime) -> Self {
        let head = String::from_utf8_lossy(&content[..content.len().min(2000)]).into_owned();
        let id = head.split_once(" id ").and_then(|(_, rest)| rest.split([';', '\r', ' ']).next());
        Self { id: id.unwrap_or_default().to_owned(), digest: digest(content), at }
    }
}

impl Found {
    /// Looks into all mailboxes, and at what the server elsewhere has got.
    pub async fn collect(api: &Api, server: &SmtpServer) -> Result<Self> {
        let mut mailboxes: Vec<String> = To::ALL.iter().flat_map(|to| to.mailboxes()).collect();
        mailboxes.push(SENDER.to_owned());
        mailboxes.sort_unstable();
        mailboxes.dedup();
        let (mut reading, readers) = (JoinSet::new(), Arc::new(Semaphore::new(READERS)));
        for mailbox in mailboxes {
            let (api, readers) = (api.clone(), readers.clone());
            reading.spawn(async move {
                let _turn = readers.acquire().await;
                let mails = read(&api, &mailbox).await.with_context(|| format!("reading {mailbox}"))?;
                anyhow::Ok((mailbox, mails))
            });
        }
        let mut found = Self::default();
        while let Some(read) = reading.join_next().await {
            let (mailbox, mails) = read??;
            for (summary, raw) in mails {
                if let Err(reason) = found.note(&mailbox, &summary, raw) {
                    found.wrong.push(format!("{} {} of {mailbox}: {reason:#}", summary.folder, summary.uid));
                }
            }
        }
        for message in server.messages() {
            let subject = subject(&message.content).unwrap_or_default();
            let at = SystemTime::now() - message.at.elapsed();
            let copy = Copy::of(&message.content, at);
            for to in &message.rcpt {
                let to = to.split('>').next().unwrap_or_default().trim_start_matches('<').to_owned();
                let (copy, accepted) = (copy.clone(), message.was_accepted());
                let arrival = Arrival { copy, at: message.at.into(), accepted };
                found.elsewhere.entry((to, subject.clone())).or_default().push(arrival);
            }
        }
        Ok(found)
    }

    fn note(
        &mut self,
        mailbox: &str,
        summary: &MessageSummary,
        raw: Result<Vec<u8>, tonic::Status>,
    ) -> Result<()> {
        let raw = raw.context("it cannot be read")?;
        if raw.len() as u64 != summary.size {
            bail!("it has {} bytes, and should have {}", raw.len(), summary.size);
        }
        if mailbox == SENDER {
            return self.note_notice(&raw);
        }
        let at = summary.received_at.context("no time")?.try_into()?;
        let copy = Copy::of(&raw, at);
        if copy.id != summary.message_id {
            bail!("its Received line has the id {}, and it is {}", copy.id, summary.message_id);
        }
        self.mailboxes.entry((mailbox.to_owned(), summary.subject.clone())).or_default().push(copy);
        Ok(())
    }

    fn note_notice(&mut self, raw: &[u8]) -> Result<()> {
        let report = Report::parse(raw).context("it is no notice")?;
        let (Returned::Full(content) | Returned::Headers(content)) = &report.returned else {
            bail!("the notice returns nothing");
        };
        let subject = subject(content).context("what it returns has no subject")?;
        let told = report.recipients.iter().map(|told| (told.final_recipient.to_string(), told.action));
        self.notices.entry(subject).or_default().extend(told);
        Ok(())
    }

    pub(super) fn in_mailbox(&self, mailbox: &str, subject: &str) -> &[Copy] {
        self.mailboxes.get(&(mailbox.to_owned(), subject.to_owned())).map_or(&[], Vec::as_slice)
    }

    pub(super) fn at(&self, address: &str, subject: &str) -> &[Arrival] {
        self.elsewhere.get(&(address.to_owned(), subject.to_owned())).map_or(&[], Vec::as_slice)
    }

    pub(super) fn notices(&self, subject: &str) -> &[(String, Action)] {
        self.notices.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Where each message came, by subject; a notice comes to its sender.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        let placed = self.mailboxes.keys().chain(self.elsewhere.keys());
        let placed = placed.map(|(place, subject)| (place.as_str(), subject.as_str()));
        placed.chain(self.notices.keys().map(|subject| (SENDER, subject.as_str())))
    }
}

/// A store that does not answer in time on a busy machine is asked again.
async fn read(api: &Api, mailbox: &str) -> Result<Vec<(MessageSummary, Result<Vec<u8>, tonic::Status>)>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match api.read_all(mailbox).await {
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(200)).await,
            read => return read,
        }
    }
}

fn subject(content: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&content[..content.len().min(4000)]).into_owned();
    head.lines().find_map(|line| Some(line.strip_prefix("Subject: ")?.trim().to_owned()))
}
