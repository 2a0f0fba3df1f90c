//! Messages are appended, small and large, and read back in ranges.

use posthorn_api::mailbox::v1 as api;
use tonic::Code;

use crate::world::{ALICE, World};

/// A message of this size whose body has no two stretches alike, with a header section that ends at `headers`.
fn message(headers: usize, size: usize) -> Vec<u8> {
    let mut bytes = b"Subject: large\r\nX-Long: ".to_vec();
    bytes.resize(headers - 4, b'x');
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes.extend((bytes.len()..size).map(|at| (at * 31 + at / 251) as u8));
    bytes
}

fn get(uid: u32, part: api::Part, offset: u64, limit: u64) -> api::GetMessageRequest {
    let (mailbox, folder) = (ALICE.into(), "Sent".into());
    api::GetMessageRequest { mailbox, folder, uid, part: part.into(), offset, limit }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_is_read_back_in_any_range() {
    let mut world = World::start().await;
    world.account(ALICE, 0);
    // The end of the headers lies across the boundary of two stored chunks.
    let chunk = 256 * 1024;
    let content = message(chunk + 2, 3 * chunk + 77);
    let summary = world.append("Sent", &["\\Seen", "$Mine"], &content, 100_000).await.unwrap();
    assert_eq!((summary.uid, summary.size, summary.subject.as_str()), (1, content.len() as u64, "large"));
    assert_eq!((summary.flags.join(" ").as_str(), summary.message_id.as_str()), ("\\Seen $Mine", ""));
    for (offset, limit) in [(0, 0), (0, 1), (262_143, 3), (262_144, 262_144), (500_000, 0), (786_500, 999)] {
        let read = world.read(get(1, api::Part::Raw, offset, limit)).await.unwrap();
        let from = offset as usize;
        let to = if limit == 0 { content.len() } else { content.len().min(from + limit as usize) };
        assert!(read == content[from..to], "{offset}+{limit}: {} bytes", read.len());
    }
    let headers = world.read(get(1, api::Part::Headers, 0, 0)).await.unwrap();
    assert!(headers == content[..chunk + 2], "{} bytes", headers.len());

    let small = world.append("Sent", &[], b"Subject: small\r\n\r\n", 5).await.unwrap();
    assert_eq!((small.uid, small.modseq, small.subject.as_str()), (2, 2, "small"));
    let sent = world.folders(ALICE).await["Sent"].clone();
    assert_eq!((sent.messages, sent.unseen, sent.size), (2, 1, content.len() as u64 + 18));
    assert_eq!(world.count("SELECT count(*) FROM content.released").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_appended_is_refused_and_leaves_nothing() {
    let mut world =
        World::start_with(|config| config.mailbox.max_append = bytesize::ByteSize::kib(600)).await;
    world.account(ALICE, 500_000);
    let large = message(100, 520_000);
    for (folder, content, code) in [
        ("Nowhere", &large[..10], Code::NotFound),
        ("a//b", &large[..10], Code::InvalidArgument),
        ("INBOX", &large[..0], Code::InvalidArgument),
        // Larger than the mailbox, larger than the limit.
        ("INBOX", &large[..], Code::ResourceExhausted),
        ("INBOX", &message(100, 700_000)[..], Code::ResourceExhausted),
    ] {
        let refused = world.append(folder, &[], content, 50_000).await.unwrap_err();
        assert_eq!(refused.code(), code, "{folder}, {} bytes: {refused}", content.len());
    }
    world.append("INBOX", &[], &large[..400_000], 50_000).await.unwrap();
    let refused = world.append("INBOX", &[], &large[..200_000], 50_000).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let first = api::AppendMessageRequest { part: None };
    let refused = world.mailbox.append_message(tokio_stream::iter([first])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(world.list(ALICE, "INBOX").await.len(), 1);
    // What had been taken of the others is waiting for the collector.
    let kept = "SELECT count(DISTINCT content_id) FROM content.chunk WHERE content_id NOT IN
                (SELECT content_id FROM content.released)";
    assert_eq!(world.count(kept).await, 1);
}
