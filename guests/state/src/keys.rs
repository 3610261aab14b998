//! Keys, and what lives in them.

use crate::marram::crdt::{counters, maps, sets};
use crate::marram::keyvalue::expiring as entries;
use crate::wasi::keyvalue::atomics::{self, Cas, CasError};
use crate::wasi::keyvalue::{batch, store};
use crate::{Given, refused, text};

pub fn kv(bucket: &str, path: &[&str]) -> Given {
    let bucket = store::open(bucket).map_err(refused)?;
    match path {
        ["get", key] => Ok(format!("{:?}", bucket.get(key).map_err(refused)?.map(text))),
        ["set", key, value] => bucket.set(key, value.as_bytes()).map(|()| "set".into()).map_err(refused),
        ["delete", key] => bucket.delete(key).map(|()| "deleted".into()).map_err(refused),
        ["exists", key] => Ok(bucket.exists(key).map_err(refused)?.to_string()),
        ["increment", key, delta] => {
            let sum = atomics::increment(&bucket, key, delta.parse().unwrap_or(0));
            sum.map(|sum| sum.to_string()).map_err(refused)
        }
        ["get-many", keys @ ..] => {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            let found = batch::get_many(&bucket, &keys).map_err(refused)?;
            let found: Vec<_> = found.into_iter().map(|one| one.map(|(key, value)| (key, text(value)))).collect();
            Ok(format!("{found:?}"))
        }
        ["set-many", keys @ ..] => {
            let entries: Vec<_> = keys.iter().map(|key| (key.to_string(), b"many".to_vec())).collect();
            batch::set_many(&bucket, &entries).map(|()| "set".into()).map_err(refused)
        }
        ["delete-many", keys @ ..] => {
            let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            batch::delete_many(&bucket, &keys).map(|()| "deleted".into()).map_err(refused)
        }
        ["list"] => list(&bucket),
        ["cas", key, value] => cas(&bucket, key, value, None),
        // Somebody else is in between.
        ["lost-cas", key, value, between] => cas(&bucket, key, value, Some(between)),
        _ => Err("there is no such call".into()),
    }
}

/// Every key, page by page.
fn list(bucket: &store::Bucket) -> Given {
    let (mut all, mut cursor): (Vec<String>, _) = (Vec::new(), None);
    loop {
        let page = bucket.list_keys(cursor.as_deref()).map_err(refused)?;
        all.extend(page.keys);
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(all.join(" "));
        }
    }
}

fn cas(bucket: &store::Bucket, key: &str, value: &str, between: Option<&str>) -> Given {
    let cas = Cas::new(bucket, key).map_err(refused)?;
    if let Some(between) = between {
        bucket.set(key, between.as_bytes()).map_err(refused)?;
    }
    match atomics::swap(cas, value.as_bytes()) {
        Ok(()) => Ok("swapped".into()),
        Err(CasError::CasFailed(again)) => {
            let seen = again.current().map_err(refused)?.map(text);
            atomics::swap(again, value.as_bytes()).map_err(|_| "it failed again".to_owned())?;
            Ok(format!("swapped after {seen:?}"))
        }
        Err(CasError::StoreError(error)) => Err(refused(error)),
    }
}

pub fn expiring(bucket: &str, path: &[&str]) -> Given {
    match path {
        ["set", key, value, ttl_ms] => {
            let set = entries::set(bucket, key, value.as_bytes(), ttl_ms.parse().unwrap_or(0));
            set.map(|()| "set".into()).map_err(refused)
        }
        ["remaining", key] => Ok(format!("{:?}", entries::remaining_ms(bucket, key).map_err(refused)?)),
        _ => Err("there is no such call".into()),
    }
}

pub fn counter(bucket: &str, path: &[&str]) -> Given {
    match path {
        ["add", key, delta] => {
            let sum = counters::increment(bucket, key, delta.parse().unwrap_or(0)).map_err(refused)?;
            Ok(sum.to_string())
        }
        ["value", key] => Ok(format!("{:?}", counters::value(bucket, key).map_err(refused)?)),
        _ => Err("there is no such call".into()),
    }
}

pub fn set(bucket: &str, path: &[&str]) -> Given {
    let members = |members: &[&str]| members.iter().map(|member| member.as_bytes().to_vec()).collect::<Vec<_>>();
    match path {
        ["add", key, rest @ ..] => sets::add(bucket, key, &members(rest)).map(|()| "added".into()).map_err(refused),
        ["remove", key, rest @ ..] => {
            sets::remove(bucket, key, &members(rest)).map(|()| "removed".into()).map_err(refused)
        }
        ["contains", key, member] => {
            Ok(sets::contains(bucket, key, member.as_bytes()).map_err(refused)?.to_string())
        }
        ["members", key] => {
            let members = sets::members(bucket, key).map_err(refused)?;
            Ok(format!("{:?}", members.map(|members| members.into_iter().map(text).collect::<Vec<_>>())))
        }
        _ => Err("there is no such call".into()),
    }
}

pub fn map(bucket: &str, path: &[&str]) -> Given {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let change = match path {
        ["put", _, field, value] => maps::Change::Put((field.to_string(), bytes(value))),
        ["increment", _, field, delta] => maps::Change::Increment((field.to_string(), delta.parse().unwrap_or(0))),
        ["add", _, field, member] => maps::Change::Add((field.to_string(), bytes(member))),
        ["discard", _, field, member] => maps::Change::Discard((field.to_string(), bytes(member))),
        ["remove", _, field] => maps::Change::Remove(field.to_string()),
        ["keys", key] => return Ok(format!("{:?}", maps::keys(bucket, key).map_err(refused)?)),
        ["get", key, field] => {
            let Some(field) = maps::get(bucket, key, field).map_err(refused)? else { return Ok("nothing".into()) };
            let members: Vec<_> = field.members.into_iter().map(text).collect();
            return Ok(format!("{:?} {:?} {members:?}", field.value.map(text), field.count));
        }
        _ => return Err("there is no such call".into()),
    };
    maps::update(bucket, path[1], &[change]).map(|()| "changed".into()).map_err(refused)
}

/// Reads `count` keys out of `keys`, in an order that is not theirs; says how many were there.
pub fn bench_get(count: u64, keys: u64) -> Given {
    let bucket = store::open("bench").map_err(refused)?;
    let mut there = 0;
    for n in 0..count {
        there += u64::from(bucket.get(&key(scattered(n, keys))).map_err(refused)?.is_some());
    }
    Ok(there.to_string())
}

/// Sets `count` keys out of `keys`, durably each time.
pub fn bench_set(count: u64, keys: u64) -> Given {
    let bucket = store::open("bench").map_err(refused)?;
    for n in 0..count {
        bucket.set(&key(scattered(n, keys)), &[n as u8; 100]).map_err(refused)?;
    }
    Ok(count.to_string())
}

/// Sets the keys from `from` to `to`, many at once.
pub fn bench_fill(from: u64, to: u64) -> Given {
    let bucket = store::open("bench").map_err(refused)?;
    let entries: Vec<_> = (from..to).map(|n| (key(n), vec![n as u8; 100])).collect();
    batch::set_many(&bucket, &entries).map_err(refused)?;
    Ok(entries.len().to_string())
}

fn key(n: u64) -> String {
    format!("key/{n:08}")
}

/// Another start in each request, so that several at once do not read and write the same keys.
fn scattered(n: u64, keys: u64) -> u64 {
    static START: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let start = START.get_or_init(wasip2::random::random::get_random_u64);
    (start.wrapping_add(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % keys.max(1)
}
