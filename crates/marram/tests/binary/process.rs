//! The binary as a child process: what it is given, what it says, and how it ends. Each wait has a deadline.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Longer than anything that works takes, a compilation on a busy machine included.
const DEADLINE: Duration = Duration::from_secs(120);
/// What would change what the binary does, were it set where the tests run.
const ENVIRONMENT: [&str; 7] =
    ["MARRAM_NODE", "MARRAM_TOKEN", "MARRAM_CA", "MARRAM_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"];

/// The binary with arguments, to be run or started.
pub struct Marram {
    command: Command,
    stdin: Option<String>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A process that runs; it is killed when this is dropped.
pub struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

/// What has come of a stream so far.
struct Stream(watch::Receiver<String>);

pub fn marram(args: &[&str]) -> Marram {
    let mut command = Command::new(env!("CARGO_BIN_EXE_marram"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for name in ENVIRONMENT {
        command.env_remove(name);
    }
    Marram { command, stdin: None }
}

impl Marram {
    /// In this folder.
    pub fn at(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// As a child of another program, which has these arguments before the command.
    pub fn under(self, program: &str, arguments: &[&str]) -> Self {
        let inner = self.command.as_std();
        let mut command = Command::new(program);
        command.args(arguments).arg(inner.get_program()).args(inner.get_args());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = inner.get_current_dir() {
            command.current_dir(folder);
        }
        Self { command, stdin: self.stdin }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// With this on standard input.
    pub fn stdin(mut self, text: &str) -> Self {
        self.command.stdin(Stdio::piped());
        self.stdin = Some(text.to_owned());
        self
    }

    pub async fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap();
        if let Some(text) = self.stdin {
            // One that reads nothing may have ended already.
            let written = child.stdin.take().unwrap().write_all(text.as_bytes()).await;
            if let Err(error) = written {
                assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
            }
        }
        let (stdout, stderr) = (Stream::of(child.stdout.take().unwrap()), Stream::of(child.stderr.take().unwrap()));
        Running { child, stdout, stderr }
    }

    /// Runs it to its end.
    pub async fn run(self) -> Ended {
        self.start().await.ended().await
    }

    /// The same, where it has to end well; gives what it wrote to stdout.
    pub async fn done(self) -> String {
        self.run().await.expect(0).stdout
    }

    /// The same, as JSON.
    pub async fn json(self) -> serde_json::Value {
        let text = self.done().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?} is not JSON: {error}"))
    }
}

impl Ended {
    /// The same, if the exit code is this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// The same, if stderr has all of these parts.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in {self:?}");
        }
        self
    }

    /// The same, if nothing was written to stdout: a failure is not data.
    #[track_caller]
    pub fn without_data(self) -> Self {
        assert_eq!(self.stdout, "", "{self:?}");
        self
    }
}

impl Running {
    /// Waits for the URLs that a node prints when it is ready: of its functions, and of its admin API.
    pub async fn ready(&mut self) -> (String, String) {
        let urls = self.stdout.until("the URLs of a ready node", |text| {
            let url = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            Some((url("http=")?, url("admin=")?))
        });
        match urls.await {
            Ok(urls) => urls,
            Err(why) => panic!("{why}; stderr: {}", self.stderr.now()),
        }
    }

    /// Waits until stderr has this part.
    pub async fn says(&mut self, part: &str) -> String {
        let found = self.stderr.until(part, |text| text.contains(part).then(|| text.to_owned()));
        found.await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Waits until stdout has this part.
    pub async fn prints(&mut self, part: &str) -> String {
        let found = self.stdout.until(part, |text| text.contains(part).then(|| text.to_owned()));
        found.await.unwrap_or_else(|why| panic!("{why}; stderr: {}", self.stderr.now()))
    }

    pub fn stdout(&self) -> String {
        self.stdout.now()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().expect("it was not waited for")).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Ended {
        let waited = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let status = waited.unwrap_or_else(|_| panic!("it does not end; stderr: {}", self.stderr.now())).unwrap();
        Ended { code: status.code(), stdout: self.stdout.all().await, stderr: self.stderr.all().await }
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

impl Stream {
    fn of(from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, text) = watch::channel(String::new());
        tokio::spawn(async move {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line).await, Ok(1..)) {
                sender.send_modify(|text| text.push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
        });
        Self(text)
    }

    fn now(&self) -> String {
        self.0.borrow().clone()
    }

    async fn until<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let wait = self.0.wait_for(|text| found(text).is_some());
        let waited = tokio::time::timeout(DEADLINE, wait).await.map(|seen| seen.map(|text| text.clone()));
        match waited {
            Ok(Ok(text)) => Ok(found(&text).expect("it was found just now")),
            Ok(Err(_)) => Err(format!("it ended without {what:?}: {}", self.now())),
            Err(_) => Err(format!("it does not come to {what:?}: {}", self.now())),
        }
    }

    /// Everything up to its end.
    async fn all(mut self) -> String {
        let _ = self.0.wait_for(|_| false).await;
        self.now()
    }
}
