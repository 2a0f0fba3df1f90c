//! Mailboxes of Postfix and Dovecot, as a file system sees them.

use std::fs;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::sync::mpsc;

use crate::letter::number_in;
use crate::server::Arrival;

/// How many messages lie in a maildir.
pub(crate) fn count(maildir: &Path) -> u64 {
    let files = |part| fs::read_dir(maildir.join(part)).map_or(0, |entries| entries.count() as u64);
    files("new") + files("cur")
}

/// The arrivals in `new` of a maildir, which must exist, from now on.
pub(crate) fn watch(maildir: &Path) -> Result<mpsc::UnboundedReceiver<Arrival>> {
    let new = maildir.join("new");
    let events = inotify::init(CreateFlags::CLOEXEC)?;
    inotify::add_watch(&events, &new, WatchFlags::CREATE | WatchFlags::MOVED_TO)
        .with_context(|| format!("watching {}", new.display()))?;
    let (sender, arrivals) = mpsc::unbounded_channel();
    // Reading blocks. The thread ends with the first arrival that nobody waits for, or with the process.
    std::thread::spawn(move || {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut reader = inotify::Reader::new(events, &mut buffer);
        while let Ok(event) = reader.next() {
            let seen = Instant::now();
            let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
            if let Some(number) = name.and_then(|name| number_of(&name, &new))
                && sender.send((number, seen)).is_err()
            {
                return;
            }
        }
    });
    Ok(arrivals)
}

fn number_of(name: &str, new: &Path) -> Option<u64> {
    let path: PathBuf = new.join(name);
    let mut head = Vec::new();
    fs::File::open(path).ok()?.take(4096).read_to_end(&mut head).ok()?;
    number_in(&head)
}
