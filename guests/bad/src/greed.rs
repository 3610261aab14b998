//! Taking without end: CPU, memory, stack, handles, log, headers.

use std::hint::black_box;

use kit_p2::sleep_ms;
use wasip2::clocks::monotonic_clock;
use wasip2::http::types::{Fields, OutgoingBody, OutgoingResponse, ResponseOutparam};

/// A busy loop that calls nothing.
pub fn spin() {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// Uses the CPU for so many milliseconds.
pub fn burn_ms(ms: u64) {
    let end = monotonic_clock::now() + ms * 1_000_000;
    while monotonic_clock::now() < end {
        for n in 0..10_000_u32 {
            black_box(n);
        }
    }
}

/// Allocates and touches memory until it is refused, then aborts, as most programs do.
pub fn allocate() {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Calls itself until the stack is gone.
pub fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + black_box(frame)[0] }
}

/// Opens resource handles and never drops one.
pub fn open_handles() {
    for _ in 0..1_000_000 {
        std::mem::forget(Fields::new());
    }
    // The host let a million through: stay, so that its memory can be looked at.
    sleep_ms(3_600_000);
}

/// Logs 100-byte lines without end.
pub fn flood_the_log() {
    let line = "flood ".repeat(16);
    loop {
        println!("{line}");
    }
}

/// Answers with a megabyte of headers.
pub fn send_big_headers(out: ResponseOutparam) {
    let headers = Fields::new();
    for n in 0..256 {
        let _ = headers.append(&format!("x-big-{n}"), &[b'b'; 4096]);
    }
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let _ = OutgoingBody::finish(body, None);
}
