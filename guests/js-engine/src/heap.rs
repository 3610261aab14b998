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
