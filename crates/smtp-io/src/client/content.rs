//! The bytes of a message on their way out.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use posthorn_smtp::client::{DotStuffer, Framing};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// How much is put into one write. Small messages go out whole, large ones need no second copy of themselves.
const BLOCK: usize = 256 * 1024;

/// The content of a message: CRLF line ends, dots not doubled.
pub enum Content {
    /// All of it.
    Memory(Bytes),
    /// Pieces, in order, as they are read from elsewhere; together as long as the transaction says.
    Stream(BoxStream<'static, Result<Bytes, ContentError>>),
}

/// The content cannot be had; in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the content cannot be read: {0}")]
pub struct ContentError(pub String);

/// Why the content was not written to its end.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The content failed.
    Content(ContentError),
    /// The connection did.
    Connection(std::io::Error),
}

impl From<ContentError> for WriteError {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<std::io::Error> for WriteError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error)
    }
}

impl Content {
    fn into_pieces(self) -> BoxStream<'static, Result<Bytes, ContentError>> {
        match self {
            Self::Stream(stream) => stream,
            Self::Memory(bytes) => futures::stream::iter(blocks(bytes).map(Ok)).boxed(),
        }
    }
}

fn blocks(mut rest: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(BLOCK.min(rest.len()))))
}

/// Writes the content to its end, in as few writes as it takes: a small message with its end in one.
pub(super) async fn write_content(
    to: &mut (impl AsyncWrite + Unpin),
    content: Content,
    size: u64,
    framing: Framing,
    block: Duration,
) -> Result<(), WriteError> {
    let mut pieces = content.into_pieces();
    let mut stuffer = DotStuffer::default();
    let mut out = match framing {
        Framing::Data => Vec::new(),
        Framing::Bdat => format!("BDAT {size} LAST\r\n").into_bytes(),
    };
    let mut read = 0;
    loop {
        let next = timeout(block, pieces.next()).await;
        let Some(piece) = next.map_err(|_| ContentError("it did not come in time".to_owned()))? else {
            break;
        };
        let piece = piece?;
        read += piece.len() as u64;
        // A content of another length would be taken for commands, or leave the server waiting.
        if read > size {
            return Err(wrong_size(size).into());
        }
        match framing {
            Framing::Data => stuffer.push(&piece, &mut out),
            Framing::Bdat => out.extend_from_slice(&piece),
        }
        if out.len() >= BLOCK && read < size {
            write(to, &out, block).await?;
            out.clear();
        }
    }
    if read != size {
        return Err(wrong_size(size).into());
    }
    if framing == Framing::Data {
        stuffer.finish(&mut out);
    }
    Ok(write(to, &out, block).await?)
}

fn wrong_size(size: u64) -> ContentError {
    ContentError(format!("it does not have the {size} bytes that were announced"))
}

/// Writes all of it; `block` is how long the network may take none of it (RFC 5321 §4.5.3.2.5).
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    block: Duration,
) -> std::io::Result<()> {
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "the server takes nothing");
    while !bytes.is_empty() {
        let written = timeout(block, to.write(bytes)).await.map_err(|_| late())??;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    timeout(block, to.flush()).await.map_err(|_| late())?
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(content: Content, size: u64, framing: Framing) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        write_content(&mut out, content, size, framing, Duration::from_secs(1)).await.map(|()| out)
    }

    fn stream(pieces: &[&'static str]) -> Content {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        Content::Stream(futures::stream::iter(pieces).boxed())
    }

    #[tokio::test]
    async fn content_is_framed_as_asked() {
        let memory = || Content::Memory(Bytes::from_static(b".a\r\nb\r\n"));
        assert_eq!(written(memory(), 7, Framing::Data).await.unwrap(), b"..a\r\nb\r\n.\r\n");
        assert_eq!(written(memory(), 7, Framing::Bdat).await.unwrap(), b"BDAT 7 LAST\r\n.a\r\nb\r\n");
        let pieces = stream(&["a\r", "\n.", "b\r\n"]);
        assert_eq!(written(pieces, 7, Framing::Data).await.unwrap(), b"a\r\n..b\r\n.\r\n");
    }

    #[tokio::test]
    async fn content_of_another_length_is_never_ended() {
        for pieces in [&["a\r\n"][..], &["a\r\n", "b\r\n", "c\r\n"]] {
            let error = written(stream(pieces), 6, Framing::Data).await.unwrap_err();
            assert!(matches!(error, WriteError::Content(_)), "{error:?}");
        }
    }
}
