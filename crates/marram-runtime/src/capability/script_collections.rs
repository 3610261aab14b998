//! Sets and maps in the buckets of `env.kv`: `marram:crdt` for a JavaScript or Python function. Calls are as in
//! [`super::script`]; bytes of several members or values follow the line one after the other, and the line has their lengths.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use marram_core::port::crdt::{Collection, CrdtChange, Field};
use marram_core::{Failure, Kind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::crdt::{another, read};
use super::script::{head, parse, take};
use crate::reach::Reach;

pub(super) fn call(
    reach: &Arc<Reach>,
    capability: &str,
    payload: Bytes,
) -> BoxFuture<'static, Result<Vec<u8>, Failure>> {
    let (reach, capability) = (Arc::clone(reach), capability.to_owned());
    Box::pin(async move {
        match &*capability {
            "crdt.update" => {
                let (asked, bytes) = parse(&payload)?;
                update(&reach, asked, bytes).await
            }
            "crdt.contains" => {
                let (asked, member) = parse(&payload)?;
                contains(&reach, &asked, &member)
            }
            "crdt.members" => members(&reach, &parse(&payload)?.0),
            "crdt.fields" => fields(&reach, &parse(&payload)?.0),
            _ => Err(Failure::new(Kind::Invalid, format!("{capability} is not offered by this version of Marram"))),
        }
    })
}

#[derive(Deserialize)]
struct Updating {
    bucket: String,
    key: String,
    changes: Vec<Step>,
}

/// A change. Of bytes there is the length.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Step {
    Add { length: usize },
    Remove { length: usize },
    FieldPut { field: String, length: usize },
    FieldIncrement { field: String, delta: i64 },
    FieldAdd { field: String, length: usize },
    FieldDiscard { field: String, length: usize },
    FieldRemove { field: String },
}

async fn update(reach: &Reach, asked: Updating, mut bytes: Bytes) -> Result<Vec<u8>, Failure> {
    let bucket = reach.bucket(&asked.bucket)?;
    let mut changes = Vec::with_capacity(asked.changes.len());
    for step in asked.changes {
        changes.push(match step {
            Step::Add { length } => CrdtChange::SetAdd(take(&mut bytes, length)?),
            Step::Remove { length } => CrdtChange::SetRemove(take(&mut bytes, length)?),
            Step::FieldPut { field, length } => CrdtChange::MapPut { field, value: take(&mut bytes, length)? },
            Step::FieldIncrement { field, delta } => CrdtChange::MapIncrement { field, delta },
            Step::FieldAdd { field, length } => CrdtChange::MapAdd { field, member: take(&mut bytes, length)? },
            Step::FieldDiscard { field, length } => CrdtChange::MapDiscard { field, member: take(&mut bytes, length)? },
            Step::FieldRemove { field } => CrdtChange::MapRemove { field },
        });
    }
    if !changes.is_empty() {
        reach.crdt()?.crdt_update(bucket, &asked.key, changes).await?;
    }
    Ok(head(&Value::Null))
}

#[derive(Deserialize)]
struct Asked {
    bucket: String,
    key: String,
    /// Only this field of a map.
    field: Option<String>,
}

fn contains(reach: &Reach, asked: &Asked, member: &[u8]) -> Result<Vec<u8>, Failure> {
    let found = match read(reach, &asked.bucket, &asked.key)?.as_deref() {
        None => false,
        Some(Collection::Set(members)) => members.contains(member),
        Some(Collection::Map(_)) => return Err(another("map")),
    };
    Ok(head(&json!({ "contains": found })))
}

fn members(reach: &Reach, asked: &Asked) -> Result<Vec<u8>, Failure> {
    match read(reach, &asked.bucket, &asked.key)?.as_deref() {
        None => Ok(head(&Value::Null)),
        Some(Collection::Set(members)) => {
            let mut bytes = Vec::new();
            let mut answer = head(&json!({ "members": lengths(members, &mut bytes) }));
            answer.append(&mut bytes);
            Ok(answer)
        }
        Some(Collection::Map(_)) => Err(another("map")),
    }
}

/// All fields of a map, or the one that was asked for.
fn fields(reach: &Reach, asked: &Asked) -> Result<Vec<u8>, Failure> {
    let found = read(reach, &asked.bucket, &asked.key)?;
    let fields = match found.as_deref() {
        None => return Ok(head(&Value::Null)),
        Some(Collection::Map(fields)) => fields,
        Some(Collection::Set(_)) => return Err(another("set")),
    };
    let wanted = fields.iter().filter(|(name, _)| asked.field.as_ref().is_none_or(|field| field == *name));
    let mut bytes = Vec::new();
    let views: Vec<Value> = wanted.map(|(name, field)| view(name, field, &mut bytes)).collect();
    let mut answer = head(&json!({ "fields": views }));
    answer.append(&mut bytes);
    Ok(answer)
}

fn view(name: &str, field: &Field, bytes: &mut Vec<u8>) -> Value {
    let value = field.value.as_ref().map(|value| {
        bytes.extend_from_slice(value);
        value.len()
    });
    json!({ "name": name, "value": value, "count": field.count, "members": lengths(&field.members, bytes) })
}

fn lengths(members: &BTreeSet<Bytes>, bytes: &mut Vec<u8>) -> Vec<usize> {
    let member = |member: &Bytes| {
        bytes.extend_from_slice(member);
        member.len()
    };
    members.iter().map(member).collect()
}
