//! Ctrl-C, SIGTERM, and the end of the terminal (SIGHUP): the first drains, a second Ctrl-C or SIGTERM ends at once.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for these signals.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None` below `nohup`, which asked to go on.
    hangup: Option<Signal>,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
        let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let hangup = (!hangup_is_ignored()).then(|| signal(SignalKind::hangup()));
        let hangup = hangup.transpose().context("cannot listen for SIGHUP")?;
        // What is larger than a file may be (RLIMIT_FSIZE) is an error of the write, as on a full disk, and not the end of the node:
        // a signal that was listened for once no longer ends the process.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ)).context("cannot listen for SIGXFSZ")?);
        Ok(Self { interrupt, terminate, hangup })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = next(self.hangup.as_mut()) => {}
        }
        // A terminal that closes hangs up twice, once through its shell: that begins a drain and never cuts one short. The handler
        // stays, so that the second does not end the process by itself.
        self.hangup = None;
    }
}

async fn next(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started this process had SIGHUP ignored (proc_pid_status(5)). A system that does not tell has not.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
