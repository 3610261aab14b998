//! Rust allocates from the same heap as QuickJS: two heaps in one memory would touch more pages.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

#[global_allocator]
static HEAP: Heap = Heap;

struct Heap;

#[allow(unsafe_code)] // The C library's allocator, declared as in its header.
unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn realloc(ptr: *mut c_void, size: usize) -> *mut c_void;
    fn free(ptr: *mut c_void);
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
}

/// What `malloc` guarantees on wasm32.
const MALLOC_ALIGN: usize = 8;

// SAFETY: each method hands its caller's promises to the C allocator, which keeps the same contract; alignments past its own go
// through `aligned_alloc`, whose blocks `free` takes as well.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MALLOC_ALIGN {
            unsafe { malloc(layout.size()).cast() }
        } else {
            unsafe { aligned_alloc(layout.align(), layout.size().next_multiple_of(layout.align())).cast() }
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, _layout: Layout) {
        unsafe { free(ptr.cast()) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= MALLOC_ALIGN {
            return unsafe { realloc(ptr.cast(), size).cast() };
        }
        let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            unsafe { moved.copy_from_nonoverlapping(ptr, layout.size().min(size)) };
            unsafe { free(ptr.cast()) };
        }
        moved
    }
}

/// A block larger than any hole that booting leaves.
const MARK_BYTES: usize = 64 * 1024;
/// The classes of QuickJS's small blocks lie 8 bytes or more apart, up to this much.
const SMALL_BYTES_MAX: usize = 512;

/// Fills every hole that is in the heap now, so that what is allocated from here on lies together, behind all that there
/// is. A script and a request then touch few runs of pages, and a fresh instance is made by copying these.
///
/// The filling stays allocated for good. To be called between compiling the prelude and running it, and before the snapshot is
/// taken.
#[allow(unsafe_code)] // The C library's allocator, and QuickJS's.
pub(crate) fn seal(ctx: &rquickjs::Ctx<'_>) {
    let ctx = ctx.as_raw().as_ptr();
    // SAFETY: blocks are only compared, and freed at most once, by the allocator that they came from.
    unsafe {
        let mark = malloc(MARK_BYTES);
        let is_hole = |block: *mut c_void| !block.is_null() && block < mark;
        // From large to small: a small block taken first could lie in a large hole.
        for size in (1..MARK_BYTES / 16).rev().map(|n| n * 16) {
            let mut block = malloc(size);
            while is_hole(block) {
                block = malloc(size);
            }
            free(block);
        }
        for size in (8..=SMALL_BYTES_MAX).step_by(8) {
            let mut block = rquickjs::qjs::js_malloc(ctx, size as _);
            while is_hole(block) {
                block = rquickjs::qjs::js_malloc(ctx, size as _);
            }
            rquickjs::qjs::js_free(ctx, block);
        }
        free(mark);
    }
}
