//! The connection to Redis.

use std::sync::{Arc, PoisonError, RwLock};

use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};

/// A connection that comes back by itself: when it is broken, which the manager sees to, and when it is silent. A
/// peer that has vanished without a word breaks nothing; all that tells is that no command is answered in its time.
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
}

impl Connection {
    /// Prepares one; Redis need not be up yet.
    pub(super) fn open(client: redis::Client, settings: ConnectionManagerConfig) -> RedisResult<Self> {
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), settings.clone())?;
        Ok(Self { client, settings, current: Arc::new(RwLock::new(Numbered { number: 0, manager })) })
    }

    fn current(&self) -> Numbered {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves a connection over which no answer came; once, however many commands waited for one.
    fn leave_if_silent<T>(&self, number: u64, result: &RedisResult<T>) {
        if !result.as_ref().is_err_and(redis::RedisError::is_timeout) {
            return;
        }
        let fresh = ConnectionManager::new_lazy_with_config(self.client.clone(), self.settings.clone());
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if let Ok(manager) = fresh
            && current.number == number
        {
            *current = Numbered { number: number + 1, manager };
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let Numbered { number, mut manager } = self.current();
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
            let Numbered { number, mut manager } = self.current();
            let result = manager.req_packed_commands(cmd, offset, count).await;
            self.leave_if_silent(number, &result);
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.current().manager.get_db()
    }
}
