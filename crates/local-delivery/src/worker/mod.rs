//! The work stream: batches of items in, outcomes out.
//!
//! ```text
//!  queue ──batch──▶ session ──jobs──▶ writers (one transaction at a time each)
//!    ▲                 │  ▲              │
//!    └──report─────────┘  └────ended─────┘
//! ```
//! The writers and what is held of the leases outlive a connection: outcomes that were found while the queue was away
//! are reported when it is back.

mod item;
mod leases;
mod session;
mod writer;

use std::sync::Arc;

use posthorn_api::work::v1::{ItemReport, ReleasedItem};
use posthorn_database::Standing;
use posthorn_service::{Channel, Error, Need, Process, wait_for};
use tokio::sync::{Mutex, mpsc};

use crate::config::Work;
use crate::notify::Changed;
use crate::store;
use item::Job;
use session::Session;
use writer::Writer;

/// What came of a job.
#[derive(Debug)]
pub(crate) enum Ended {
    /// An outcome for each recipient.
    Done(ItemReport),
    /// It was not begun, or left no trace.
    NotBegun(ReleasedItem),
}

/// Waits for the store, then does local work until the process is told to stop and everything in hand is recorded or
/// given back.
pub(crate) async fn run(
    queue: Channel,
    standing: Arc<Standing>,
    changed: Changed,
    config: Work,
    process: Process,
    needs: (Need, Need),
) -> Result<(), Error> {
    let (postgres, stream) = needs;
    // It owns what it uses: of a closure that borrows, the compiler cannot tell that the waiting is `Send`.
    let asked = standing.clone();
    let schema = move || store::answers(asked.clone());
    if wait_for(&postgres, &process.shutdown, schema).await.is_none() {
        return Ok(());
    }
    let room = (config.credits * config.max_batch) as usize;
    let (jobs, pending) = mpsc::channel::<Job>(room);
    let (end, ended) = mpsc::channel::<Ended>(room);
    let pending = Arc::new(Mutex::new(pending));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..config.writers {
        let writer = Writer {
            standing: standing.clone(),
            changed: changed.clone(),
            postgres: postgres.clone(),
            shutdown: process.shutdown.clone(),
            max_copies: config.max_copies,
            max_items: config.max_batch as usize,
            attempts: config.attempts,
        };
        writers.spawn(writer.run(Arc::clone(&pending), end.clone()));
    }
    drop(end);
    let session = Session::new(queue, config, jobs, ended, process.shutdown.clone());
    tokio::select! {
        () = session.run(&stream) => {}
        // Writers end after the session. One that panicked holds jobs that nobody will end.
        _ = writers.join_next() => {
            process.shutdown.cancel();
            return Err(Error::fatal("a writer has ended before its time"));
        }
    }
    // The session has dropped the jobs' sender: the writers find no more and end.
    while writers.join_next().await.is_some() {}
    Ok(())
}
