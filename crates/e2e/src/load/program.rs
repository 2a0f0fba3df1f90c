//! A program that submits by gRPC, and repeats each call with its idempotency key until it is answered.

use std::time::Duration;

use posthorn_api::mail::v1::{Envelope, Recipient};
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::submission::v1::{SubmitRequest, submit_request};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Endpoint;

use super::{Answer, Client, Message, SENDER};

/// A call may take longer than the queue is waited for.
const PATIENCE: Duration = Duration::from_secs(25);

pub(super) async fn run(mut client: Client, ingress: String) {
    let endpoint = Endpoint::from_shared(ingress).expect("a URL").connect_timeout(Duration::from_secs(3));
    let mut service = SubmissionServiceClient::new(endpoint.connect_lazy());
    let mut number = 0;
    while let Some(message) = client.next(number).await {
        let request = request(&message);
        let mut answer = submit(&mut service, &request).await;
        // With its key the repetition is the same message: what was not known is known now.
        while matches!(answer, Answer::Unknown | Answer::NotNow(_)) && !*client.stopped.borrow() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            answer = submit(&mut service, &request).await;
        }
        // Of several calls one may have been kept.
        if matches!(answer, Answer::NotNow(_)) {
            answer = Answer::Unknown;
        }
        client.note(message, answer);
        number += 1;
    }
}

async fn submit(
    service: &mut SubmissionServiceClient<tonic::transport::Channel>,
    request: &SubmitRequest,
) -> Answer {
    match timeout(PATIENCE, service.submit(request.clone())).await {
        Err(_) => Answer::Unknown,
        Ok(Ok(response)) => Answer::Accepted(response.into_inner().message_id),
        Ok(Err(status)) => match status.code() {
            Code::Unavailable | Code::ResourceExhausted => Answer::NotNow(status.to_string()),
            Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists => {
                Answer::Refused(status.to_string())
            }
            _ => Answer::Unknown,
        },
    }
}

fn request(message: &Message) -> SubmitRequest {
    let recipient = |address: &&str| Recipient { address: (*address).to_owned(), ..Default::default() };
    let recipients = message.to.recipients().iter().map(recipient).collect();
    SubmitRequest {
        envelope: Some(Envelope { sender: SENDER.into(), recipients, ..Default::default() }),
        idempotency_key: message.subject.clone(),
        content: Some(submit_request::Content::Raw(message.content().into())),
    }
}
