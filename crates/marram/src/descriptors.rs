//! File descriptors: a node needs one for each connection and for each function whose code is mapped.

use std::io::stdin;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::output;

/// Descriptors that the table has room for from the beginning: 128 KiB of the kernel's memory.
const TABLE: u64 = 1 << 14;
/// With fewer, a node may not even start, and what fails first does not say why.
const FEW: u64 = 256;

/// Raises the limit to what the system allows, and makes room for many of them.
///
/// To be called before the process has a second thread: later, whoever opens the descriptor that the table has no room for
/// waits until no processor reads the old table (`synchronize_rcu`), 13 ms on two cores at 256, 512, 1,024 and so on.
pub(crate) fn make_room() {
    let limit = getrlimit(Resource::Nofile);
    // Without a higher limit a node serves fewer connections, and says so when it refuses one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(TABLE);
    if allowed < FEW {
        output::warning(&format!(
            "only {allowed} files may be open at once: raise `ulimit -n`, or `LimitNOFILE` under systemd"
        ));
    }
    let last = i32::try_from(allowed.min(TABLE).saturating_sub(1)).unwrap_or(i32::MAX);
    // The copy is closed at once, and the table does not shrink.
    drop(rustix::io::fcntl_dupfd_cloexec(stdin(), last));
}
