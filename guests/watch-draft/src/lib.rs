//! Watches keys by the first draft of `wasi:keyvalue`, and does nothing else. It keeps what it is told of a key beside it, by
//! the handle that comes with the change: the values in their order, in the key `log/<key>`.

wit_bindgen::generate!({ path: "wit", generate_all });
use exports::wasi::keyvalue::watcher::Guest;
use wasi::keyvalue::store::{Bucket, Error, open};

export!(Watch);

struct Watch;

impl Guest for Watch {
    fn on_set(bucket: Bucket, key: String, value: Vec<u8>) {
        let value = String::from_utf8_lossy(&value).into_owned();
        match &*value {
            "trap" => panic!("asked to"),
            "trap once" if !bucket.exists(&format!("tried/{key}")).unwrap_or(true) => {
                bucket.set(&format!("tried/{key}"), b"yes").expect("the bucket is granted");
                panic!("once");
            }
            "spin" => loop {},
            _ => note(&bucket, &key, &value),
        }
    }

    fn on_delete(bucket: Bucket, key: String) {
        note(&bucket, &key, "gone");
    }
}

fn note(bucket: &Bucket, key: &str, what: &str) {
    if let Err(error) = append(bucket, key, what) {
        let unnamed = open("").err();
        println!("{key} is {what}, and the bucket says {error:?}, and the one without a name {unnamed:?}");
    }
}

fn append(bucket: &Bucket, key: &str, what: &str) -> Result<(), Error> {
    let log = format!("log/{key}");
    let mut all = bucket.get(&log)?.unwrap_or_default();
    all.extend_from_slice(format!("{what};").as_bytes());
    bucket.set(&log, &all)
}
