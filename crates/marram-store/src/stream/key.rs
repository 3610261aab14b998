//! The key of an event's row: the stream's id in the upper 16 bits, the position in the lower 48.

/// A stream in this database, 1 to 32,767. Given out again once a removed stream's events are gone.
pub(super) type StreamId = u16;

/// The last position: at 300,000 events a second it is reached after 29 years.
pub(super) const POSITION_MAX: u64 = (1 << 48) - 1;

/// The key of a position; a greater position counts as the last.
pub(super) fn key(id: StreamId, position: u64) -> i64 {
    (i64::from(id) << 48) | position.min(POSITION_MAX).cast_signed()
}

/// The position of a key.
pub(super) fn position(key: i64) -> u64 {
    key.cast_unsigned() & POSITION_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_positive_and_in_the_order_of_stream_and_position() {
        let keys = [(1, 0), (1, 1), (1, POSITION_MAX), (2, 0), (32_767, POSITION_MAX)].map(|(id, at)| key(id, at));
        assert!(keys[0] > 0 && keys.is_sorted_by(|a, b| a < b));
        assert_eq!(position(key(32_767, 77)), 77);
        assert_eq!(key(3, u64::MAX), key(3, POSITION_MAX));
    }
}
