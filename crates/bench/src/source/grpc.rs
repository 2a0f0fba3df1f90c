//! A caller of `SubmissionService.Submit`.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use posthorn_api::mail::v1::{Envelope, Recipient};
use posthorn_api::submission::v1::SubmitRequest;
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::submission::v1::submit_request::Content;

use super::{Load, Taken, Turns};
use crate::letter::{SENDER, letter};

/// Takes turns until there are no more, over one connection or one for each call.
pub(super) async fn send(load: &Load, url: &str, turns: &Turns) -> Result<Vec<Taken>> {
    let (mut taken, mut kept) = (Vec::new(), None);
    while let Some(n) = turns.next(load).await {
        let number = load.first + n;
        let recipient = |address: &str| Recipient { address: address.to_owned(), ..Default::default() };
        let envelope = Envelope {
            sender: SENDER.to_owned(),
            recipients: load.recipients_of(n).map(recipient).collect(),
            ..Default::default()
        };
        let request = SubmitRequest {
            envelope: Some(envelope),
            content: Some(Content::Raw(letter(number, load.size).into())),
            idempotency_key: String::new(),
        };
        let start = Instant::now();
        let mut client = match kept.take() {
            Some(client) => client,
            None => {
                SubmissionServiceClient::connect(url.to_owned()).await.context("connecting to ingress")?
            }
        };
        let answer = client.submit(request).await.context("a Submit was refused")?.into_inner();
        taken.push((number, start, start.elapsed()));
        ensure!(
            answer.recipients.iter().all(|result| result.accepted),
            "a recipient was refused: {answer:?}"
        );
        if load.keep {
            kept = Some(client);
        }
    }
    Ok(taken)
}
