//! Memory and tables of an instance.

use marram_core::limits::{Limits, TABLE_ELEMENTS_MAX};
use wasmtime::ResourceLimiter;

use crate::cpu::SharedPollClock;

/// Counts what all memories and tables of a store hold together, and refuses what goes over the limit.
pub(crate) struct Limiter {
    /// Where it says what it has counted of memory.
    clock: SharedPollClock,
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    refused: Option<Refused>,
}

/// What was refused first: a guest that is refused usually aborts, and its trap says nothing of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory,
    Table,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits, clock: SharedPollClock) -> Self {
        Self {
            clock,
            memory_bytes: 0,
            memory_bytes_max: usize::try_from(limits.memory.0).unwrap_or(usize::MAX),
            table_elements: 0,
            refused: None,
        }
    }

    /// Linear memory in bytes. WebAssembly memories never shrink, so this is also the peak.
    pub(crate) const fn memory_bytes(&self) -> u64 {
        self.memory_bytes as u64
    }

    pub(crate) const fn refused(&self) -> Option<Refused> {
        self.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory_bytes.saturating_add(desired.saturating_sub(current));
        if total > self.memory_bytes_max {
            self.refused = self.refused.or(Some(Refused::Memory));
            return Ok(false);
        }
        if maximum.is_none_or(|maximum| desired <= maximum) {
            self.memory_bytes = total;
            self.clock.set_memory_bytes(total as u64);
        }
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > TABLE_ELEMENTS_MAX {
            self.refused = self.refused.or(Some(Refused::Table));
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }
}
