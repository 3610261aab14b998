//! What a listener does when accepting a connection fails, and who counts as one client of it. Who waits, and what ends the
//! waiting, is the listener's matter.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// When accepting fails for want of descriptors or memory, trying again at once would fail again: wait for this long,
/// doubling up to a second.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What counts as one address: who has an IPv6 address has the 2^64 beside it (RFC 6177 §2).
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The pauses of one listener.
#[derive(Debug)]
pub struct AcceptPauses(Duration);

impl Default for AcceptPauses {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl AcceptPauses {
    /// A connection was accepted.
    pub fn accepted(&mut self) {
        self.0 = PAUSE_MIN;
    }

    /// How long to wait after this error; `None` for one that the connection had and not the listener (accept(2)), which is
    /// nothing to wait for or to tell anybody.
    pub fn after(&mut self, error: &io::Error) -> Option<Duration> {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return None;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_the_listener_fails_and_a_clients_reset_is_none() {
        let mut pauses = AcceptPauses::default();
        let mut after = |kind: io::ErrorKind| pauses.after(&kind.into()).map(|pause| pause.as_millis());
        assert_eq!(after(io::ErrorKind::ConnectionReset), None);
        let grown: Vec<_> = (0..10).map(|_| after(io::ErrorKind::Other).unwrap()).collect();
        assert_eq!(grown, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(after(io::ErrorKind::ConnectionAborted), None);
        pauses.accepted();
        assert_eq!(pauses.after(&io::ErrorKind::Other.into()), Some(PAUSE_MIN));
    }
}
