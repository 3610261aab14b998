//! A body that JavaScript sends piece by piece: of a response, or of a fetch.
//!
//! The engine sends at most a window's worth before it is told that something was taken, so what waits here is bounded by
//! the window and one piece.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use marram_core::Failure;

/// How much has to be taken before the engine hears of it, unless the queue is empty.
const TELL_BYTES: usize = 16 << 10;

/// The sending end, which the actions of the engine feed.
#[derive(Clone, Default)]
pub(super) struct Feed(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    end: Option<Result<(), Failure>>,
    waker: Option<Waker>,
}

/// Told how much was taken, and whether the reader left before the end.
pub(super) trait Reader: Send + 'static {
    /// So many bytes were taken since the last time.
    fn took(&self, bytes: usize);
    /// Nobody will take the rest.
    fn left(&self);
}

/// The receiving end, as an HTTP body.
pub(super) struct Outgoing<R: Reader> {
    feed: Feed,
    reader: R,
    untold: usize,
    ended: bool,
}

impl Feed {
    pub(super) fn push(&self, bytes: &[u8]) {
        self.change(|queue| queue.pieces.push_back(Bytes::copy_from_slice(bytes)));
    }

    /// The body is complete, or never will be. What was said first holds.
    pub(super) fn end(&self, how: Result<(), Failure>) {
        self.change(|queue| {
            queue.end.get_or_insert(how);
        });
    }

    pub(super) fn body<R: Reader>(&self, reader: R) -> Outgoing<R> {
        Outgoing { feed: self.clone(), reader, untold: 0, ended: false }
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        change(&mut queue);
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Reader + Unpin> http_body::Body for Outgoing<R> {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let mut queue = this.feed.lock();
        if let Some(piece) = queue.pieces.pop_front() {
            let more = !queue.pieces.is_empty();
            let ending = queue.end.is_some();
            drop(queue);
            this.untold += piece.len();
            if !ending && (!more || this.untold >= TELL_BYTES) {
                this.reader.took(std::mem::take(&mut this.untold));
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match queue.end.clone() {
            Some(how) => {
                drop(queue);
                this.ended = true;
                Poll::Ready(how.err().map(Err))
            }
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R: Reader> Drop for Outgoing<R> {
    fn drop(&mut self) {
        let ended = self.ended || self.feed.lock().end.is_some();
        if !ended {
            self.reader.left();
        }
    }
}
