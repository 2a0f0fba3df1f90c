//! Connections kept open for the next message.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use posthorn_smtp_io::client::Connection;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Reuse;

/// What a connection may be used again for. Not by address alone: what was said to one destination's name (SNI) is
/// not what another wants.
pub(crate) type Key = (SocketAddr, String);

/// A connection, and how many messages went over it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) connection: Box<Connection>,
    pub(crate) messages: u32,
}

/// The idle connections of this process; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    idle: Arc<Mutex<Idle>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    reuse: Reuse,
    room: usize,
}

#[derive(Debug, Default)]
struct Idle {
    held: HashMap<Key, Vec<(u64, Held)>>,
    count: usize,
    last: u64,
}

impl Pool {
    /// Keeps up to `room` connections, until `stop`.
    pub(crate) fn new(reuse: Reuse, room: usize, stop: CancellationToken) -> Self {
        Self { idle: Arc::default(), tasks: TaskTracker::new(), stop, reuse, room }
    }

    /// The connection for this key that was used last, if there is one that still works.
    pub(crate) fn take(&self, key: &Key) -> Option<Held> {
        loop {
            let mut held = self.with(|idle| idle.take(key, None))?;
            if held.connection.is_usable() {
                return Some(held);
            }
        }
    }

    /// Keeps a connection for a while; one that cannot be used again is closed.
    pub(crate) fn put(&self, key: Key, mut held: Held) {
        let worn = held.messages >= self.reuse.messages || self.reuse.idle == Duration::ZERO;
        if !held.connection.is_usable() {
            return;
        }
        if worn || self.stop.is_cancelled() {
            return self.close(held);
        }
        let kept = self
            .with(|idle| if idle.count < self.room { Ok(idle.put(key.clone(), held)) } else { Err(held) });
        match kept {
            Err(held) => self.close(held),
            Ok(id) => {
                let pool = self.clone();
                self.tasks.spawn(async move { pool.expire(&key, id).await });
            }
        }
    }

    async fn expire(&self, key: &Key, id: u64) {
        tokio::select! {
            () = tokio::time::sleep(self.reuse.idle) => {}
            () = self.stop.cancelled() => {}
        }
        if let Some(held) = self.with(|idle| idle.take(key, Some(id))) {
            held.connection.quit().await;
        }
    }

    /// Says QUIT without making anyone wait for it.
    pub(crate) fn close(&self, held: Held) {
        self.tasks.spawn(held.connection.quit());
    }

    /// Waits until all connections are closed, after `stop`.
    pub(crate) async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Idle) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Idle {
    fn put(&mut self, key: Key, held: Held) -> u64 {
        self.last += 1;
        self.count += 1;
        self.held.entry(key).or_default().push((self.last, held));
        self.last
    }

    /// The one with this id, or the one that was put in last.
    fn take(&mut self, key: &Key, id: Option<u64>) -> Option<Held> {
        let stack = self.held.get_mut(key)?;
        let at = match id {
            Some(id) => stack.iter().position(|(other, _)| *other == id)?,
            None => stack.len().checked_sub(1)?,
        };
        let (_, held) = stack.remove(at);
        if stack.is_empty() {
            self.held.remove(key);
        }
        self.count -= 1;
        Some(held)
    }
}
