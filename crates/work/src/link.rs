//! A replica of the queue: a stream to it, and the next one when that has ended.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use posthorn_api::work::v1::{
    Credit, Hello, Release, WorkRequest, WorkResponse, work_request::Request, work_response::Response,
    work_service_client::WorkServiceClient,
};
use posthorn_service::Channel;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use crate::leases::{StreamId, Told};

/// How long the queue may take to end a stream that this side has ended.
const CLOSE: Duration = Duration::from_secs(2);
/// A stream that ends so young is not followed by the next at once: it may end as soon, and again.
const YOUNG: Duration = Duration::from_secs(1);
/// The pause then.
const PAUSE: Duration = Duration::from_millis(200);
/// Pauses while a replica cannot be reached, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Streams so far.
static STREAMS: AtomicU64 = AtomicU64::new(0);

/// What is heard of a replica.
#[derive(Debug)]
pub(crate) enum News {
    /// A stream to it is open.
    Opened(Stream),
    /// The queue says something by a stream; by one that this side has ended, too.
    Said(StreamId, Response),
    /// A stream has ended that this side has not.
    Broke(StreamId, Status),
    /// It cannot be reached, and is tried again.
    Away(SocketAddr, Status),
}

/// The way to one replica.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) replica: SocketAddr,
    pub(crate) client: WorkServiceClient<Channel>,
    pub(crate) hello: Hello,
    pub(crate) news: mpsc::Sender<News>,
    /// No other stream follows the one that there is.
    pub(crate) let_go: CancellationToken,
}

/// A stream's direction to the queue. Dropped, it is ended: what has been said still arrives.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) replica: SocketAddr,
    /// Batches that were asked for and have not come.
    pub(crate) asked: u32,
    /// The queue wants it to end.
    pub(crate) sent_away: bool,
    let_go: CancellationToken,
    /// As much as what is held can give rise to, which the credits bound; a replica that takes nothing is noticed by its
    /// connection, and must not hold up what goes to others.
    requests: mpsc::UnboundedSender<WorkRequest>,
    _ended: DropGuard,
}

/// A stream's direction from the queue.
struct Answers {
    stream: StreamId,
    responses: Streaming<WorkResponse>,
    /// This side has ended it.
    ended: CancellationToken,
}

impl Link {
    /// Holds a stream until the replica is let go, or nobody hears the news.
    pub(crate) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        while let Some(opened) = self.let_go.run_until_cancelled(self.open()).await {
            let wait = match opened {
                Ok((stream, answers)) => {
                    pause = FIRST_PAUSE;
                    if self.news.send(News::Opened(stream)).await.is_err() {
                        return;
                    }
                    let begun = Instant::now();
                    self.listen(answers).await;
                    if begun.elapsed() >= YOUNG {
                        continue;
                    }
                    PAUSE
                }
                Err(status) => {
                    let reason = status.message();
                    let replica = self.replica;
                    tracing::warn!(%replica, reason, "no stream to the queue, trying again in {pause:?}");
                    if self.news.send(News::Away(self.replica, status)).await.is_err() {
                        return;
                    }
                    let this = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    this
                }
            };
            let _ = self.let_go.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
    }

    async fn open(&self) -> Result<(Stream, Answers), Status> {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        let stream = Stream {
            id: STREAMS.fetch_add(1, Ordering::Relaxed),
            replica: self.replica,
            asked: 0,
            sent_away: false,
            let_go: self.let_go.clone(),
            requests,
            _ended: ended.clone().drop_guard(),
        };
        // The queue answers when it has been greeted: that goes before the call.
        stream.send(Request::Hello(self.hello.clone()));
        let responses = self.client.clone().work(UnboundedReceiverStream::new(outgoing)).await?.into_inner();
        let answers = Answers { stream: stream.id, responses, ended };
        Ok((stream, answers))
    }

    /// Passes on what the queue says, to the end of the stream.
    async fn listen(&self, answers: Answers) {
        let Answers { stream, mut responses, ended } = answers;
        let status = loop {
            let Some(response) = ended.run_until_cancelled(responses.message()).await else {
                // A stream that is dropped is cut: the queue may not have taken all yet.
                let rest = async {
                    while let Ok(Some(response)) = responses.message().await {
                        self.pass_on(stream, response).await;
                    }
                };
                let _ = tokio::time::timeout(CLOSE, rest).await;
                return;
            };
            match response {
                Ok(Some(response)) => self.pass_on(stream, response).await,
                Ok(None) => break Status::unavailable("the queue closed the stream"),
                Err(status) => break status,
            }
        };
        // Nobody hears it any more: then nobody wants another one either.
        let _ = self.news.send(News::Broke(stream, status)).await;
    }

    async fn pass_on(&self, stream: StreamId, response: WorkResponse) {
        // Without a response: of a newer neighbour.
        if let Some(response) = response.response {
            let _ = self.news.send(News::Said(stream, response)).await;
        }
    }
}

impl Stream {
    /// Whether no more work is taken by it.
    pub(crate) fn is_leaving(&self) -> bool {
        self.sent_away || self.let_go.is_cancelled()
    }

    /// Whether another one follows it.
    pub(crate) fn comes_back(&self) -> bool {
        !self.let_go.is_cancelled()
    }

    /// Sends. That it could not be is seen by the answers, which say why: what matters is noted and told again.
    pub(crate) fn send(&self, request: Request) {
        let _ = self.requests.send(WorkRequest { request: Some(request) });
    }

    pub(crate) fn ask(&mut self, batches: u32) {
        if batches > 0 {
            self.asked += batches;
            self.send(Request::Credit(Credit { batches }));
        }
    }

    /// Outcomes first: recording them renews their leases, too.
    pub(crate) fn tell(&self, told: Told) {
        let Told { reports, back: items, extend } = told;
        reports.into_iter().for_each(|report| self.send(Request::Report(report)));
        if !items.is_empty() {
            self.send(Request::Release(Release { items }));
        }
        if let Some(extend) = extend {
            self.send(Request::Extend(extend));
        }
    }
}
