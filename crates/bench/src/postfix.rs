//! A Postfix to be measured beside Posthorn: Debian's, as an instance of its own.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::dovecot::Dovecot;
use crate::maildir;
use crate::server::Arrival;

/// A running Postfix with configuration, queue and maildirs of its own; stops when dropped.
#[derive(Debug)]
pub(crate) struct Postfix {
    master: Child,
    dir: TempDir,
    open: SocketAddr,
    held: SocketAddr,
    /// Who has the mailboxes, if it is not Postfix itself.
    dovecot: Option<Dovecot>,
}

/// Where mail for a domain goes.
pub(crate) type Route<'a> = (&'a str, SocketAddr);

const START_DEADLINE: Duration = Duration::from_secs(30);

impl Postfix {
    /// Starts one in a directory of its own below `dir`, with these mailboxes and routes; with a Dovecot that has the
    /// mailboxes, or without.
    pub(crate) async fn start(
        dir: &Path,
        mailboxes: &[String],
        routes: &[Route<'_>],
        with_dovecot: bool,
    ) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "Postfix must be started by root");
        let dir = tempfile::Builder::new().prefix("postfix-").tempdir_in(dir)?;
        // Its daemons run as users of their own.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let (open, held) = (free_address()?, free_address()?);
        prepare(dir.path(), open, held, mailboxes, routes)?;
        let dovecot = match with_dovecot {
            true => Some(Dovecot::start(&dir.path().join("dovecot"), &dir.path().join("mail")).await?),
            false => None,
        };
        deliver_by(dir.path(), dovecot.as_ref())?;
        let log = fs::File::create(dir.path().join("postfix.log"))?;
        let mut master = command(dir.path(), "postfix")
            .arg("start-fg")
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .context("starting Postfix (on Debian: apt-get install postfix)")?;
        let deadline = Instant::now() + START_DEADLINE;
        while crate::source::is_greeted(open).await.is_err() {
            let ended = master.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = master.start_kill();
                let log = fs::read_to_string(dir.path().join("postfix.log")).unwrap_or_default();
                bail!("Postfix did not start: {ended:?}\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { master, dir, open, held, dovecot })
    }

    /// Where messages are handed in.
    pub(crate) fn smtp(&self) -> SocketAddr {
        self.open
    }

    /// Where they go to the hold queue.
    pub(crate) fn held(&self) -> SocketAddr {
        self.held
    }

    /// Whether Dovecot has the mailboxes.
    pub(crate) fn has_dovecot(&self) -> bool {
        self.dovecot.is_some()
    }

    /// The processes that all others descend from.
    pub(crate) fn roots(&self) -> Vec<u32> {
        // The master is waited for only by `drop`.
        self.master.id().into_iter().chain(self.dovecot.as_ref().map(Dovecot::root)).collect()
    }

    /// How many messages the maildirs of these mailboxes hold, together.
    pub(crate) fn delivered(&self, mailboxes: &[String]) -> u64 {
        mailboxes.iter().map(|mailbox| maildir::count(&self.maildir(mailbox))).sum()
    }

    /// The arrivals in a mailbox from now on. It must have had mail before.
    pub(crate) fn watch(&self, mailbox: &str) -> Result<mpsc::UnboundedReceiver<Arrival>> {
        maildir::watch(&self.maildir(mailbox))
    }

    /// Files in the queues from which something is still to be delivered.
    pub(crate) fn owed(&self) -> u64 {
        ["maildrop", "incoming", "active", "deferred"]
            .iter()
            .map(|queue| files(&self.dir.path().join("queue").join(queue)))
            .sum()
    }

    /// Throws away what waits.
    pub(crate) async fn discard(&self) -> Result<()> {
        let status = command(self.dir.path(), "postsuper").args(["-d", "ALL"]).output().await?.status;
        ensure!(status.success(), "postsuper: {status}");
        Ok(())
    }

    fn maildir(&self, mailbox: &str) -> PathBuf {
        let name = mailbox.split('@').next().unwrap_or_default();
        self.dir.path().join("mail").join(name)
    }
}

impl Drop for Postfix {
    /// SIGTERM ends the master and, with it, all its daemons.
    fn drop(&mut self) {
        let stop = std::process::Command::new("postfix")
            .arg("-c")
            .arg(self.dir.path().join("etc"))
            .arg("stop")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let deadline = Instant::now() + START_DEADLINE;
        while stop.is_ok() && matches!(self.master.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.master.start_kill();
    }
}

/// A program of Postfix, for this instance.
fn command(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("-c").arg(dir.join("etc"));
    command
}

/// Files in a queue, hashed into directories or not.
fn files(queue: &Path) -> u64 {
    let entries = fs::read_dir(queue).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The settings that differ from Debian's, as they are printed beside the figures.
///
/// Tuned for throughput, and no check is asked for that costs time; what makes it durable is as it comes.
pub(crate) const SETTINGS: &str = "\
compatibility_level = 3.6
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = localhost
mydestination =
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_tls_security_level = none
default_process_limit = 200
in_flow_delay = 0
message_size_limit = 52428800
mailbox_size_limit = 0
virtual_mailbox_limit = 0
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
default_destination_concurrency_limit = 50
initial_destination_concurrency = 20
smtp_dns_support_level = disabled
smtp_tls_security_level = none
smtp_destination_concurrency_limit = 100
virtual_mailbox_domains = example.test
virtual_minimum_uid = 100
";

/// Debian's services, none of them in a chroot, and a second door whose mail is held.
const MASTER: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
";

fn prepare(
    dir: &Path,
    open: SocketAddr,
    held: SocketAddr,
    mailboxes: &[String],
    routes: &[Route<'_>],
) -> Result<()> {
    let postfix = user("postfix")?;
    let (etc, mail, data) = (dir.join("etc"), dir.join("mail"), dir.join("data"));
    for dir in [&etc, &mail, &data, &dir.join("queue")] {
        fs::create_dir(dir)?;
    }
    chown(&data, Some(postfix.0), Some(postfix.1))?;
    // The mailboxes' owner: any that is neither root nor Postfix itself.
    let owner = user("nobody")?;
    chown(&mail, Some(owner.0), Some(owner.1))?;
    let shown = dir.display();
    let mut main = format!("{SETTINGS}queue_directory = {shown}/queue\ndata_directory = {shown}/data\n");
    main += &format!(
        "virtual_mailbox_base = {shown}/mail\nvirtual_mailbox_maps = texthash:{shown}/etc/mailboxes\n"
    );
    main += &format!("virtual_uid_maps = static:{}\nvirtual_gid_maps = static:{}\n", owner.0, owner.1);
    main += &format!("transport_maps = texthash:{shown}/etc/transport\n");
    fs::write(etc.join("main.cf"), main)?;
    let hold = "-o smtpd_client_restrictions=static:hold";
    let doors = format!("{open} inet n - n - - smtpd\n{held} inet n - n - - smtpd {hold}\n");
    fs::write(etc.join("master.cf"), doors + MASTER)?;
    let line = |mailbox: &String| format!("{mailbox} {}/\n", mailbox.split('@').next().unwrap_or_default());
    fs::write(etc.join("mailboxes"), mailboxes.iter().map(line).collect::<String>())?;
    let line = |(domain, to): &Route<'_>| format!("{domain} smtp:[{}]:{}\n", to.ip(), to.port());
    fs::write(etc.join("transport"), routes.iter().map(line).collect::<String>())?;
    Ok(())
}

/// Says who puts mail into mailboxes: Postfix' own virtual(8), or Dovecot.
fn deliver_by(dir: &Path, dovecot: Option<&Dovecot>) -> Result<()> {
    let by = match dovecot {
        Some(dovecot) => format!("lmtp:unix:{}", dovecot.socket().display()),
        None => "virtual".to_owned(),
    };
    let mut main = fs::OpenOptions::new().append(true).open(dir.join("etc/main.cf"))?;
    Ok(writeln!(main, "virtual_transport = {by}")?)
}

/// A user's and its group's number.
fn user(name: &str) -> Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let found = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (*fields.first()? == name).then_some(())?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    });
    found.with_context(|| format!("there is no user {name} (on Debian: apt-get install postfix)"))
}
