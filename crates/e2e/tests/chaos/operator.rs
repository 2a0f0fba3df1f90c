//! An operator who cannot leave the queue alone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use posthorn_api::queue::v1::queue_service_client::QueueServiceClient;
use posthorn_api::queue::v1::target::Target as Of;
use posthorn_api::queue::v1::{
    Filter, HoldRequest, ListMessagesRequest, ReleaseRequest, RetryRequest, Target,
};
use posthorn_e2e::Api;
use posthorn_testkit::wait;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

/// How many messages each operation has touched.
pub(crate) type Touched = BTreeMap<&'static str, u64>;

pub(crate) struct Operator {
    api: Api,
    stop: watch::Sender<bool>,
    task: JoinHandle<Touched>,
}

const PATIENCE: Duration = Duration::from_secs(5);

impl Operator {
    /// Holds, releases and retries messages that wait, at random.
    pub(crate) fn start(api: &Api, random: StdRng) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(meddle(api.clone(), random, stopped));
        Self { api: api.clone(), stop, task }
    }

    /// Releases all that is held; what was done.
    pub(crate) async fn stop(self) -> Result<Touched> {
        ensure!(self.stop.send(true).is_ok(), "the operator has gone");
        let touched = self.task.await?;
        wait::until("all to be released", Duration::from_secs(60), async || {
            let mut queue = QueueServiceClient::connect(self.api.queue.clone()).await.ok()?;
            let held = Filter { held: true, ..Default::default() };
            let request = ReleaseRequest { target: Some(Target { target: Some(Of::Filter(held)) }) };
            queue.release(request).await.ok()?;
            (self.api.stats().await.ok()?.held == 0).then_some(())
        })
        .await;
        Ok(touched)
    }
}

async fn meddle(api: Api, mut random: StdRng, stopped: watch::Receiver<bool>) -> Touched {
    let mut touched = Touched::new();
    while !*stopped.borrow() {
        // What is away now is back later.
        if let Ok(Ok(mut queue)) = timeout(PATIENCE, QueueServiceClient::connect(api.queue.clone())).await {
            while let Ok(Ok(())) = timeout(PATIENCE, turn(&mut queue, &mut random, &mut touched)).await {
                if *stopped.borrow() {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    touched
}

/// One look at the queue, and some of what is in it is held, released, and tried again.
async fn turn(
    queue: &mut QueueServiceClient<Channel>,
    random: &mut StdRng,
    touched: &mut Touched,
) -> Result<(), Status> {
    let request = ListMessagesRequest { page_size: 100, ..Default::default() };
    let waiting = queue.list_messages(request).await?.into_inner().messages;
    for message in waiting.iter().filter(|_| random.random_bool(0.3)).collect::<Vec<_>>() {
        let target = Some(Target { target: Some(Of::MessageId(message.message_id.clone())) });
        let (name, messages) = match random.random_range(0..4) {
            0 => ("held", queue.hold(HoldRequest { target }).await?.into_inner().messages),
            1 | 2 if message.held => {
                ("released", queue.release(ReleaseRequest { target }).await?.into_inner().messages)
            }
            _ => ("retried", queue.retry(RetryRequest { target }).await?.into_inner().messages),
        };
        *touched.entry(name).or_default() += messages;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}
