//! The connection to Redis.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

/// A connection that comes back by itself: when it is broken, which the manager sees to, and when it is silent. A
/// peer that has vanished without a word breaks nothing; all that tells is that no command is answered in its time. Then
/// commands fail at once, lest all who give some wait as long, until one that asks for nothing is answered.
#[derive(Clone)]
pub(super) struct Connection {
    client: redis::Client,
    settings: ConnectionManagerConfig,
    current: Arc<RwLock<Numbered>>,
}

#[derive(Clone)]
struct Numbered {
    number: u64,
    manager: ConnectionManager,
    /// No command was answered in its time, and none is tried.
    silent: bool,
}

/// The pause between two looks whether a silent Redis answers again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

impl Connection {
    /// Prepares one; Redis need not be up yet.
    pub(super) fn open(client: redis::Client, settings: ConnectionManagerConfig) -> RedisResult<Self> {
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), settings.clone())?;
        Ok(Self {
            client,
            settings,
            current: Arc::new(RwLock::new(Numbered { number: 0, manager, silent: false })),
        })
    }

    fn current(&self) -> Numbered {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection for a command.
    fn answering(&self) -> RedisResult<Numbered> {
        let current = self.current();
        if current.silent {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "Redis does not answer").into());
        }
        Ok(current)
    }

    /// Leaves a connection over which no answer came; once, however many commands waited for one.
    fn leave_if_silent<T>(&self, number: u64, result: &RedisResult<T>) {
        if result.as_ref().is_err_and(redis::RedisError::is_timeout) && self.leave(number) {
            tokio::spawn(self.clone().until_it_answers());
        }
    }

    /// Whether it was left now.
    fn leave(&self, number: u64) -> bool {
        let fresh = ConnectionManager::new_lazy_with_config(self.client.clone(), self.settings.clone());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let Ok(manager) = fresh else { return false };
        let first = current.number == number;
        if first {
            *current = Numbered { number: number + 1, manager, silent: true };
        }
        first
    }

    async fn until_it_answers(self) {
        loop {
            let Numbered { number, mut manager, .. } = self.current();
            match redis::cmd("PING").exec_async(&mut manager).await {
                Ok(()) => break,
                Err(error) if error.is_timeout() => drop(self.leave(number)),
                Err(_) => {}
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
        self.current.write().unwrap_or_else(PoisonError::into_inner).silent = false;
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let Numbered { number, mut manager, .. } = self.answering()?;
            let result = manager.req_packed_command(cmd).await;
            self.leave_if_silent(number, &result);
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        cmd: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let Numbered { number, mut manager, .. } = self.answering()?;
            let result = manager.req_packed_commands(cmd, offset, count).await;
            self.leave_if_silent(number, &result);
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.current().manager.get_db()
    }
}
