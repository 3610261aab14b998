//! Settings of the system's allocator.

/// Blocks from this size on are mappings of their own, which end when they are freed: more than a value, an event, or what is read of
/// a body at once.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES_MIN: i32 = (1 << 20) + (256 << 10);
/// What may be left free at the end of a heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES_MAX: i32 = 1 << 20;

/// glibc makes a mapping of its own for large blocks, but raises what it calls large, up to 32 MiB, with each that is freed: what a
/// script's memory or a compiler's output once took then stays with the process (mallopt(3), `M_MMAP_THRESHOLD`).
///
/// Elsewhere the allocator is another one.
#[allow(unsafe_code, reason = "mallopt has no safe wrapper")]
pub(crate) fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets two numbers of the allocator's, under the allocator's lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX);
    }
}
