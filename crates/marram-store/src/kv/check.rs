//! What keys, values and batches may be. Errors name the key, cut short, the bucket and the limit.

use marram_core::Name;
use marram_core::limits::{KEY_BYTES_MAX, KV_BATCH_BYTES_MAX, KV_BATCH_CHANGES_MAX, KV_VALUE_BYTES_MAX};
pub(super) use marram_core::port::blobs::shown;

use crate::StoreError;

pub(super) fn key(bucket: &Name, key: &str) -> Result<(), StoreError> {
    named("key", bucket, key)
}

/// The name of a field of a map.
pub(super) fn field(bucket: &Name, field: &str) -> Result<(), StoreError> {
    named("field", bucket, field)
}

fn named(what: &str, bucket: &Name, key: &str) -> Result<(), StoreError> {
    let why = match key.len() {
        0 => "is empty".to_owned(),
        length if length > KEY_BYTES_MAX => format!("has {length} bytes, more than {KEY_BYTES_MAX}"),
        _ if key.chars().any(char::is_control) => {
            "has a control character, which the events of a key cannot carry".into()
        }
        _ => return Ok(()),
    };
    Err(StoreError::Invalid(format!("the {what} {} of bucket \"{bucket}\" {why}", shown(key))))
}

pub(super) fn value(bucket: &Name, key: &str, length: usize) -> Result<(), StoreError> {
    if length <= KV_VALUE_BYTES_MAX {
        return Ok(());
    }
    Err(StoreError::TooLarge(format!(
        "the value of key {} of bucket \"{bucket}\" has {length} bytes, more than {KV_VALUE_BYTES_MAX}: store it as an object",
        shown(key)
    )))
}

/// A batch of so many changes and bytes.
pub(super) fn batch(bucket: &Name, changes: usize, bytes: usize) -> Result<(), StoreError> {
    if changes > KV_BATCH_CHANGES_MAX {
        return Err(StoreError::TooLarge(format!(
            "the batch for bucket \"{bucket}\" has {changes} changes, more than {KV_BATCH_CHANGES_MAX}: split it"
        )));
    }
    if bytes > KV_BATCH_BYTES_MAX {
        return Err(StoreError::TooLarge(format!(
            "the batch for bucket \"{bucket}\" has {bytes} bytes, more than {KV_BATCH_BYTES_MAX}: split it"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key_the_bucket_and_the_limit() {
        let bucket = Name::new("state").unwrap();
        let check = |text: &str, error: &str| {
            assert_eq!(key(&bucket, text).map_err(|error| error.to_string()), Err(error.to_owned()));
        };
        check("", r#"the key "" of bucket "state" is empty"#);
        check(
            &"ä".repeat(513),
            &format!(r#"the key "{}"… of bucket "state" has 1026 bytes, more than 1024"#, "ä".repeat(40)),
        );
        for bad in ["a\0b", "\n", "\u{85}"] {
            assert!(key(&bucket, bad).is_err(), "{bad:?}");
        }
        for good in ["a", "/", " ", "a/b c", "\u{10ffff}", &"ä".repeat(512)] {
            key(&bucket, good).unwrap();
        }
        assert!(value(&bucket, "k", KV_VALUE_BYTES_MAX).is_ok());
        let error = value(&bucket, "k", KV_VALUE_BYTES_MAX + 1).unwrap_err().to_string();
        assert!(error.contains("\"k\" of bucket \"state\" has 1048577 bytes, more than 1048576"), "{error}");
        assert!(batch(&bucket, KV_BATCH_CHANGES_MAX, KV_BATCH_BYTES_MAX).is_ok());
        assert!(
            batch(&bucket, KV_BATCH_CHANGES_MAX + 1, 0).is_err() && batch(&bucket, 1, KV_BATCH_BYTES_MAX + 1).is_err()
        );
    }
}
