//! The content of a message, in the form that a server can take.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use posthorn_api::spool::v1::ReadContentRequest;
use posthorn_api::spool::v1::spool_service_client::SpoolServiceClient;
use posthorn_mail::{Body, Status};
use posthorn_service::Channel;
use posthorn_smtp::client::Capabilities;
use posthorn_smtp_io::client::{Content, ContentError};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::MESSAGE_BYTES;
use crate::parcel::Parcel;

/// Reads contents from the spool; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    client: SpoolServiceClient<Channel>,
    /// A permit a KiB that is held for conversion.
    memory: Arc<Semaphore>,
    memory_kib: u32,
}

/// A message as it goes over one connection.
pub(crate) struct Fitted<'a> {
    pub(crate) body: Body,
    pub(crate) size: u64,
    pub(crate) utf8_headers: bool,
    source: Source,
    _memory: Option<SemaphorePermit<'a>>,
}

enum Source {
    Memory(Bytes),
    /// To be streamed.
    Spool,
}

impl Spool {
    pub(crate) fn new(queue: Channel, conversion_memory: u64) -> Self {
        let client = SpoolServiceClient::new(queue).max_decoding_message_size(MESSAGE_BYTES);
        let memory_kib = u32::try_from(conversion_memory / 1024).unwrap_or(u32::MAX).max(1);
        Self { client, memory: Arc::new(Semaphore::new(memory_kib as usize)), memory_kib }
    }

    /// The message in a form that the server can take; the status is why there is none.
    pub(crate) async fn fit(&self, parcel: &Parcel, offered: &Capabilities) -> Result<Fitted<'_>, Status> {
        let item = &parcel.item;
        let declared = Body::from(item.body());
        if let Some(content) = &item.content {
            return in_memory(content.clone(), declared, offered);
        }
        let streamed = Fitted {
            // What was not declared may still have 8-bit bytes; to say so is allowed where there are none (RFC 6152 §3).
            body: match declared {
                Body::SevenBit if offered.eight_bit_mime => Body::EightBitMime,
                declared => declared,
            },
            size: item.size,
            utf8_headers: false,
            source: Source::Spool,
            _memory: None,
        };
        let _ = &self.memory_kib;
        Ok(streamed)
    }

    /// The bytes of what [`Spool::fit`] gave.
    pub(crate) fn content(&self, parcel: &Parcel, fitted: &Fitted<'_>) -> Content {
        match &fitted.source {
            Source::Memory(bytes) => Content::Memory(bytes.clone()),
            Source::Spool => self.stream(parcel),
        }
    }

    /// The content as it comes from the spool; asked for when its first byte is wanted.
    fn stream(&self, parcel: &Parcel) -> Content {
        let (mut client, message_id) = (self.client.clone(), parcel.item.message_id.clone());
        let opened = async move {
            match client.read_content(ReadContentRequest { message_id }).await {
                Ok(response) => response.into_inner().map(|part| part.map(|p| p.chunk)).left_stream(),
                Err(status) => futures::stream::iter([Err(status)]).right_stream(),
            }
        };
        let parts = futures::stream::once(opened).flatten();
        Content::Stream(parts.map(|part| part.map_err(|s| ContentError(s.message().to_owned()))).boxed())
    }
}

fn in_memory(content: Bytes, declared: Body, offered: &Capabilities) -> Result<Fitted<'static>, Status> {
    let _ = offered;
    Ok(Fitted {
        body: declared,
        size: content.len() as u64,
        utf8_headers: false,
        source: Source::Memory(content),
        _memory: None,
    })
}
