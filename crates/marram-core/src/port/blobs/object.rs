//! What is said of an object.

use crate::limits::{OBJECT_ATTRIBUTES_BYTES_MAX, OBJECT_NAME_BYTES_MAX};
use crate::{Digest, Failure, Kind, Name};

/// Which write of this node an object is from. A greater one is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// A checksum of a content, as S3 names and writes them: `("CRC32", "yZRlqg==")`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// `CRC32`, `CRC32C`, `CRC64NVME`, `SHA1` or `SHA256`.
    pub algorithm: String,
    /// In Base64; of an object of several parts that are not summed up as one, with `-` and their number.
    pub value: String,
}

/// What whoever stores an object says of it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Attributes {
    /// A media type.
    pub content_type: Option<String>,
    /// Other headers that are handed out with it as they came (`cache-control`, `content-disposition`, `content-encoding`,
    /// `content-language`, `expires`), in lower case, each once.
    pub headers: Vec<(String, String)>,
    /// Names and values of the user's own (S3's `x-amz-meta-…`, without that), in lower case, each once.
    pub user: Vec<(String, String)>,
}

impl Attributes {
    /// Fails with [`Kind::HeadersTooLarge`] past [`OBJECT_ATTRIBUTES_BYTES_MAX`].
    pub fn check(&self) -> Result<(), Failure> {
        let named = self.headers.iter().chain(&self.user).map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let bytes = named + self.content_type.as_ref().map_or(0, String::len);
        if bytes <= OBJECT_ATTRIBUTES_BYTES_MAX {
            return Ok(());
        }
        let message = format!("the metadata of the object has {bytes} bytes, more than {OBJECT_ATTRIBUTES_BYTES_MAX}");
        Err(Failure::new(Kind::HeadersTooLarge, message))
    }
}

/// An object, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name in its bucket.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the content; `None` for one that was put together from several parts.
    pub digest: Option<Digest>,
    /// Differs where the content does: the MD5 digest of the content in hex; of one that came in parts, the MD5 digest of
    /// their MD5 digests, `-`, and their number. Without quotes.
    pub etag: String,
    /// What was said of it.
    pub attributes: Attributes,
    /// What was checked of its content when it came.
    pub checksum: Option<Checksum>,
    /// When it was written, in nanoseconds since the Unix epoch.
    pub modified_unix_ns: u64,
    /// Which write it is from.
    pub version: Version,
}

/// A part of a content, as HTTP asks for it (RFC 9110 §14.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// From this byte on.
    From(u64),
    /// From the first of these to the last, which is in it.
    Between(u64, u64),
    /// So many at the end.
    Last(u64),
}

impl ByteRange {
    /// The bytes of a content of `size` bytes that this is; `None` if there are none, which HTTP answers with 416.
    #[must_use]
    pub fn of(self, size: u64) -> Option<std::ops::Range<u64>> {
        let range = match self {
            Self::From(first) => first..size,
            Self::Between(first, last) => first..size.min(last.saturating_add(1)),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Checks the name of an object: 1 to [`OBJECT_NAME_BYTES_MAX`] bytes without control characters, since it is in the subject of
/// its events (CloudEvents 1.0.2 §2.1). Nothing else is special in it, neither `/` nor `..`: it is never a path of a file.
pub fn check_name(bucket: &Name, name: &str) -> Result<(), Failure> {
    let why = match name.len() {
        0 => "is empty".to_owned(),
        length if length > OBJECT_NAME_BYTES_MAX => format!("has {length} bytes, more than {OBJECT_NAME_BYTES_MAX}"),
        _ if name.chars().any(|c| c.is_control() || is_noncharacter(c)) => {
            "has a control character, which the events of an object cannot carry".into()
        }
        _ => return Ok(()),
    };
    Err(Failure::new(Kind::Invalid, format!("the name {} in bucket \"{bucket}\" {why}", shown(name))))
}

/// Unicode 16 §23.7.
fn is_noncharacter(c: char) -> bool {
    matches!(u32::from(c), 0xfdd0..=0xfdef) || u32::from(c) & 0xfffe == 0xfffe
}

/// A name as messages show it.
#[must_use]
pub fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 40;
    let cut: String = name.chars().take(CHARS_MAX).collect();
    if cut.len() < name.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_any_text_that_an_event_can_carry() {
        let bucket = Name::new("uploads").unwrap();
        for good in ["a", "/", "//", "..", "../../etc/passwd", "a/b c", "ä%2f", " ", &"ä".repeat(512)] {
            assert!(check_name(&bucket, good).is_ok(), "{good:?}");
        }
        for bad in ["", "a\0b", "\n", "\u{85}", "\u{ffff}", &"ä".repeat(513)] {
            assert_eq!(check_name(&bucket, bad).map_err(|failure| failure.kind()), Err(Kind::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn ranges_are_cut_at_the_end() {
        let of = |range: ByteRange, size| range.of(size);
        assert_eq!(of(ByteRange::From(3), 10), Some(3..10));
        assert_eq!(of(ByteRange::Between(3, 3), 10), Some(3..4));
        assert_eq!(of(ByteRange::Between(3, u64::MAX), 10), Some(3..10));
        assert_eq!(of(ByteRange::Last(4), 10), Some(6..10));
        assert_eq!(of(ByteRange::Last(40), 10), Some(0..10));
        for none in [ByteRange::From(10), ByteRange::Between(10, 12), ByteRange::Between(4, 3), ByteRange::Last(0)] {
            assert_eq!(of(none, 10), None, "{none:?}");
        }
        assert_eq!(of(ByteRange::From(0), 0), None);
    }

    #[test]
    fn attributes_are_bounded() {
        let value = "x".repeat(OBJECT_ATTRIBUTES_BYTES_MAX - 1);
        let of = |name: &str| Attributes { user: vec![(name.into(), value.clone())], ..Attributes::default() };
        assert!(of("a").check().is_ok());
        assert_eq!(of("ab").check().map_err(|failure| failure.kind()), Err(Kind::HeadersTooLarge));
    }
}
