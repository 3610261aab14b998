//! A connection that reads on when writing has failed.
//!
//! A node that refuses an upload answers and closes before all of it was sent. The write then fails, often before the answer was
//! read; and the answer says why, where a broken pipe does not.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose reading, and not its writing, says that it broke.
pub(super) struct Connection<S> {
    stream: S,
    broken: bool,
}

impl<S> Connection<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, broken: false }
    }

    /// A write that has failed waits for ever. Reading comes to the end of a broken connection, too, and ends what is sent on it.
    fn unless_broken<T>(&mut self, done: Poll<Result<T>>) -> Poll<Result<T>> {
        self.broken |= matches!(done, Poll::Ready(Err(_)));
        if self.broken { Poll::Pending } else { done }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.broken {
            return Poll::Pending;
        }
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_broken(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        if self.broken {
            return Poll::Pending;
        }
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.unless_broken(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.broken {
            return Poll::Pending;
        }
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.unless_broken(done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_though_the_writing_has_failed() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"it is full").await.expect("there is room");
        drop(theirs);
        let mut connection = Connection::new(ours);
        for _ in 0..2 {
            assert!(connection.write_all(b"more").now_or_never().is_none(), "reading comes first");
        }
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it ends well");
        assert_eq!(answer, "it is full");
    }
}
