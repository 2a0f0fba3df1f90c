//! A program that submits by gRPC. While it is in doubt it repeats a call with its idempotency key.

use std::time::Duration;

use posthorn_api::error::{is_temporary, reason};
use posthorn_api::mail::v1::{Envelope, Notify, Recipient};
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::submission::v1::{SubmitRequest, submit_request};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::{Answer, Client, Message, SENDER};

/// A call may take longer than the queue is waited for.
const PATIENCE: Duration = Duration::from_secs(25);
/// As long as anything is away, and longer: then it is left in doubt.
const DOUBT: Duration = Duration::from_secs(120);

pub(super) async fn run(mut client: Client, ingress: String) {
    let endpoint = Endpoint::from_shared(ingress).expect("a URL").connect_timeout(Duration::from_secs(3));
    let mut service = SubmissionServiceClient::new(endpoint.connect_lazy());
    let mut number = 0;
    while let Some(message) = client.next(number).await {
        let answer = hand_in(&mut service, &request(&message)).await;
        if !answer.is_accepted() {
            sleep(Duration::from_millis(50)).await;
        }
        client.note(message, answer);
        number += 1;
    }
}

async fn hand_in(service: &mut SubmissionServiceClient<Channel>, request: &SubmitRequest) -> Answer {
    let (until, mut in_doubt) = (Instant::now() + DOUBT, false);
    loop {
        match submit(service, request).await {
            Answer::Unknown => in_doubt = true,
            // What holds of this call says nothing of the one before.
            Answer::NotNow(_) if in_doubt => {}
            answer => return answer,
        }
        if Instant::now() > until {
            return Answer::Unknown;
        }
        // With its key the repetition is the same message: what was not known is known then.
        sleep(Duration::from_millis(50)).await;
    }
}

async fn submit(service: &mut SubmissionServiceClient<Channel>, request: &SubmitRequest) -> Answer {
    match timeout(PATIENCE, service.submit(request.clone())).await {
        Err(_) => Answer::Unknown,
        Ok(Err(status)) => refusal(&status),
        Ok(Ok(response)) => {
            let response = response.into_inner();
            match response.recipients.iter().find(|recipient| !recipient.accepted) {
                Some(refused) => Answer::Refused(format!("of many: {refused:?}")),
                None => Answer::Accepted(response.message_id),
            }
        }
    }
}

/// What the service itself gave a reason for was not kept, but for the one that says that this is not known; what the
/// transport makes of a broken connection has none.
fn refusal(status: &Status) -> Answer {
    match reason(status).as_deref() {
        None | Some("OUTCOME_UNKNOWN") => Answer::Unknown,
        Some(_) if is_temporary(status) => Answer::NotNow(status.to_string()),
        Some(_) => Answer::Refused(status.to_string()),
    }
}

fn request(message: &Message) -> SubmitRequest {
    let notify =
        message.to.is_to_be_told().then(|| Notify { success: true, failure: true, ..Default::default() });
    let recipient = |address: &String| Recipient { address: address.clone(), notify, ..Default::default() };
    let recipients = message.recipients.iter().map(recipient).collect();
    SubmitRequest {
        envelope: Some(Envelope { sender: SENDER.into(), recipients, ..Default::default() }),
        idempotency_key: message.subject.clone(),
        content: Some(submit_request::Content::Raw(message.content().into())),
    }
}
