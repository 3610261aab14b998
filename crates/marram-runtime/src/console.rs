//! Standard output and error of an instance, as lines of its function's log.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use marram_core::limits::LOG_LINE_BYTES_MAX;
use marram_core::record::{Level, Source};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::deployed::Deployed;
use crate::invocation::Invocation;
use crate::log_budget::LogBudget;

/// Whom an instance's output belongs to at the moment, and the lines that have begun.
pub(crate) struct Console {
    deployed: Arc<Deployed>,
    /// For what is written while no invocation runs: when the instance starts, or behind its last answer.
    unpaid: LogBudget,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    current: Vec<Arc<Invocation>>,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Console {
    pub(crate) fn new(deployed: Arc<Deployed>) -> Arc<Self> {
        Arc::new(Self { unpaid: LogBudget::new(&deployed.limits), deployed, inner: Mutex::default() })
    }

    /// Output from here on belongs to this invocation too. It also has what was dropped before it in its books.
    pub(crate) fn begin(&self, invocation: Arc<Invocation>) {
        invocation.log().add_dropped(self.unpaid.take_dropped());
        self.lock().current.push(invocation);
    }

    /// The invocation has ended; a line that it began is written as it is.
    pub(crate) fn end(&self, invocation: &Arc<Invocation>) {
        let mut inner = self.lock();
        for source in [Source::Stdout, Source::Stderr] {
            let rest = std::mem::take(inner.buffer(source));
            if !rest.is_empty() {
                self.line(&inner, source, &rest);
            }
        }
        inner.current.retain(|current| !Arc::ptr_eq(current, invocation));
    }

    /// Any invocation that runs: limits apply to it.
    pub(crate) fn any(&self) -> Option<Arc<Invocation>> {
        self.lock().current.first().cloned()
    }

    /// A line from `wasi:logging`.
    pub(crate) fn log(&self, level: Level, context: String, text: String) {
        let inner = self.lock();
        self.write(&inner, level, Source::Logging, context, text);
    }

    /// What the node says of something that the guest tried.
    pub(crate) fn warn(&self, text: String) {
        let inner = self.lock();
        self.write(&inner, Level::Warn, Source::Node, String::new(), text);
    }

    fn output(&self, source: Source, bytes: &[u8]) {
        let mut inner = self.lock();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(inner.buffer(source));
            line.extend_from_slice(&rest[..end]);
            self.line(&inner, source, &line);
            rest = &rest[end + 1..];
        }
        let mask = &self.deployed.mask;
        let buffer = inner.buffer(source);
        buffer.extend_from_slice(rest);
        // A line that is too long, with all of any secret that begins before the cut.
        if buffer.len() > LOG_LINE_BYTES_MAX + mask.longest() {
            let end = buffer.len() - mask.begun(buffer);
            let begun = buffer.split_off(end);
            let line = std::mem::replace(buffer, begun);
            self.line(&inner, source, &line);
        }
    }

    fn line(&self, inner: &Inner, source: Source, bytes: &[u8]) {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if text.ends_with('\r') {
            text.pop();
        }
        let level = if source == Source::Stderr { Level::Warn } else { Level::Info };
        self.write(inner, level, source, String::new(), text);
    }

    /// Names the request only where it is certain; the log volume is charged to one that runs in any case.
    fn write(&self, inner: &Inner, level: Level, source: Source, context: String, text: String) {
        let first = inner.current.first().map(|invocation| &**invocation);
        let owner = first.filter(|_| inner.current.len() == 1);
        let payer = first.map_or(&self.unpaid, Invocation::log);
        self.deployed.log(payer, owner, level, source, context, text);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn buffer(&mut self, source: Source) -> &mut Vec<u8> {
        if source == Source::Stderr { &mut self.err } else { &mut self.out }
    }
}

/// One of the two output streams.
#[derive(Clone)]
pub(crate) struct Pipe {
    console: Arc<Console>,
    source: Source,
}

impl Pipe {
    pub(crate) fn new(console: &Arc<Console>, source: Source) -> Self {
        Self { console: Arc::clone(console), source }
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.console.output(self.source, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.console.output(self.source, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
