//! What the module asks of the host synchronously: two clocks, randomness, and a last word before a trap. All cheap.

#[allow(unsafe_code)] // A foreign function has to be declared; each is safe for any argument that its wrapper passes.
#[link(wasm_import_module = "marram")]
unsafe extern "C" {
    safe fn monotonic_us() -> f64;
    fn random(ptr: *mut u8, len: usize);
    fn panic(ptr: *const u8, len: usize);
}

#[allow(unsafe_code)] // As above. QuickJS's clock has this name in rquickjs-sys; one import serves both.
#[link(wasm_import_module = "env")]
unsafe extern "C" {
    safe fn __rquickjs_host_now_us() -> f64;
}

/// Microseconds since 1970.
pub(crate) fn now_us() -> f64 {
    __rquickjs_host_now_us()
}

/// Microseconds of a clock that only goes forward.
pub(crate) fn monotonic() -> f64 {
    monotonic_us()
}

/// Fills the buffer with randomness of cryptographic quality.
#[allow(unsafe_code)] // The host writes inside the buffer that the slice stands for.
pub(crate) fn fill_random(buffer: &mut [u8]) {
    unsafe { random(buffer.as_mut_ptr(), buffer.len()) }
}

/// Tells the host why the module is about to trap.
#[allow(unsafe_code)] // The host reads the text that the slice stands for.
pub(crate) fn panicked(text: &str) {
    unsafe { panic(text.as_ptr(), text.len()) }
}
