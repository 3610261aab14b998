//! Bodies: on their way in with a time-out and their checksum, on their way out as they are read.

use std::fmt;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use marram_core::Failure;
use marram_core::port::blobs::{ObjectWriter, PartWriter, shown};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3Result, StdError, s3_error};
use tokio::time::Sleep;

use crate::checksum::Summing;
use crate::error;

/// A request body that may not pause for long.
pub(crate) struct Timed {
    body: Incoming,
    idle: Duration,
    /// Runs while nothing comes.
    waiting: Option<Pin<Box<Sleep>>>,
}

/// A body that paused for too long.
#[derive(Debug)]
pub(crate) struct TooSlow;

pub(crate) const TOO_SLOW: &str = "the body paused for too long";

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TOO_SLOW)
    }
}

impl std::error::Error for TooSlow {}

impl Timed {
    pub(crate) const fn new(body: Incoming, idle: Duration) -> Self {
        Self { body, idle, waiting: None }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let idle = self.idle;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        match waiting.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Box::new(TooSlow)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What takes the bytes of a request: the writer of an object, or of a part.
pub(crate) trait Sink {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>>;
}

impl Sink for Box<dyn ObjectWriter + '_> {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        self.as_mut().write(chunk)
    }
}

impl Sink for Box<dyn PartWriter + '_> {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Failure>> {
        self.as_mut().write(chunk)
    }
}

/// Passes a body on chunk by chunk, and fails if it is not of the length that was announced.
pub(crate) async fn take_in(
    body: Option<StreamingBlob>,
    length: Option<i64>,
    sink: &mut impl Sink,
    summing: &mut Summing,
) -> S3Result<()> {
    let mut count = 0_u64;
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| error::of_body(&error))?;
            count += chunk.len() as u64;
            summing.update(&chunk);
            sink.write(chunk).await.map_err(error::of)?;
        }
    }
    match length {
        Some(length) if u64::try_from(length) != Ok(count) => {
            Err(s3_error!(IncompleteBody, "{count} bytes came, and {length} were announced"))
        }
        _ => Ok(()),
    }
}

/// The bytes of an object, once the first of them are there: a content that cannot be read is told before an answer
/// begins.
pub(crate) async fn begun(
    stream: BoxStream<'static, Result<Bytes, Failure>>,
    name: &str,
) -> S3Result<BoxStream<'static, Result<Bytes, Failure>>> {
    let mut stream = stream.peekable();
    if let Some(Err(failure)) = Pin::new(&mut stream).peek().await {
        tracing::error!(%failure, detail = failure.detail(), "the content of an object cannot be read");
        return Err(s3_error!(
            InternalError,
            "the content of {} is missing on this node, or cannot be read: put it again, or see the node's log",
            shown(name)
        ));
    }
    Ok(stream.boxed())
}

/// A content on its way out. The lock is never waited for: it makes a stream of one reader shareable, which s3s asks for.
struct Out {
    stream: Mutex<BoxStream<'static, Result<Bytes, Failure>>>,
    left: u64,
}

pub(crate) fn out(stream: BoxStream<'static, Result<Bytes, Failure>>, length: u64) -> StreamingBlob {
    StreamingBlob::new(Out { stream: Mutex::new(stream), left: length })
}

impl Stream for Out {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.stream.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = std::task::ready!(stream.poll_next_unpin(cx));
        if let Some(Ok(chunk)) = &next {
            self.left = self.left.saturating_sub(chunk.len() as u64);
        }
        Poll::Ready(next.map(|chunk| {
            chunk.map_err(|failure| {
                tracing::error!(%failure, detail = failure.detail(), "an object could not be read to its end");
                Box::new(failure) as StdError
            })
        }))
    }
}

impl ByteStream for Out {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left).map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use marram_core::Kind;

    use super::*;

    #[tokio::test]
    async fn a_content_that_cannot_be_read_is_told_before_the_answer_begins() {
        let content = |chunks: Vec<Result<Bytes, Failure>>| futures::stream::iter(chunks).boxed();
        let failure = || Failure::new(Kind::Internal, "no such file");
        let error = begun(content(vec![Err(failure())]), "june.pdf").await.err().unwrap();
        assert_eq!(error.code().as_str(), "InternalError");
        assert!(error.message().unwrap().starts_with("the content of \"june.pdf\" is missing on this node"), "{error}");
        let whole = begun(content(vec![Ok("ab".into()), Ok("c".into()), Err(failure())]), "k").await.unwrap();
        let chunks: Vec<_> = whole.map(Result::ok).collect().await;
        assert_eq!(chunks, [Some("ab".into()), Some("c".into()), None]);
        assert!(begun(content(vec![]), "empty").await.unwrap().next().await.is_none());
    }
}
