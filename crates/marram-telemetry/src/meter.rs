//! Where invocations are counted: shards that each thread has nearly to itself.
//!
//! A call locks its thread's shard, adds to the function's sums there, and queues the record. The background thread
//! takes a shard's content by swapping it for an empty one, so a lock is held for as long as an addition takes. Sums are
//! complete whatever happens to the queue of records.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use marram_core::record::{MeterRecord, Outcome};
use marram_core::{FunctionId, Kind};

use crate::limits::{FUNCTIONS_MAX, METER_SHARDS, RECORD_QUEUE_MAX};
use crate::totals::{DURATION_NS, Series, outcome_index};

#[derive(Default)]
pub(crate) struct Meter {
    shards: [Padded; METER_SHARDS],
}

/// A cache line (two, as they are fetched in pairs) of its own, so that shards do not slow each other.
#[derive(Default)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// What one shard has gathered since it was last taken.
#[derive(Default)]
pub(crate) struct Shard {
    /// A function's place by the address of its id. The id is held, so that its address stays its own.
    by_address: HashMap<usize, (Arc<FunctionId>, usize), BuildHasherDefault<AddressHasher>>,
    by_id: HashMap<Arc<FunctionId>, usize>,
    /// What was counted; `None` gathers the functions past the limit.
    pub(crate) counted: Vec<(Option<Arc<FunctionId>>, Box<Series>)>,
    pub(crate) records: VecDeque<MeterRecord>,
    /// Records that gave way to later ones.
    pub(crate) records_lost: u64,
}

/// Addresses of one id that are remembered: callers clone one `Arc` per revision, so more are a caller that does not.
const ADDRESSES_MAX: usize = 1_024;

impl Meter {
    pub(crate) fn add(&self, record: MeterRecord) {
        let mut shard = self.shard();
        shard.series(&record.id).add(&record);
        if shard.records.len() >= RECORD_QUEUE_MAX {
            shard.records.pop_front();
            shard.records_lost += 1;
        }
        shard.records.push_back(record);
    }

    pub(crate) fn add_refused(&self, id: &Arc<FunctionId>, kind: Kind) {
        self.shard().series(id).refused[outcome_index(Outcome::Failed(kind))] += 1;
    }

    pub(crate) fn add_init(&self, id: &Arc<FunctionId>, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.shard().series(id).init.observe(ns, &DURATION_NS);
    }

    /// Takes what every shard has gathered.
    pub(crate) fn take(&self) -> impl Iterator<Item = Shard> + '_ {
        self.shards.iter().map(|shard| std::mem::take(&mut *lock(shard))).filter(|shard| !shard.counted.is_empty())
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        lock(&self.shards[thread_number() % METER_SHARDS])
    }
}

impl Shard {
    fn series(&mut self, id: &Arc<FunctionId>) -> &mut Series {
        let address = Arc::as_ptr(id).addr();
        let place = match self.by_address.get(&address) {
            Some((_, place)) => *place,
            None => self.place(id, address),
        };
        &mut self.counted[place].1
    }

    #[cold]
    fn place(&mut self, id: &Arc<FunctionId>, address: usize) -> usize {
        let place = match self.by_id.get(id) {
            Some(place) => *place,
            None if self.by_id.len() < FUNCTIONS_MAX => {
                self.counted.push((Some(Arc::clone(id)), Box::default()));
                self.by_id.insert(Arc::clone(id), self.counted.len() - 1);
                self.counted.len() - 1
            }
            None => self.place_of_the_rest(),
        };
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.clear();
        }
        self.by_address.insert(address, (Arc::clone(id), place));
        place
    }

    fn place_of_the_rest(&mut self) -> usize {
        self.counted.iter().position(|(id, _)| id.is_none()).unwrap_or_else(|| {
            self.counted.push((None, Box::default()));
            self.counted.len() - 1
        })
    }
}

fn lock(shard: &Padded) -> MutexGuard<'_, Shard> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads are numbered as they come, so that the first sixteen have a shard each. The number decides only where a thread
/// counts, never what.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    let known = NUMBER.get();
    if known != usize::MAX {
        return known;
    }
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    NUMBER.set(number);
    number
}

/// An address is spread by one multiplication (Fibonacci hashing). Nobody outside chooses it.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

#[cfg(test)]
mod tests;
