//! Which pages of a memory its instances write to, so that wasmtime can clear it in place.
//!
//! What an instance has written to is put back in place as long as it lies in at most 32 runs of pages (`MAX_REGIONS` of
//! wasmtime's `pagemap.rs`); the rest is unmapped, and faulted in by the next instance, at several times the cost. JavaScript
//! writes to more runs than that: it counts references in objects that lie all over the heap. So an instance begins with
//! writing to all of them, and to the smallest gaps between them, until there are few enough runs.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;

/// A few fewer than wasmtime's: one request is not as the next.
const RUNS_MAX: usize = 28;
/// Pages, filled gaps included, that are worth writing to before they are needed: less than wasmtime clears in place.
const TOUCHED_BYTES_MAX: usize = 1 << 20;
/// Of larger memories only the beginning is looked at.
const SEEN_BYTES_MAX: usize = 64 << 20;
/// Of an entry of `/proc/self/pagemap`: the page is there, and it is (still) a file's.
const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;

/// What is known of one image's memories.
#[derive(Debug, Default)]
pub(super) struct Scatter {
    seen: AtomicU32,
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
    ///
    /// What it begins with counts as used: so what one request does not need stays until a look finds that it is too much.
    pub(super) fn learn(&self, memory: &[u8]) {
        if !self.seen.fetch_add(1, Ordering::Relaxed).wrapping_add(1).is_power_of_two() {
            return;
        }
        let page_bytes = rustix::param::page_size();
        let memory = &memory[..memory.len().min(SEEN_BYTES_MAX)];
        let Some(written) = written(memory, page_bytes) else { return };
        let joined = joined(&written, RUNS_MAX, TOUCHED_BYTES_MAX / page_bytes);
        self.touched.store(Arc::new(joined.into_iter().map(|page| page * page_bytes).collect()));
    }
}

/// By page: whether it is this process's own, because it was written to, or never was the file's. `None` where the system does not
/// say.
fn written(memory: &[u8], page_bytes: usize) -> Option<Vec<bool>> {
    let entry_bytes = size_of::<u64>();
    let first = memory.as_ptr().addr() / page_bytes * entry_bytes;
    let mut entries = vec![0; memory.len().div_ceil(page_bytes) * entry_bytes];
    File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entries, first as u64).ok()?;
    let (entries, _) = entries.as_chunks();
    Some(entries.iter().map(|entry| u64::from_ne_bytes(*entry) & (PRESENT | FILE) == PRESENT).collect())
}

/// The written pages, and those between them that leave at most `runs_max` runs; none if they are more than `pages_max`: then it is
/// better to write to nothing that is not needed.
fn joined(written: &[bool], runs_max: usize, pages_max: usize) -> Vec<usize> {
    let pages: Vec<usize> = (0..written.len()).filter(|page| written[*page]).collect();
    let mut gaps: Vec<Range<usize>> =
        pages.windows(2).map(|pair| pair[0] + 1..pair[1]).filter(|gap| !gap.is_empty()).collect();
    let excess = (gaps.len() + 1).saturating_sub(runs_max);
    gaps.sort_by_key(ExactSizeIterator::len);
    gaps.truncate(excess);
    if pages.len() + gaps.iter().map(ExactSizeIterator::len).sum::<usize>() > pages_max {
        return Vec::new();
    }
    let mut joined: Vec<usize> = gaps.into_iter().flatten().chain(pages).collect();
    joined.sort_unstable();
    joined
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
            let joined = joined(&written, runs_max, 20);
            (0..20).filter(|page| !written[*page] && joined.contains(page)).collect::<Vec<_>>()
        };
        assert!(filled(4).is_empty());
        assert_eq!(filled(3), [5]);
        assert_eq!(filled(2), [1, 2, 5]);
        assert_eq!(joined(&written, 1, 20), (0..20).collect::<Vec<_>>());
        assert!(joined(&[false; 9], 1, 9).is_empty() && joined(&[], 1, 9).is_empty());
    }

    #[test]
    fn a_heap_that_is_written_to_all_over_is_left_alone() {
        let written: Vec<bool> = (0..24_000).map(|page| page % 600 == 0).collect();
        assert_eq!(joined(&written, 40, 256).len(), 40);
        assert!(joined(&written, 39, 256).is_empty(), "one gap is more than all the rest");
        assert!(joined(&[true; 300], 28, 256).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_were_written_to_are_found() {
        // Large enough for an anonymous mapping of its own: not there until it is written to.
        let mut memory = vec![0; 64 << 20];
        let page_bytes = rustix::param::page_size();
        let page = |memory: &[u8], n: usize| page_bytes - memory.as_ptr().addr() % page_bytes + n * page_bytes;
        let (third, hundredth) = (page(&memory, 3), page(&memory, 100));
        memory[third] = 1;
        memory[hundredth] = 1;
        let from = page(&memory, 0);
        let written = written(&memory[from..from + 200 * page_bytes], page_bytes).expect("Linux says");
        let found: Vec<usize> = (0..200).filter(|page| written[*page]).collect();
        assert_eq!(found, [3, 100]);
    }
}
