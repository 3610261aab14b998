//! What is said of messages that do not go over as they came. Nothing of it is silent, and nothing of it fills the log.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use marram_core::port::Clock;

use super::Side;
use crate::seldom::Seldom;
use crate::stats::{self, Stats};
use crate::wire::Reason;

/// Of one bridge, over all of its connections.
pub(crate) struct Account {
    bridge: String,
    stats: Arc<Stats>,
    clock: Arc<dyn Clock>,
    left_out: Mutex<Seldom>,
    unretained: Mutex<Seldom>,
    waits: Mutex<Seldom>,
}

impl Account {
    pub(crate) fn new(bridge: String, stats: Arc<Stats>, clock: Arc<dyn Clock>) -> Self {
        let [left_out, unretained, waits] = Default::default();
        Self { bridge, stats, clock, left_out, unretained, waits }
    }

    /// A message does not go over, and never will.
    pub(super) fn left_out(&self, why: impl Display) {
        stats::add(&self.stats.bridge_left_out, 1);
        if let Some(messages) = self.now(&self.left_out) {
            tracing::warn!(bridge = self.bridge, messages, %why, "a bridge leaves messages out");
        }
    }

    /// The other broker took a message only as one that it does not retain.
    pub(super) fn unretained(&self) {
        stats::add(&self.stats.bridge_unretained, 1);
        if let Some(messages) = self.now(&self.unretained) {
            tracing::warn!(
                bridge = self.bridge,
                messages,
                "the other broker retains no more of a bridge: messages reach those who listen there, and are not retained"
            );
        }
    }

    /// A message was refused for the moment.
    pub(super) fn waits(&self, side: Side, reason: Reason) {
        if let Some(refusals) = self.now(&self.waits) {
            let reason = format_args!("{:#04x}", reason.0);
            tracing::warn!(
                bridge = self.bridge,
                refusals,
                "{side} takes no message of a bridge now, for reason {reason}: it waits"
            );
        }
    }

    fn now(&self, seldom: &Mutex<Seldom>) -> Option<u64> {
        seldom.lock().unwrap_or_else(PoisonError::into_inner).happens(self.clock.instant())
    }
}
