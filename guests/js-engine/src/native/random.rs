//! Randomness. `Math.random` runs on a small generator that is seeded on first use and forgets its seed before a
//! snapshot; everything else comes from the host.

use rquickjs::{Ctx, Function, Object, Result, TypedArray};
use std::cell::Cell;

use crate::imports;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Puts the functions on the prelude's `host` object.
pub(super) fn install<'js>(ctx: &Ctx<'js>, host: &Object<'js>) -> Result<()> {
    host.set("random", Function::new(ctx.clone(), unit)?)?;
    host.set("randomBytes", Function::new(ctx.clone(), bytes)?)?;
    host.set("uuid", Function::new(ctx.clone(), uuid)?)
}

/// The next `Math.random` asks the host for a new seed.
pub(crate) fn forget_seed() {
    STATE.set(0);
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled"), scaled to [0, 1).
fn unit() -> f64 {
    let mut state = STATE.get();
    while state == 0 {
        let mut seed = [0; 8];
        imports::fill_random(&mut seed);
        state = u64::from_le_bytes(seed);
    }
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    STATE.set(state);
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
}

fn bytes<'js>(ctx: Ctx<'js>, len: u32) -> Result<TypedArray<'js, u8>> {
    let mut buffer = vec![0; len as usize];
    imports::fill_random(&mut buffer);
    TypedArray::new(ctx, buffer)
}

/// A version 4 UUID (RFC 9562 §5.4).
fn uuid() -> String {
    let mut bytes = [0; 16];
    imports::fill_random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}
