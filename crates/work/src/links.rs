//! The replicas of the queue, as they come and go.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use posthorn_api::work::v1::Hello;
use posthorn_api::work::v1::work_service_client::WorkServiceClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::MESSAGE_BYTES;
use crate::link::{Link, News};

/// News that may wait: those who bring it wait then.
const NEWS: usize = 64;

/// A link to each replica.
#[derive(Debug)]
pub(crate) struct Links {
    hello: Hello,
    known: HashMap<SocketAddr, Known>,
    /// Cut when dropped.
    tasks: JoinSet<()>,
    news: mpsc::Sender<News>,
}

#[derive(Debug)]
struct Known {
    let_go: CancellationToken,
    /// It has no stream, and may have one in a moment.
    is_expected: bool,
}

impl Links {
    pub(crate) fn new(hello: Hello) -> (Self, mpsc::Receiver<News>) {
        let (news, heard) = mpsc::channel(NEWS);
        (Self { hello, known: HashMap::new(), tasks: JoinSet::new(), news }, heard)
    }

    /// These are the replicas now.
    pub(crate) fn follow(&mut self, replicas: &HashSet<SocketAddr>) {
        self.known.retain(|replica, known| {
            let stays = replicas.contains(replica);
            if !stays {
                tracing::info!(%replica, "a replica of the queue is let go");
                known.let_go.cancel();
            }
            stays
        });
        for replica in replicas {
            if !self.known.contains_key(replica) {
                self.add(*replica);
            }
        }
        // Those that ended long ago.
        while self.tasks.try_join_next().is_some() {}
    }

    fn add(&mut self, replica: SocketAddr) {
        let channel = match posthorn_service::connect_to(replica) {
            Ok(channel) => channel,
            Err(reason) => {
                tracing::error!(%replica, %reason, "a replica of the queue cannot be called");
                return;
            }
        };
        let let_go = CancellationToken::new();
        let client = WorkServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let (hello, news) = (self.hello.clone(), self.news.clone());
        self.tasks.spawn(Link { replica, client, hello, news, let_go: let_go.clone() }.run());
        self.known.insert(replica, Known { let_go, is_expected: true });
    }

    /// Whether a replica may have its next stream in a moment.
    pub(crate) fn expect(&mut self, replica: SocketAddr, is_expected: bool) {
        if let Some(known) = self.known.get_mut(&replica) {
            known.is_expected = is_expected;
        }
    }

    /// How many streams may be there in a moment.
    pub(crate) fn expected(&self) -> usize {
        self.known.values().filter(|known| known.is_expected).count()
    }

    /// All are let go; returns when what was said has been taken.
    pub(crate) async fn close(mut self) {
        self.known.values().for_each(|known| known.let_go.cancel());
        while self.tasks.join_next().await.is_some() {}
    }
}
