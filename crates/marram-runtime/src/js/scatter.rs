//! Which pages of a memory its instances write to, so that wasmtime can clear it in place.
//!
//! What an instance has written to is put back in place as long as it lies in at most 32 runs of pages (`MAX_REGIONS` of
//! wasmtime's `pagemap.rs`); the rest is unmapped, and faulted in by the next instance, at several times the cost. JavaScript
//! writes to more runs than that: it counts references in objects that lie all over the heap. So an instance begins with
//! writing to all of them, and to the smallest gaps between them, until there are few enough runs.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use arc_swap::ArcSwap;

const PAGE_BYTES: usize = 4096;
/// A few fewer than wasmtime's: one request is not as the next.
const RUNS_MAX: usize = 28;
/// Of an entry of `/proc/self/pagemap`: the page is there, and it is (still) a file's.
const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;

/// More pages than this are not worth writing to before they are needed.
const PAGES_MAX: usize = 256;

/// What is known of one image's memories.
#[derive(Debug, Default)]
pub(super) struct Scatter {
    seen: AtomicU32,
    /// By page: whether instances have written to it.
    written: Mutex<Vec<bool>>,
    /// Offsets of the pages to write to.
    touched: ArcSwap<Vec<usize>>,
}

impl Scatter {
    /// Writes to a memory that was just mapped, and changes nothing.
    pub(super) fn touch(&self, memory: &mut [u8]) {
        for &at in &**self.touched.load() {
            if let Some(byte) = memory.get_mut(at) {
                *byte = std::hint::black_box(*byte);
            }
        }
    }

    /// Looks at a memory that was used: often at the beginning, rarely later.
    pub(super) fn learn(&self, memory: &[u8]) {
        if !self.seen.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_power_of_two() {
            return;
        }
        let Some(now) = written(memory) else { return };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let pages = now.len().max(written.len());
        let mut all = now;
        all.resize(pages, false);
        all.iter_mut().zip(&*written).for_each(|(page, known)| *page |= known);
        if all.iter().filter(|page| **page).count() <= PAGES_MAX {
            self.touched.store(joined(&all, RUNS_MAX).into());
            *written = all;
        }
    }
}

/// By page: whether it is a copy of this process's own. `None` where the system does not say.
fn written(memory: &[u8]) -> Option<Vec<bool>> {
    let entry_bytes = size_of::<u64>();
    let first = memory.as_ptr().addr() / PAGE_BYTES * entry_bytes;
    let mut entries = vec![0; memory.len().div_ceil(PAGE_BYTES) * entry_bytes];
    File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entries, first as u64).ok()?;
    let (entries, _) = entries.as_chunks();
    Some(entries.iter().map(|entry| u64::from_ne_bytes(*entry) & (PRESENT | FILE) == PRESENT).collect())
}

/// The offsets of written pages, and of those between them that leave at most `runs_max` runs.
fn joined(written: &[bool], runs_max: usize) -> Vec<usize> {
    let pages: Vec<usize> = (0..written.len()).filter(|page| written[*page]).collect();
    let mut gaps: Vec<Range<usize>> =
        pages.windows(2).map(|pair| pair[0] + 1..pair[1]).filter(|gap| !gap.is_empty()).collect();
    let excess = (gaps.len() + 1).saturating_sub(runs_max);
    gaps.sort_by_key(ExactSizeIterator::len);
    let mut joined: Vec<usize> = gaps.into_iter().take(excess).flatten().chain(pages).collect();
    joined.sort_unstable();
    joined.into_iter().map(|page| page * PAGE_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_gaps_are_filled() {
        let mut written = vec![true; 20];
        for page in [1, 2, 5, 10, 11, 12] {
            written[page] = false;
        }
        let filled = |runs_max| {
            let joined = joined(&written, runs_max);
            (0..20).filter(|page| !written[*page] && joined.contains(&(page * PAGE_BYTES))).collect::<Vec<_>>()
        };
        assert!(filled(4).is_empty());
        assert_eq!(filled(3), [5]);
        assert_eq!(filled(2), [1, 2, 5]);
        assert_eq!(joined(&written, 1), (0..20).map(|page| page * PAGE_BYTES).collect::<Vec<_>>());
        assert!(joined(&[false; 9], 1).is_empty() && joined(&[], 1).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_were_written_to_are_found() {
        // Large enough for an anonymous mapping of its own: not there until it is written to.
        let mut memory = vec![0; 64 << 20];
        let page = |memory: &[u8], n: usize| PAGE_BYTES - memory.as_ptr().addr() % PAGE_BYTES + n * PAGE_BYTES;
        let (third, hundredth) = (page(&memory, 3), page(&memory, 100));
        memory[third] = 1;
        memory[hundredth] = 1;
        let from = page(&memory, 0);
        let written = written(&memory[from..from + 200 * PAGE_BYTES]).expect("Linux says");
        let found: Vec<usize> = (0..200).filter(|page| written[*page]).collect();
        assert_eq!(found, [3, 100]);
    }
}
