//! The books: what the shards have counted, brought together.

use std::collections::{HashMap, VecDeque};

use marram_core::record::MeterRecord;
use marram_core::{FunctionId, Name};

use crate::limits::{FUNCTIONS_MAX, RECORDS_KEPT, USAGE_PENDING_MAX};
use crate::meter::Shard;
use crate::totals::{Series, Totals};

/// Whose sums these are. A revision is not part of it: what a function used does not start over with a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Function {
        app: Name,
        function: Name,
    },
    /// Functions past the limit, together.
    Other,
}

/// Minutes since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Minute(pub(crate) u64);

#[derive(Default)]
pub(crate) struct Books {
    /// Since the process started; what metrics show.
    pub(crate) series: HashMap<Key, Series>,
    /// Not on the disk yet.
    pub(crate) pending: HashMap<(Minute, Key), Totals>,
    /// Recent records, in the order in which they were brought in.
    pub(crate) records: VecDeque<MeterRecord>,
    /// Records that were never among the recent ones.
    pub(crate) records_lost: u64,
}

impl Key {
    pub(crate) fn of(id: &FunctionId) -> Self {
        Self::Function { app: id.app.clone(), function: id.function.clone() }
    }

    /// `_other` cannot be the name of an app.
    pub(crate) fn app(&self) -> &str {
        match self {
            Self::Function { app, .. } => app.as_str(),
            Self::Other => "_other",
        }
    }

    pub(crate) fn function(&self) -> &str {
        match self {
            Self::Function { function, .. } => function.as_str(),
            Self::Other => "_other",
        }
    }
}

impl Minute {
    pub(crate) const fn of(unix_ns: u64) -> Self {
        Self(unix_ns / 60_000_000_000)
    }
}

impl Books {
    /// Brings in what a shard has gathered. It counts in the minute in which it is brought in, within a second of its end.
    pub(crate) fn bring_in(&mut self, shard: Shard, now: Minute) {
        for (id, counted) in shard.counted {
            let key = id.map_or(Key::Other, |id| Key::of(&id));
            if counted.totals.invocations() > 0 {
                self.owe(now, key.clone(), &counted.totals);
            }
            let known = self.series.contains_key(&key) || self.series.len() < FUNCTIONS_MAX;
            self.series.entry(if known { key } else { Key::Other }).or_default().merge(&counted);
        }
        self.records_lost += shard.records_lost;
        let over = (self.records.len() + shard.records.len()).saturating_sub(RECORDS_KEPT);
        self.records.drain(..over.min(self.records.len()));
        self.records.extend(shard.records);
    }

    /// Takes what is to be written.
    pub(crate) fn take_pending(&mut self) -> HashMap<(Minute, Key), Totals> {
        std::mem::take(&mut self.pending)
    }

    /// Puts back what could not be written.
    pub(crate) fn put_back(&mut self, unwritten: HashMap<(Minute, Key), Totals>) {
        for ((minute, key), totals) in unwritten {
            self.owe(minute, key, &totals);
        }
    }

    /// Adds to what is to be written. While the disk cannot be written this grows by the minute; past the limit, times become
    /// coarser and then functions run together, but no sum is lost.
    fn owe(&mut self, minute: Minute, key: Key, totals: &Totals) {
        if self.pending.len() >= USAGE_PENDING_MAX && !self.pending.contains_key(&(minute, key.clone())) {
            let minutes: Vec<_> = self.pending.drain().collect();
            for ((_, key), totals) in minutes {
                let known =
                    self.pending.contains_key(&(minute, key.clone())) || self.pending.len() < USAGE_PENDING_MAX / 2;
                self.pending.entry((minute, if known { key } else { Key::Other })).or_default().merge(&totals);
            }
        }
        self.pending.entry((minute, key)).or_default().merge(totals);
    }
}
