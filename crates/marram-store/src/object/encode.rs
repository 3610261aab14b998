//! What is said of an object as the disk has it: one byte of version, then postcard.

use marram_core::port::blobs::{Attributes, Checksum};
use serde::{Deserialize, Serialize};

use crate::StoreError;

/// The only version so far.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Said<'a> {
    content_type: Option<&'a str>,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    user: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    checksum: Option<(&'a str, &'a str)>,
}

pub(super) fn said(attributes: &Attributes, checksum: Option<&Checksum>) -> Vec<u8> {
    let said = Said {
        content_type: attributes.content_type.as_deref(),
        headers: borrowed(&attributes.headers),
        user: borrowed(&attributes.user),
        checksum: checksum.map(|checksum| (checksum.algorithm.as_str(), checksum.value.as_str())),
    };
    postcard::to_extend(&said, vec![VERSION]).expect("text always has an encoding")
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

pub(super) fn decode(bytes: &[u8]) -> Result<(Attributes, Option<Checksum>), StoreError> {
    let damaged = |why: String| StoreError::Damaged(format!("what is said of an object {why}"));
    let body = match bytes.split_first() {
        Some((&VERSION, body)) => body,
        other => return Err(damaged(format!("has encoding {:?}", other.map(|(version, _)| version)))),
    };
    let said: Said<'_> = postcard::from_bytes(body).map_err(|error| damaged(format!("cannot be decoded: {error}")))?;
    let owned = |pairs: Vec<(&str, &str)>| pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let attributes = Attributes {
        content_type: said.content_type.map(str::to_owned),
        headers: owned(said.headers),
        user: owned(said.user),
    };
    let checksum =
        said.checksum.map(|(algorithm, value)| Checksum { algorithm: algorithm.into(), value: value.into() });
    Ok((attributes, checksum))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_comes_back(
            content_type in prop::option::of(".{0,9}"), headers in prop::collection::vec((".{0,4}", ".{0,4}"), 0..3),
            user in prop::collection::vec((".{0,4}", ".{0,4}"), 0..3), checksum in prop::option::of((".{0,4}", ".{0,4}")),
        ) {
            let attributes = Attributes { content_type, headers, user };
            let checksum = checksum.map(|(algorithm, value)| Checksum { algorithm, value });
            prop_assert_eq!(decode(&said(&attributes, checksum.as_ref())).unwrap(), (attributes, checksum));
        }

        #[test]
        fn a_damaged_row_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
        }
    }

    /// A later version has to read this.
    #[test]
    fn the_encoding_does_not_change() {
        let attributes = Attributes {
            content_type: Some("a/b".into()),
            headers: vec![("c".into(), "d".into())],
            user: vec![("e".into(), "f".into())],
        };
        let checksum = Checksum { algorithm: "CRC32".into(), value: "g".into() };
        assert_eq!(
            said(&attributes, Some(&checksum)),
            b"\x01\x01\x03a/b\x01\x01c\x01d\x01\x01e\x01f\x01\x05CRC32\x01g"
        );
    }
}
