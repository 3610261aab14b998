//! File descriptors: a node needs one for each connection and for each function whose code is mapped.

use std::io::stdin;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::exit::{Exit, Problem};
use crate::output;

/// Descriptors that the table has room for from the beginning: 128 KiB of the kernel's memory.
const TABLE: u64 = 1 << 14;
/// With fewer, something or other of a node does not work, and what fails first does not say why: idle, it has two dozen open.
const LEAST: u64 = 64;
/// With fewer, connections are soon refused.
const FEW: u64 = 256;
/// What to do about it.
const RAISE: &str = "raise `ulimit -n`, or `LimitNOFILE` under systemd";

/// Raises the limit to what the system allows, and makes room for many of them.
///
/// To be called before the process has a second thread: later, whoever opens the descriptor that the table has no room for
/// waits until no processor reads the old table (`synchronize_rcu`), 13 ms on two cores at 256, 512, 1,024 and so on.
///
/// # Errors
///
/// If the system allows fewer than a node works with.
pub(crate) fn make_room() -> Result<(), Problem> {
    let limit = getrlimit(Resource::Nofile);
    // Without a higher limit a node serves fewer connections, and says so when it refuses one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(TABLE);
    if allowed < LEAST {
        let why = format!("only {allowed} files may be open at once, and a node needs {LEAST}");
        return Err(Problem::new(Exit::Failed, why).hint(RAISE));
    }
    if allowed < FEW {
        output::warning(&format!("only {allowed} files may be open at once: {RAISE}"));
    }
    let last = i32::try_from(allowed.min(TABLE).saturating_sub(1)).unwrap_or(i32::MAX);
    // The copy is closed at once, and the table does not shrink.
    drop(rustix::io::fcntl_dupfd_cloexec(stdin(), last));
    Ok(())
}
