//! A program that does not know whether its call got through calls again, with the same idempotency key.

use anyhow::{Context as _, Result, ensure};
use mail_parser::{MessageParser, MimeHeaders as _};
use posthorn_api::mail::v1::{Envelope, Recipient};
use posthorn_api::submission::v1::submission_service_client::SubmissionServiceClient;
use posthorn_api::submission::v1::submit_request::Content;
use posthorn_api::submission::v1::{Attachment, Header, Mailbox, StructuredMessage, SubmitRequest};
use posthorn_e2e::{Posthorn, letter};
use tonic::Code;
use tonic::transport::Channel;

const ALICE: &str = "alice@example.test";
const BOB: &str = "bob@example.test";

type Client = SubmissionServiceClient<Channel>;

#[tokio::test(flavor = "multi_thread")]
async fn once_for_each_key() -> Result<()> {
    let posthorn = Posthorn::start().await?;
    let mut client = SubmissionServiceClient::connect(posthorn.url(7001)).await?;
    same_answer_for_the_same_request(&posthorn, &mut client).await?;
    answers_for_each_recipient(&mut client).await?;
    writes_the_mime_of_structured_messages(&posthorn, &mut client).await
}

fn request(key: &str, recipients: &[&str], body: &str) -> SubmitRequest {
    let recipient = |address: &&str| Recipient { address: (*address).into(), ..Default::default() };
    let envelope = Envelope {
        sender: BOB.into(),
        recipients: recipients.iter().map(recipient).collect(),
        ..Default::default()
    };
    SubmitRequest {
        envelope: Some(envelope),
        content: Some(Content::Raw(letter("Submitted", body).into())),
        idempotency_key: key.into(),
    }
}

async fn same_answer_for_the_same_request(posthorn: &Posthorn, client: &mut Client) -> Result<()> {
    let first = client.submit(request("order-17", &[ALICE], "one")).await?.into_inner();
    let again = client.submit(request("order-17", &[ALICE], "one")).await?.into_inner();
    ensure!(first == again, "{first:?} and then {again:?}");
    // At the same instant too.
    let (mut left, mut right) = (client.clone(), client.clone());
    let (left, right) = tokio::join!(
        left.submit(request("order-18", &[ALICE], "two")),
        right.submit(request("order-18", &[ALICE], "two")),
    );
    let (left, right) = (left?.into_inner(), right?.into_inner());
    ensure!(left == right, "{left:?} and at once {right:?}");

    let refused =
        client.submit(request("order-17", &[ALICE], "another")).await.err().context("another body")?;
    ensure!(refused.code() == Code::AlreadyExists, "{refused:?}");
    let refused =
        client.submit(request("order-17", &[BOB], "one")).await.err().context("another recipient")?;
    ensure!(refused.code() == Code::AlreadyExists, "{refused:?}");

    posthorn.wait_for_mail(ALICE, 2).await?;
    for id in [&first.message_id, &left.message_id] {
        posthorn.wait_for_end(id).await;
    }
    let mails = posthorn.list(ALICE).await?;
    ensure!(mails.len() == 2, "two messages were handed in, twice each; {} came", mails.len());
    ensure!(posthorn.list(BOB).await?.is_empty());
    Ok(())
}

async fn answers_for_each_recipient(client: &mut Client) -> Result<()> {
    let recipients = [ALICE, "nobody@example.test"];
    let answer = client.submit(request("", &recipients, "to two")).await?.into_inner();
    let accepted: Vec<_> = answer.recipients.iter().map(|r| (r.address.as_str(), r.accepted)).collect();
    ensure!(accepted == [(ALICE, true), ("nobody@example.test", false)], "{answer:?}");
    let status = answer.recipients[1].status.clone().context("why not")?;
    ensure!(status.code == 550 && status.enhanced == "5.1.1", "{status:?}");

    let refused = client.submit(request("", &["nobody@example.test"], "to none")).await.err();
    let refused = refused.context("no recipient")?;
    ensure!(refused.code() == Code::FailedPrecondition, "{refused:?}");
    let refused = client.submit(request("", &["no address"], "x")).await.err().context("no address")?;
    ensure!(refused.code() == Code::InvalidArgument, "{refused:?}");
    let refused = client.submit(SubmitRequest::default()).await.err().context("nothing in it")?;
    ensure!(refused.code() == Code::InvalidArgument, "{refused:?}");
    Ok(())
}

async fn writes_the_mime_of_structured_messages(posthorn: &Posthorn, client: &mut Client) -> Result<()> {
    let mailbox = |address: &str, name: &str| Mailbox { address: address.into(), name: name.into() };
    let message = StructuredMessage {
        from: Some(mailbox(ALICE, "Alice Müller")),
        to: vec![mailbox(BOB, "")],
        bcc: vec![mailbox("bob+hidden@example.test", "")],
        subject: "Grüße 🎺".into(),
        text: "plain words".into(),
        html: "<p>words</p>".into(),
        attachments: vec![Attachment {
            filename: "zahlen.pdf".into(),
            content_type: "application/pdf".into(),
            content: vec![0, 159, 146, 150].into(),
            ..Default::default()
        }],
        headers: vec![Header { name: "X-Order".into(), value: "17".into() }],
        ..Default::default()
    };
    let request = SubmitRequest { content: Some(Content::Message(message)), ..Default::default() };
    client.submit(request).await?;
    for mail in posthorn.wait_for_mail(BOB, 2).await? {
        let parsed = MessageParser::new().parse(&mail.raw).context("a message")?;
        ensure!(parsed.subject() == Some("Grüße 🎺"), "{:?}", parsed.subject());
        ensure!(mail.summary.subject == "Grüße 🎺", "{:?}", mail.summary);
        ensure!(parsed.body_text(0).as_deref().map(str::trim) == Some("plain words"));
        ensure!(parsed.body_html(0).as_deref().map(str::trim) == Some("<p>words</p>"));
        let attachment = parsed.attachment(0).context("the attachment")?;
        ensure!(attachment.attachment_name() == Some("zahlen.pdf"));
        ensure!(attachment.contents() == [0, 159, 146, 150]);
        ensure!(parsed.header_raw("X-Order").map(str::trim) == Some("17"));
        ensure!(parsed.date().is_some() && parsed.message_id().is_some());
        let below = mail.raw.windows(8).filter(|w| w.eq_ignore_ascii_case(b"+hidden@")).count();
        let delivered_to = mail.raw.starts_with(b"Return-Path:") && below <= 1;
        ensure!(delivered_to, "the hidden recipient shows: {}", mail.raw.escape_ascii());
        ensure!(parsed.bcc().is_none());
    }
    Ok(())
}
