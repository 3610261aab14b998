//! A body that comes in for JavaScript: of a request, or of the answer to a fetch. What is there already goes along with
//! the head; the rest waits until it is pulled.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use marram_core::port::Body;

/// The most that is gathered to go along with a head.
const READY_BYTES_MAX: usize = 64 << 10;

/// A body, and its beginning that was taken to see whether it is all there is.
pub(crate) struct Arriving {
    first: Option<Bytes>,
    rest: Body,
}

/// What [`Arriving::take_ready`] finds.
pub(crate) enum Start {
    Empty,
    Full(Bytes),
    Streaming(Arriving),
}

impl Arriving {
    /// Takes what is there without waiting.
    pub(crate) fn take_ready(mut body: Body) -> Start {
        use http_body::Body as _;
        let mut ready = BytesMut::new();
        loop {
            if body.is_end_stream() {
                return if ready.is_empty() { Start::Empty } else { Start::Full(ready.freeze()) };
            }
            if ready.len() >= READY_BYTES_MAX {
                break;
            }
            match body.frame().now_or_never() {
                Some(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        ready.extend_from_slice(&bytes);
                    }
                }
                Some(None) => return if ready.is_empty() { Start::Empty } else { Start::Full(ready.freeze()) },
                Some(Some(Err(failure))) => {
                    let broken = futures::stream::once(async move { Err(failure) });
                    body = http_body_util::StreamBody::new(broken).boxed_unsync();
                    break;
                }
                None => break,
            }
        }
        let first = (!ready.is_empty()).then(|| ready.freeze());
        Start::Streaming(Self { first, rest: body })
    }

    /// The next piece; none at the end; an error is for the developer.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, String>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        loop {
            return match self.rest.frame().await? {
                Ok(frame) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => continue,
                    Ok(bytes) => Some(Ok(bytes)),
                    Err(_trailers) => continue,
                },
                Err(failure) => Some(Err(failure.to_string())),
            };
        }
    }

    /// All of it, for passing on.
    pub(super) fn into_body(self) -> Body {
        if self.first.is_none() {
            return self.rest;
        }
        Prefixed(self).boxed_unsync()
    }
}

/// The beginning, and then the rest.
struct Prefixed(Arriving);

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = marram_core::Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.first.take() {
            Some(first) => Poll::Ready(Some(Ok(http_body::Frame::data(first)))),
            None => Pin::new(&mut self.0.rest).poll_frame(cx),
        }
    }
}
