//! The content of a message, in the form that a server can take.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use posthorn_api::spool::v1::ReadContentRequest;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_api::work::v1::Item;
use posthorn_mail::{Body, EnhancedStatus, Status};
use posthorn_service::Channel;
use posthorn_smtp::client::{Capabilities, downgrade, needs};
use posthorn_smtp_io::client::{Content, ContentError};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::MESSAGE_BYTES;

/// How long the queue may take for a piece of a content.
const SILENCE: Duration = Duration::from_secs(30);

/// Reads contents from the spool; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    client: SpoolServiceClient<Channel>,
    memory: Arc<Semaphore>,
    /// All of `memory`; a permit is a KiB.
    memory_kib: u32,
}

/// A message as it goes over one connection.
pub(crate) struct Fitted<'a> {
    /// What the content is.
    pub(crate) body: Body,
    pub(crate) size: u64,
    pub(crate) utf8_headers: bool,
    source: Source,
    _memory: Option<SemaphorePermit<'a>>,
}

enum Source {
    Memory(Bytes),
    Spool,
}

impl Spool {
    pub(crate) fn new(queue: Channel, conversion_memory: u64) -> Self {
        let client = SpoolServiceClient::new(queue).max_decoding_message_size(MESSAGE_BYTES);
        let memory_kib = u32::try_from(conversion_memory / 1024).unwrap_or(u32::MAX / 8).max(1);
        Self { client, memory: Arc::new(Semaphore::new(memory_kib as usize)), memory_kib }
    }

    /// The message in a form that the server can take; the status is why there is none.
    pub(crate) async fn fit(&self, item: &Item, offered: &Capabilities) -> Result<Fitted<'_>, Status> {
        let declared = Body::from(item.body());
        if let Some(content) = &item.content {
            return in_memory(content.clone(), declared, item.smtputf8, offered);
        }
        if may_stream(declared, item.smtputf8, offered) {
            return Ok(Fitted {
                // What was said to be ASCII may not be; to announce more than there is is allowed (RFC 6152 §3).
                body: declared.max(Body::EightBitMime),
                size: item.size,
                utf8_headers: item.smtputf8,
                source: Source::Spool,
                _memory: None,
            });
        }
        // Once as it is, and once more as it becomes.
        let wanted = u32::try_from(item.size / 512).unwrap_or(u32::MAX).clamp(1, self.memory_kib);
        let permit = self.memory.acquire_many(wanted).await.expect("the semaphore is never closed");
        let pieces: Vec<Bytes> = self.pieces(item).try_collect().await.map_err(unreadable)?;
        let fitted = in_memory(pieces.concat().into(), declared, item.smtputf8, offered)?;
        Ok(Fitted { _memory: Some(permit), ..fitted })
    }

    /// The bytes of what [`Spool::fit`] gave.
    pub(crate) fn content(&self, item: &Item, fitted: &Fitted<'_>) -> Content {
        match &fitted.source {
            Source::Memory(bytes) => Content::Memory(bytes.clone()),
            Source::Spool => Content::Stream(self.pieces(item).boxed()),
        }
    }

    /// The content as it comes from the spool; asked for when its first byte is wanted.
    fn pieces(&self, item: &Item) -> impl futures::Stream<Item = Result<Bytes, ContentError>> + Send + use<> {
        let (mut client, message_id) = (self.client.clone(), item.message_id.clone());
        let opened = async move {
            match client.read_content(ReadContentRequest { message_id }).await {
                Ok(response) => response.into_inner().map_ok(|part| part.chunk).left_stream(),
                Err(status) => futures::stream::iter([Err(status)]).right_stream(),
            }
        };
        let parts = futures::stream::once(opened).flatten().boxed();
        futures::stream::unfold(Some(parts), async |parts| {
            let mut parts = parts?;
            match tokio::time::timeout(SILENCE, parts.next()).await {
                Ok(part) => {
                    let piece = part?.map_err(|status| ContentError(status.message().to_owned()));
                    Some((piece, Some(parts)))
                }
                Err(_) => Some((Err(ContentError("the queue does not send the content".to_owned())), None)),
            }
        })
    }
}

/// Whether the content can go to the server whatever is in it.
fn may_stream(declared: Body, smtputf8: bool, offered: &Capabilities) -> bool {
    offered.eight_bit_mime
        && (declared != Body::BinaryMime || offered.binary_mime)
        && (!smtputf8 || offered.smtputf8)
}

fn in_memory(
    content: Bytes,
    declared: Body,
    smtputf8: bool,
    offered: &Capabilities,
) -> Result<Fitted<'static>, Status> {
    let needs = needs(&content, declared);
    // Raw octets in the header of a message that never asked for SMTPUTF8 are 8-bit content like others.
    let utf8_headers = needs.utf8_headers && smtputf8;
    // Then it is refused for that (RFC 6531 §3.5), whatever else it needs.
    let lost = utf8_headers && !offered.smtputf8;
    let most = match (offered.binary_mime, offered.eight_bit_mime) {
        (true, _) => Body::BinaryMime,
        (false, true) => Body::EightBitMime,
        (false, false) => Body::SevenBit,
    };
    let (content, body) = if lost || needs.body <= most {
        (content, needs.body)
    } else {
        metrics::counter!("posthorn_relay_conversions_total").increment(1);
        let converted = downgrade(&content, most);
        let status = |why| Status::new(554, EnhancedStatus::new(5, 6, 3), format!("{why}"));
        (converted.map_err(status)?.into(), most)
    };
    Ok(Fitted {
        body,
        size: content.len() as u64,
        utf8_headers,
        source: Source::Memory(content),
        _memory: None,
    })
}

fn unreadable(error: ContentError) -> Status {
    Status::new(451, EnhancedStatus::new(4, 3, 0), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "Subject: x\r\n\r\nplain\r\n";
    const EIGHT: &str =
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\na line with one é\r\n";

    fn fit(content: &'static str, declared: Body, offered: &Capabilities) -> (Body, String) {
        let fitted = in_memory(Bytes::from_static(content.as_bytes()), declared, false, offered).unwrap();
        let Source::Memory(bytes) = fitted.source else { panic!("it was in memory") };
        assert_eq!(fitted.size, bytes.len() as u64);
        (fitted.body, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn content_is_converted_only_where_the_server_needs_it() {
        let none = Capabilities::default();
        let eight = Capabilities { eight_bit_mime: true, ..Capabilities::default() };
        let binary = Capabilities { binary_mime: true, chunking: true, ..eight.clone() };
        assert_eq!(fit(PLAIN, Body::EightBitMime, &none), (Body::SevenBit, PLAIN.to_owned()));
        assert_eq!(fit(EIGHT, Body::SevenBit, &eight), (Body::EightBitMime, EIGHT.to_owned()));
        let (body, converted) = fit(EIGHT, Body::EightBitMime, &none);
        assert!(body == Body::SevenBit && converted.contains("one =C3=A9"), "{converted}");

        let raw = "MIME-Version: 1.0\r\nContent-Type: image/png\r\n\r\n\0\0\0";
        assert_eq!(fit(raw, Body::BinaryMime, &binary), (Body::BinaryMime, raw.to_owned()));
        let (body, converted) = fit(raw, Body::BinaryMime, &eight);
        assert!(body == Body::EightBitMime && converted.ends_with("base64\r\n\r\nAAAA"), "{converted}");
    }

    #[test]
    fn what_cannot_be_converted_fails() {
        let signed = "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\né\r\n--b--\r\n";
        let content = Bytes::from_static(signed.as_bytes());
        let refused = in_memory(content, Body::EightBitMime, false, &Capabilities::default()).err().unwrap();
        assert_eq!(
            refused.to_string(),
            "554 5.6.3 8-bit content that is signed or encrypted cannot be converted"
        );
    }
}
