//! `marram:keyvalue`: entries of `wasi:keyvalue`'s buckets that go away by themselves.

use std::time::Duration;

use marram_core::port::kv::{Change, Expect};
use marram_core::{Failure, Kind};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Linker, Lower};

use super::Offer;
use crate::reach::Reach;
use crate::state::GuestState;

pub(super) const OFFER: Offer =
    Offer { prefix: "marram:keyvalue/", granted: |allow| !allow.kv.is_empty(), grants: &["kv = [\"<bucket>\"]"], link };

/// `variant error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "access-denied")]
    AccessDenied(String),
    #[component(name = "invalid")]
    Invalid(String),
    #[component(name = "unavailable")]
    Unavailable(String),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let message = failure.message().to_owned();
        match failure.kind() {
            Kind::Unauthorized => Self::AccessDenied(message),
            Kind::Invalid | Kind::BadRequest | Kind::BodyTooLarge | Kind::Conflict => Self::Invalid(message),
            _ => Self::Unavailable(message),
        }
    }
}

type Store<'a> = StoreContextMut<'a, GuestState>;

fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let mut instance = linker.instance("marram:keyvalue/expiring@0.1.0")?;
    instance.func_wrap_async(
        "set",
        |store: Store<'_>, (bucket, key, value, ttl_ms): (String, String, Vec<u8>, u64)| {
            Box::new(async move {
                let reach = store.data().reach();
                Ok((set(&reach, &bucket, key, value, ttl_ms).await.map_err(Error::from),))
            })
        },
    )?;
    instance.func_wrap("remaining-ms", |store: Store<'_>, (bucket, key): (String, String)| {
        Ok((remaining_ms(&store.data().deployed.reach, &bucket, &key).map_err(Error::from),))
    })
}

async fn set(reach: &Reach, bucket: &str, key: String, value: Vec<u8>, ttl_ms: u64) -> Result<(), Failure> {
    if ttl_ms == 0 {
        return Err(Failure::new(Kind::Invalid, "a time to live of 0 ms: delete the key instead"));
    }
    let ttl = Some(Duration::from_millis(ttl_ms));
    let change = Change::Put { key, value: value.into(), ttl, expect: Expect::Any };
    reach.kv()?.apply(reach.bucket(bucket)?, vec![change]).await.map(|_| ())
}

fn remaining_ms(reach: &Reach, bucket: &str, key: &str) -> Result<Option<u64>, Failure> {
    let entry = reach.kv()?.get(reach.bucket(bucket)?, key)?;
    let expires = entry.and_then(|entry| entry.expires_unix_ns);
    Ok(expires.map(|expires| expires.saturating_sub(reach.clock.unix_ns()).div_ceil(1_000_000)))
}
