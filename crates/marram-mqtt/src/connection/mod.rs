//! One client's connection: one task, which reads, checks, hands on to the engine, and writes what comes back.
//!
//! Reading goes on while commits are under way, up to what the client may have open; past that, or when the engine has no
//! room, the socket is not read from and TCP tells the client. While nothing happens there is no buffer.

mod handshake;
mod inbound;
mod outbound;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_util::sync::PollSender;

use crate::access::Identity;
use crate::engine::{Command, From, Input};
use crate::limits::{INBOUND_BYTES_MAX, READ_BYTES};
use crate::outbox::{Close, Outbox};
use crate::shared::Shared;
use crate::wire::{Fault, Reason, Room, Version};

pub use handshake::Peer;
pub(crate) use handshake::serve;

/// A stream of bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// How often a connection looks whether its peer still takes what is sent.
const WATCH_TIME: Duration = Duration::from_secs(5);

/// After the last packet of a connection its peer is read from for this long at most, unheard: what nobody has read when a
/// socket is closed makes TCP throw away what was sent last, which is the reason why.
pub(super) const LINGER_TIME: Duration = Duration::from_secs(1);

/// Ends the stream of bytes to the peer, which over TLS and WebSockets is told so, and waits for the end of the stream from it.
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) {
    let ended = async {
        io.shutdown().await?;
        let mut unheard = BytesMut::new();
        while poll_fn(|ctx| inbound::poll_append(io, ctx, &mut unheard, READ_BYTES)).await? > 0 {
            unheard.clear();
        }
        std::io::Result::Ok(())
    };
    // A peer that is gone, or goes on, is as good as one that has ended.
    let _ = tokio::time::timeout(LINGER_TIME, ended).await;
}

struct Connection {
    shared: Arc<Shared>,
    io: Box<dyn Io>,
    version: Version,
    room: Room,
    identity: Identity,
    from: From,
    outbox: Arc<Outbox>,
    engine: PollSender<Input>,
    /// What was read and is not a whole packet yet, or not its turn.
    partial: BytesMut,
    /// For a partial packet that is large.
    partial_permit: Option<OwnedSemaphorePermit>,
    /// When the first byte of a partial packet came.
    partial_since: Option<Instant>,
    /// To be handed to the engine.
    commands: Vec<Command>,
    /// Handed over and not finished.
    open_commands: usize,
    open_bytes: usize,
    /// QoS 1 and 2 messages that are not acknowledged (§4.9).
    unacknowledged: usize,
    /// Topics by alias less one.
    aliases: Vec<Option<Arc<str>>>,
    expiry_s: u32,
    /// To be written.
    write: BytesMut,
    /// Written, and perhaps held back by a layer below.
    unflushed: bool,
    /// Since when the peer takes nothing.
    stuck_since: Option<Instant>,
    /// 0 for none: one and a half times the keep-alive.
    silence_max: Duration,
    heard: Instant,
    closing: Option<Close>,
    /// The client has said farewell, or the peer will send no more.
    over: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Connection {
    /// Runs until the connection is over. The engine is told by the caller.
    async fn run(&mut self) {
        poll_fn(|ctx| self.poll(ctx)).await;
        self.outbox.abandon();
    }

    /// Ends the stream of bytes. Once the engine knows: a will does not wait for a peer that goes on.
    async fn linger(&mut self) {
        // Who takes nothing, or is gone, is not waited for.
        if self.closing.is_some() || self.over {
            self.partial = BytesMut::new();
            linger(&mut self.io).await;
        }
    }

    fn poll(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        self.outbox.register(ctx.waker());
        loop {
            self.take_outbox();
            if self.poll_write(ctx).is_err() {
                return Poll::Ready(());
            }
            let idle = self.write.is_empty() && !self.unflushed;
            if idle && self.over && self.commands.is_empty() {
                return Poll::Ready(());
            }
            if let Some(close) = &self.closing
                && !(close.when_answered && self.open_commands > 0)
                && idle
            {
                return Poll::Ready(());
            }
            let handed = self.poll_hand_over(ctx);
            let read = if self.may_read() { self.poll_read(ctx) } else { Poll::Pending };
            if handed.is_pending() && read.is_pending() {
                break;
            }
        }
        self.poll_timers(ctx)
    }

    /// Whether more may be read: there is room for it here and in the engine.
    fn may_read(&self) -> bool {
        self.closing.is_none() && !self.over && self.commands.is_empty() && !self.is_full()
    }

    fn is_full(&self) -> bool {
        self.open_commands >= 2 * usize::from(self.shared.limits.receive_max) || self.open_bytes >= INBOUND_BYTES_MAX
    }

    /// Hands what was read to the engine, as soon as that has room.
    fn poll_hand_over(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        if self.commands.is_empty() {
            return Poll::Pending;
        }
        match self.engine.poll_reserve(ctx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {
                let commands = std::mem::take(&mut self.commands);
                self.open_commands += commands.len();
                // It was reserved.
                let _ = self.engine.send_item(Input::Commands(self.from, commands));
            }
            // The engine is gone: so is the broker.
            Poll::Ready(Err(_)) => self.over = true,
        }
        Poll::Ready(())
    }

    fn poll_timers(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.shared.clock.instant();
            let limits = &self.shared.limits;
            let mut next = now + WATCH_TIME;
            if self.stuck_since.is_some_and(|since| now >= since + limits.write_time) {
                tracing::debug!("an MQTT client takes nothing of what is sent to it: cut");
                return Poll::Ready(());
            }
            let silence = (!self.silence_max.is_zero()).then(|| self.heard + self.silence_max);
            let partial = self.partial_since.map(|since| since + limits.packet_time);
            if self.closing.is_none() {
                if silence.is_some_and(|due| now >= due) {
                    self.close(Reason::KEEP_ALIVE, "nothing was heard for one and a half times the keep-alive");
                    ctx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if partial.is_some_and(|due| now >= due) && !self.is_full() {
                    self.close(Reason::MALFORMED, "a packet took too long to arrive");
                    ctx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if self.stuck_since.is_none() {
                    let due = [silence, partial].into_iter().flatten().min();
                    let Some(due) = due else { return Poll::Pending };
                    next = due.max(now + Duration::from_millis(1));
                }
            }
            if self.sleep.deadline().into_std() > next || self.sleep.is_elapsed() {
                self.sleep.as_mut().reset(next.into());
            }
            if self.sleep.as_mut().poll(ctx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn close(&mut self, reason: Reason, words: &'static str) {
        self.begin_close(Close { reason, words, when_answered: false });
    }

    fn fault(&mut self, fault: Fault) {
        crate::stats::add(&self.shared.stats.faults, 1);
        tracing::debug!(reason = fault.reason.0, why = fault.why, "an MQTT client breaks the protocol");
        self.close(fault.reason, fault.why);
    }

    /// Writes what there is. An error says that the connection is gone.
    fn poll_write(&mut self, ctx: &mut Context<'_>) -> Result<(), ()> {
        while !self.write.is_empty() {
            match Pin::new(&mut self.io).poll_write(ctx, &self.write) {
                Poll::Ready(Ok(0) | Err(_)) => return Err(()),
                Poll::Ready(Ok(written)) => {
                    self.write.advance(written);
                    self.unflushed = true;
                    self.stuck_since = None;
                    if self.write.is_empty() {
                        self.write = BytesMut::new();
                        self.take_outbox();
                    }
                }
                Poll::Pending => {
                    let now = self.shared.clock.instant();
                    self.stuck_since.get_or_insert(now);
                    return Ok(());
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(ctx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Pending => {}
            }
        }
        Ok(())
    }
}
