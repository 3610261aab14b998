//! What is shown while something takes longer than a second. Nothing is, where nobody watches.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::BytesMut;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::task::AbortHandle;

use crate::client::Body;
use crate::exit::{Exit, Problem};
use crate::output::{self, DIM, paint};

/// What is done sooner shows no bar.
const QUIET: Duration = Duration::from_millis(600);
/// What takes longer is explained.
const PATIENCE: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 64 << 10;

/// A file that is to be sent, and its size. What it is not is said before anything is sent.
pub(crate) async fn open(path: &str) -> anyhow::Result<(File, u64)> {
    let cannot_read = || format!("cannot read {path}");
    let mut file = File::open(path).await.map_err(|error| cannot_open(path, error))?;
    let metadata = file.metadata().await.with_context(cannot_read)?;
    if metadata.is_dir() {
        return Err(Problem::new(Exit::Usage, format!("{path} is a folder")).hint("name a file in it").into());
    }
    if !metadata.is_file() {
        let problem = Problem::new(Exit::Usage, format!("{path} is not a file"));
        return Err(problem.hint("write - for the file's name, and pipe it in").into());
    }
    file.read(&mut [0]).await.with_context(cannot_read)?;
    file.rewind().await.with_context(cannot_read)?;
    Ok((file, metadata.len()))
}

/// A file that is not there has an exit code of its own.
fn cannot_open(path: &str, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Problem::new(Exit::NotFound, format!("cannot open {path}: {error}")).into()
        }
        _ => anyhow::Error::new(error).context(format!("cannot open {path}")),
    }
}

/// A body made of a file, with a bar that follows it.
pub(crate) fn upload(file: File, size: u64, title: &str) -> Body {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden());
    bar.set_style(style(
        "{msg} {wide_bar:.cyan} {binary_bytes:>10} of {binary_total_bytes} {binary_bytes_per_sec:>12}",
    ));
    bar.set_message(title.to_owned());
    let begun = Instant::now();
    // The bar is part of the stream's state: it goes when the body is done or dropped.
    let frames = stream::try_unfold((file, Shown { bar, starting: None }), move |(mut file, shown)| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        if file.read_buf(&mut chunk).await? == 0 {
            return Ok(None);
        }
        if shown.bar.is_hidden() && begun.elapsed() > QUIET {
            shown.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        shown.bar.inc(chunk.len() as u64);
        anyhow::Ok(Some((Frame::data(chunk.freeze()), (file, shown))))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// A spinner that appears after a while and goes when it is dropped.
pub(crate) fn waiting(title: &str) -> Shown {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    bar.set_style(style("{spinner:.cyan} {msg} {elapsed:.dim}"));
    bar.set_message(title.to_owned());
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        tokio::time::sleep(QUIET).await;
        shown.set_draw_target(ProgressDrawTarget::stderr());
        shown.enable_steady_tick(Duration::from_millis(100));
    });
    Shown { bar, starting: Some(task.abort_handle()) }
}

/// What `work` gives. If that takes a while, `explain` says why.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>, explain: impl FnOnce()) -> T {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout(PATIENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            explain();
            work.await
        }
    }
}

/// Something on the screen, until it is dropped.
pub(crate) struct Shown {
    bar: ProgressBar,
    /// What would make it appear later.
    starting: Option<AbortHandle>,
}

impl Shown {
    /// One line above it, which stays.
    pub(crate) fn note(&self, text: &str) {
        self.bar.suspend(|| output::message(&paint(DIM, text)));
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(starting) = &self.starting {
            starting.abort();
        }
        self.bar.finish_and_clear();
    }
}

/// The template is ours, so it parses.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A body made of what comes on stdin, as it comes.
pub(crate) fn stdin() -> Body {
    let frames = stream::try_unfold(tokio::io::stdin(), |mut stdin| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        match stdin.read_buf(&mut chunk).await? {
            0 => Ok(None),
            _ => anyhow::Ok(Some((Frame::data(chunk.freeze()), stdin))),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
