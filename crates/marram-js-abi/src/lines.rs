//! Header fields as one string, `name\nvalue\n` for each field in order: one JavaScript string that is only taken
//! apart when the function looks at its headers.
//!
//! Neither names nor values can hold a line feed (RFC 9110 §5.5). A value's bytes stand for code points 0 to 255, as the Fetch
//! standard has it (isomorphic decoding).

/// Appends one field; `value` holds the bytes as received.
pub fn push(lines: &mut String, name: &str, value: &[u8]) {
    lines.push_str(name);
    lines.push('\n');
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => lines.push_str(text),
        _ => lines.extend(value.iter().copied().map(char::from)),
    }
    lines.push('\n');
}

/// The fields in order: the name, and the value's text.
pub fn fields(lines: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = lines.split('\n');
    std::iter::from_fn(move || Some((rest.next()?, rest.next()?)))
}

/// The bytes that a value's text stands for; none when a code point lies past 255.
pub fn value_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_survive_with_their_bytes() {
        let mut lines = String::new();
        push(&mut lines, "accept", b"*/*");
        push(&mut lines, "x-name", b"caf\xe9");
        push(&mut lines, "x-empty", b"");
        let read: Vec<_> = fields(&lines).map(|(name, value)| (name, value_bytes(value).unwrap())).collect();
        assert_eq!(read, [("accept", b"*/*".to_vec()), ("x-name", b"caf\xe9".to_vec()), ("x-empty", Vec::new())]);
        assert_eq!(fields("").count(), 0);
    }
}
