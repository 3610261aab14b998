//! A loaded script as the pages of memory in which it differs from the engine's snapshot. Between two turns an instance
//! is nothing but its memory, so a fresh instance becomes a loaded one by copying these pages: no parsing, no compiling.

/// Smaller runs copy less; larger ones need fewer copies. Page faults come in pages of the machine.
const PAGE_BYTES: usize = 4096;
/// Unchanged pages between two changed ones are copied too, up to this much. What is dirty in a few long runs is cleared in
/// place when the memory is used again; scattered pages are unmapped instead, and cost a fault each
/// (wasmtime looks for 32 runs at most).
const GAP_BYTES: usize = 32 << 10;

/// Bound to the engine's module: restoring it on another one gives garbage inside of the sandbox.
pub(crate) struct Image {
    /// Runs of changed pages: offset, and content.
    runs: Vec<(usize, Box<[u8]>)>,
    pub(super) memory_bytes: usize,
    pub(super) inbound: (u32, usize),
}

impl Image {
    pub(super) fn between(fresh: &[u8], loaded: &[u8], inbound: (u32, usize)) -> Self {
        let zeros = [0; PAGE_BYTES];
        let before = |at: usize| fresh.get(at..at + PAGE_BYTES).unwrap_or(&zeros);
        let mut runs: Vec<(usize, Vec<u8>)> = Vec::new();
        for (page, bytes) in loaded.chunks_exact(PAGE_BYTES).enumerate() {
            let at = page * PAGE_BYTES;
            if bytes == before(at) {
                continue;
            }
            match runs.last_mut() {
                Some((start, run)) if at - (*start + run.len()) <= GAP_BYTES => {
                    run.extend_from_slice(&loaded[*start + run.len()..at + PAGE_BYTES]);
                }
                _ => runs.push((at, bytes.to_vec())),
            }
        }
        let runs = runs.into_iter().map(|(at, run)| (at, run.into_boxed_slice())).collect();
        Self { runs, memory_bytes: loaded.len(), inbound }
    }

    pub(super) fn write(&self, memory: &mut [u8]) {
        for (at, run) in &self.runs {
            memory[*at..*at + run.len()].copy_from_slice(run);
        }
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.runs.iter().map(|(_, run)| run.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_pages_are_kept_and_put_back() {
        let fresh = vec![7; 4 * PAGE_BYTES];
        let mut loaded = vec![7; 4 * PAGE_BYTES];
        loaded.extend_from_slice(&[0; PAGE_BYTES]);
        loaded[PAGE_BYTES] = 1;
        loaded[2 * PAGE_BYTES + 5] = 2;
        let image = Image::between(&fresh, &loaded, (16, 32));
        assert_eq!((image.runs.len(), image.bytes(), image.memory_bytes), (1, 2 * PAGE_BYTES, 5 * PAGE_BYTES));
        let mut other = fresh;
        other.resize(image.memory_bytes, 0);
        image.write(&mut other);
        assert!(other == loaded);
    }
}
