//! What the queue takes over, and what it answers.

use posthorn_api::mail::v1 as mail;
use posthorn_api::spool::v1::accept_stream_request::Part;
use posthorn_api::spool::v1::{
    AcceptEnd, AcceptItem, AcceptRequest, AcceptStart, AcceptStreamRequest, FindKeyRequest, HeldRequest,
    Idempotency, SettleRequest, accept_result::Result as Answer,
};
use posthorn_api::work::v1::WorkKind;
use posthorn_mail::MessageId;

use crate::common::*;

fn keyed(key: &str, digest: &'static [u8]) -> (MessageId, AcceptItem) {
    let (id, mut item) = message("a@example.net", &["b@example.test"]);
    let answer = id.to_string().into_bytes().into();
    item.start.as_mut().expect("it has a start").idempotency =
        Some(Idempotency { scope: "tenant".into(), key: key.into(), digest: digest.into(), answer });
    (id, item)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_one_message() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (first, item) = keyed("k", b"digest");
    let (_, twin) = keyed("k", b"digest");
    let (_, other) = keyed("k", b"another");
    // Twice in one call, again in another, and for something else.
    let mut results = queue.try_accept(vec![item, twin.clone()]).await;
    results.extend(queue.try_accept(vec![twin, other]).await);
    let results: Vec<Answer> = results.into_iter().map(|r| r.result.unwrap()).collect();
    assert!(matches!(results[0], Answer::Accepted(_)), "{results:?}");
    for repeated in &results[1..3] {
        let Answer::Repeated(repeated) = repeated else { panic!("{results:?}") };
        assert_eq!(repeated.message_id[..], first.as_bytes()[..]);
        assert_eq!(repeated.answer, first.to_string().into_bytes());
    }
    assert!(matches!(results[3], Answer::KeyConflict(_)), "{results:?}");
    assert_eq!(stores.count("spool.message").await, 1);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_again_is_the_same_message() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (_, item) = message("a@example.net", &["b@example.test", "c@example.test"]);
    queue.accept(vec![item.clone()]).await;
    queue.accept(vec![item, message("x@example.net", &["y@example.test"]).1]).await;
    assert_eq!(stores.count("spool.message").await, 2);
    assert_eq!(stores.count("spool.recipient").await, 3);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_handed_in_again_is_known_even_after_its_end() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (_, item) = message("a@example.net", &["b@example.test"]);
    queue.accept(vec![item.clone()]).await;
    let mut router = queue.worker(WorkKind::Route, 1, 100).await;
    let batch = router.batch().await;
    router.route(&batch, local).await;
    let mut mailboxes = queue.worker(WorkKind::Local, 1, 100).await;
    let batch = mailboxes.batch().await;
    mailboxes.outcome(&batch, |_| delivered()).await;
    stores.until_empty().await;
    // A call that was given up, and comes through behind the one that was made in its place.
    queue.accept(vec![item.clone()]).await;
    assert_eq!(stores.count("spool.message").await, 0);
    let again = |mut item: AcceptItem| {
        item.start.as_mut().expect("it has a start").repeated = true;
        item
    };
    let (_, unknown) = message("a@example.net", &["c@example.test"]);
    let results = queue.try_accept(vec![again(item), again(unknown.clone()), again(unknown)]).await;
    assert!(results.iter().all(|r| matches!(r.result, Some(Answer::Accepted(_)))), "{results:?}");
    assert_eq!((stores.count("spool.message").await, stores.count("spool.recipient").await), (1, 1));
    drop((router, mailboxes));
    queue.stop().await;
}

/// A call whose answer was lost may have been to a replica with other limits: of what it may have kept nobody says no.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_kept_before_is_not_refused() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.accept.max_message", "1KiB")]).await;
    let (_, mut item) = message("a@example.net", &["b@example.test"]);
    item.content = vec![b'x'; 2048].into();
    let first = queue.try_accept(vec![item.clone()]).await;
    assert!(matches!(&first[0].result, Some(Answer::Refused(status)) if status.code == 552), "{first:?}");
    item.start.as_mut().expect("it has a start").repeated = true;
    let again = queue.try_accept(vec![item]).await;
    assert_eq!(again[0].result, None, "nobody can say");
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_answer_was_lost_can_be_asked_for() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let settle = async |id: MessageId| {
        let request = SettleRequest { message_id: posthorn_api::message_id_bytes(id) };
        queue.spool().settle(request).await.unwrap().into_inner().kept
    };
    let given = || message("a@example.net", &["b@example.test"]);
    let ((whole, item), (cut, cut_item)) = (given(), given());
    stream(&queue, item, true).await;
    stream(&queue, cut_item.clone(), false).await;
    let unknown = MessageId::generate();
    assert_eq!((settle(whole).await, settle(cut).await, settle(unknown).await), (true, false, false));
    // What was cut is gone, what was kept stays when it is asked for again.
    assert_eq!(stores.count("content.released").await, 0);
    assert!(settle(whole).await);
    // What was cut can be begun again, in chunks or whole.
    stream(&queue, cut_item, true).await;
    let (second, mut item) = given();
    stream(&queue, item.clone(), false).await;
    assert!(!settle(second).await);
    item.content = vec![b'x'; 600_000].into();
    queue.accept(vec![item]).await;
    for kept in [whole, cut, second] {
        assert!(settle(kept).await);
        assert_eq!(queue.content(&posthorn_api::message_id_bytes(kept)).await.len(), 600_000);
    }
    queue.stop().await;
}

/// Hands in a message in chunks, with its end or without.
async fn stream(queue: &Queue, item: AcceptItem, whole: bool) {
    let mut parts = vec![Part::Start(item.start.expect("it has a start"))];
    parts.extend([300_000, 300_000].map(|size| Part::Chunk(vec![b'x'; size].into())));
    if whole {
        parts.push(Part::End(AcceptEnd { size: 600_000, ..Default::default() }));
    }
    let parts = parts.into_iter().map(|part| AcceptStreamRequest { part: Some(part) });
    let answer = queue.spool().accept_stream(tokio_stream::iter(parts.collect::<Vec<_>>())).await;
    assert_eq!(answer.is_ok(), whole, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_comes_in_chunks_and_a_cut_one_leaves_nothing() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    for whole in [true, false] {
        let (id, item) = message("a@example.net", &["b@example.test"]);
        let mut parts = vec![Part::Start(item.start.unwrap())];
        parts.extend(content.chunks(70_000).map(|chunk| Part::Chunk(chunk.to_vec().into())));
        if whole {
            parts.push(Part::End(AcceptEnd { size: content.len() as u64, ..Default::default() }));
        }
        let parts = parts.into_iter().map(|part| AcceptStreamRequest { part: Some(part) });
        let answer = queue.spool().accept_stream(tokio_stream::iter(parts.collect::<Vec<_>>())).await;
        assert_eq!(answer.is_ok(), whole, "{answer:?}");
        let ids = HeldRequest { message_ids: vec![posthorn_api::message_id_bytes(id)] };
        let held = queue.spool().held(ids).await.unwrap().into_inner().message_ids;
        assert_eq!(held.len(), usize::from(whole));
        if whole {
            let read = queue.content(&posthorn_api::message_id_bytes(id)).await;
            assert!(read == content);
        }
    }
    // What was cut is left to the collector.
    assert_eq!(stores.count("content.released").await, 1);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_stream_may_say_what_its_start_could_not() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let stream = async |digest: &[u8]| {
        let mut start = message("a@example.net", &["b@example.test"]).1.start.unwrap();
        start.idempotency = Some(Idempotency { scope: "s".into(), key: "k".into(), ..Default::default() });
        let end = AcceptEnd {
            size: 2,
            digest: digest.to_vec().into(),
            body: posthorn_api::mail::v1::Body::EightBitMime.into(),
            ..Default::default()
        };
        let parts = [Part::Start(start), Part::Chunk(vec![0xe4, b'\n'].into()), Part::End(end)];
        let parts = parts.map(|part| AcceptStreamRequest { part: Some(part) });
        let answer = queue.spool().accept_stream(tokio_stream::iter(parts)).await.unwrap().into_inner();
        answer.result.unwrap().result.unwrap()
    };
    assert!(matches!(stream(b"one").await, Answer::Accepted(_)));
    assert!(matches!(stream(b"one").await, Answer::Repeated(_)));
    assert!(matches!(stream(b"two").await, Answer::KeyConflict(_)));
    let mut router = queue.worker(WorkKind::Route, 1, 100).await;
    assert_eq!(router.batch().await.items[0].body(), posthorn_api::mail::v1::Body::EightBitMime);
    queue.stop().await;
}

/// Postgres has no text with a NUL: tried again, it would be refused again.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_stored_is_refused_for_good_and_alone() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let wrong = |change: fn(&mut AcceptStart)| {
        let (_, mut item) = keyed("k", b"digest");
        change(item.start.as_mut().unwrap());
        item
    };
    for (item, field) in [
        (wrong(|start| start.idempotency.as_mut().unwrap().key = "k\0".into()), "start.idempotency.key"),
        (wrong(|start| start.idempotency.as_mut().unwrap().scope = "s\0".into()), "start.idempotency.scope"),
        (wrong(|start| start.traceparent = "00-\0".into()), "start.traceparent"),
        (
            wrong(|start| start.envelope.as_mut().unwrap().envelope_id = "id\0".into()),
            "start.envelope.envelope_id",
        ),
        (
            wrong(|start| {
                let recipient = &mut start.envelope.as_mut().unwrap().recipients[0];
                recipient.original_recipient = "rfc822;\0".into();
            }),
            "start.envelope.recipients[0].original_recipient",
        ),
    ] {
        let parts = [AcceptStreamRequest { part: item.start.clone().map(Part::Start) }];
        let refused = queue.spool().accept_stream(tokio_stream::iter(parts)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().starts_with(&format!("{field}: ")), "{refused:?}");

        let good = message("a@example.net", &["b@example.test"]).1;
        let results = queue.try_accept(vec![item, good]).await;
        let results: Vec<Answer> = results.into_iter().map(|result| result.result.unwrap()).collect();
        let [Answer::Refused(status), Answer::Accepted(_)] = &results[..] else { panic!("{results:?}") };
        assert_eq!(status.code, 554, "{status:?}");
    }
    for (scope, key, field) in [("s", "k\0", "key"), ("s\0", "k", "scope")] {
        let request = FindKeyRequest { scope: scope.into(), key: key.into(), digest: Default::default() };
        let refused = queue.spool().find_key(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().starts_with(&format!("{field}: ")), "{refused:?}");
    }
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_says_come_back_later() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[("queue.spool.max_messages", "2")]).await;
    queue.accept((0..2).map(|_| message("a@example.net", &["b@example.test"]).1).collect()).await;
    let items = vec![message("a@example.net", &["b@example.test"]).1];
    let request = posthorn_api::spool::v1::AcceptRequest { items };
    let refused = queue.spool().accept(request).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_recipients_are_one_item_in_each_lane() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let addresses: Vec<String> = (0..1000).map(|n| format!("r{n}@d{}.example", n % 2)).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let (_, item) = message("", &addresses);
    queue.accept(vec![item]).await;
    let mut router = queue.worker(WorkKind::Route, 1, 100).await;
    let batch = router.batch().await;
    assert_eq!(batch.items[0].recipients.len(), 1000);
    router.route(&batch, |a| if a.ends_with("d0.example") { local(a) } else { remote(a) }).await;
    let mut mailboxes = queue.worker(WorkKind::Local, 1, 100).await;
    let batch = mailboxes.batch().await;
    assert_eq!((batch.items.len(), batch.items[0].recipients.len()), (1, 500));
    let refuse_some = |r: &posthorn_api::work::v1::ItemRecipient| -> mail::Outcome {
        if r.recipient_no.is_multiple_of(5) { failed("no such mailbox") } else { delivered() }
    };
    assert_eq!(mailboxes.outcome(&batch, refuse_some).await, []);
    let mut relay = queue.worker(WorkKind::Remote, 1, 100).await;
    let batch = relay.batch().await;
    assert_eq!((batch.items.len(), batch.items[0].recipients.len()), (1, 500));
    assert_eq!(relay.outcome(&batch, |_| delivered()).await, []);
    stores.until_empty().await;
    // Not all local copies were delivered: the collector looks whether any mailbox has it.
    assert_eq!(stores.count("content.released").await, 1);
    drop((router, mailboxes, relay));
    queue.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_after_batch_goes_by_one_stream() {
    let stores = Stores::new().await;
    let queue = stores.queue(&[]).await;
    let (requests, batches) = tokio::sync::mpsc::channel(1);
    let batches = tokio_stream::wrappers::ReceiverStream::new(batches);
    let mut answers = queue.spool().accept_each(batches).await.unwrap().into_inner();
    for count in 1..4 {
        let items = (0..count).map(|_| message("a@example.net", &["b@example.test"]).1).collect();
        requests.send(AcceptRequest { items }).await.unwrap();
        let results = answers.message().await.unwrap().expect("an answer").results;
        assert_eq!(results.len(), count);
        assert!(results.iter().all(|r| matches!(r.result, Some(Answer::Accepted(_)))), "{results:?}");
    }
    assert_eq!(stores.count("spool.message").await, 6);
    queue.process.shutdown.cancel();
    assert_eq!(answers.message().await.unwrap(), None, "a queue that stops ends it");
    queue.stop().await;
}
