//! What HTTP costs by itself: hyper alone, on a thread a core, with the answer of the hello guests. Benchmarks measure
//! Marram beside it. It prints where it serves, and serves until it is killed.
//!
//!     bare_hyper [FILE]       with a file, each request is written there and synced before it is answered

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What a small commit of SQLite writes: a page and its head.
const WRITE: [u8; 4096 + 24] = [0; 4096 + 24];
/// The file has its whole size from the beginning: a write then changes nothing else on the disk.
const WRITES: u64 = 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = std::env::args_os().nth(1).map(|path| Log::create(path.as_ref())).transpose()?.map(Arc::new);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let log = log.clone();
        let serve = service_fn(move |request| hello(request, log.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
    }
}

/// A file that is written over and over, as SQLite's log is.
struct Log {
    file: File,
    written: AtomicU64,
}

impl Log {
    fn create(path: &std::path::Path) -> io::Result<Self> {
        let file = File::create(path)?;
        for at in 0..WRITES {
            file.write_all_at(&WRITE, at * WRITE.len() as u64)?;
        }
        file.sync_all()?;
        Ok(Self { file, written: AtomicU64::new(0) })
    }

    /// On the caller's thread: there is nothing else to do for a client that is alone.
    fn write(&self) -> io::Result<()> {
        let at = self.written.fetch_add(1, Ordering::Relaxed) % WRITES;
        self.file.write_all_at(&WRITE, at * WRITE.len() as u64)?;
        self.file.sync_data()
    }
}

#[expect(clippy::print_stdout, reason = "who started it reads where it serves")]
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    println!("http=http://{}", listener.local_addr()?);
    Ok(())
}

async fn hello(request: Request<Incoming>, log: Option<Arc<Log>>) -> anyhow::Result<Response<Full<Bytes>>> {
    if let Some(log) = log {
        request.into_body().collect().await?;
        log.write()?;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"Hello from Marram")));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
