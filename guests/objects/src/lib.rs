//! `wasi:blobstore`, a call a path. What a call gives is the answer, as text; what it refuses, the error.

use kit_p2::{Route, answer, answer_text, number};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", generate_all });
use wasi::blobstore::blobstore::{self, ObjectId};
use wasi::blobstore::container::Container;
use wasi::blobstore::types::{IncomingValue, OutgoingValue};
use wasi::io::streams::{OutputStream, StreamError};

wasip2::http::proxy::export!(Objects);

struct Objects;

/// What one write may carry.
const WRITE_BYTES_MAX: usize = 4096;

impl wasip2::exports::http::incoming_handler::Guest for Objects {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let route = Route::of(&request);
        match run(&route.segments()) {
            Ok(text) => answer_text(out, &text),
            Err(error) => answer(out, 400, "text/plain", &error),
        }
    }
}

fn run(path: &[&str]) -> Result<String, String> {
    let [bucket, call, rest @ ..] = path else { return Err("ask for /BUCKET/CALL/…".into()) };
    let id = |object: &&str| ObjectId { container: bucket.to_string(), object: object.to_string() };
    match (*call, rest) {
        ("create", []) => return blobstore::create_container(bucket)?.name(),
        ("drop", []) => return blobstore::delete_container(bucket).map(|()| "dropped".into()),
        ("is-there", []) => return Ok(blobstore::container_exists(bucket)?.to_string()),
        ("copy", [from, to]) => return blobstore::copy_object(&id(from), &id(to)).map(|()| "copied".into()),
        ("move", [from, to]) => return blobstore::move_object(&id(from), &id(to)).map(|()| "moved".into()),
        _ => {}
    }
    let container = blobstore::get_container(bucket)?;
    match (*call, rest) {
        // Named first, as most guests do it; after it was written; and never finished.
        ("put", [name, text]) => put(&container, name, text.as_bytes(), true).map(|()| "put".into()),
        ("put-late", [name, text]) => put(&container, name, text.as_bytes(), false).map(|()| "put".into()),
        ("abandon", [name]) => {
            let value = OutgoingValue::new_outgoing_value();
            container.write_data(name, &value)?;
            write(&value.outgoing_value_write_body().map_err(|()| "no body")?, b"half of it")?;
            Ok("abandoned".into())
        }
        ("unnamed", []) => {
            OutgoingValue::finish(OutgoingValue::new_outgoing_value()).map(|()| "it went somewhere".into())
        }
        ("big", [name, bytes]) => put(&container, name, &pattern(number(bytes)), true).map(|()| "put".into()),
        ("sum", [name]) => stream(container.get_data(name, 0, u64::MAX)?),
        ("get", [name]) => text(container.get_data(name, 0, u64::MAX)?),
        ("part", [name, start, end]) => text(container.get_data(name, number(start), number(end))?),
        ("has", [name]) => Ok(container.has_object(name)?.to_string()),
        ("info", [name]) => {
            let info = container.object_info(name)?;
            Ok(format!("{} {} {}", info.container, info.name, info.size))
        }
        ("delete", names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            container.delete_objects(&names).map(|()| "deleted".into())
        }
        ("clear", []) => container.clear().map(|()| "cleared".into()),
        // Two at a time, and the first ones skipped.
        ("list", [skip]) => {
            let names = container.list_objects()?;
            let (skipped, mut ended) = names.skip_stream_object_names(number(skip))?;
            let mut all = vec![format!("{skipped} skipped")];
            while !ended {
                let page = names.read_stream_object_names(2)?;
                all.extend(page.0);
                ended = page.1;
            }
            Ok(all.join(" "))
        }
        _ => Err("there is no such call".into()),
    }
}

fn put(container: &Container, name: &str, bytes: &[u8], first: bool) -> Result<(), String> {
    let value = OutgoingValue::new_outgoing_value();
    if first {
        container.write_data(name, &value)?;
    }
    let body = value.outgoing_value_write_body().map_err(|()| "no body")?;
    write(&body, bytes)?;
    if !first {
        container.write_data(name, &value)?;
    }
    drop(body);
    OutgoingValue::finish(value)
}

fn write(body: &OutputStream, bytes: &[u8]) -> Result<(), String> {
    bytes.chunks(WRITE_BYTES_MAX).try_for_each(|chunk| {
        body.blocking_write_and_flush(chunk).map_err(|error| match error {
            StreamError::LastOperationFailed(error) => error.to_debug_string(),
            StreamError::Closed => "closed".into(),
        })
    })
}

fn text(value: IncomingValue) -> Result<String, String> {
    let size = value.size();
    let bytes = IncomingValue::incoming_value_consume_sync(value)?;
    Ok(format!("{size}: {}", String::from_utf8_lossy(&bytes)))
}

/// Reads it as a stream; says how much it was, and whether it is the pattern.
fn stream(value: IncomingValue) -> Result<String, String> {
    let stream = IncomingValue::incoming_value_consume_async(value)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(format!("{error:?}")),
        }
    }
    Ok(format!("{} {}", bytes.len(), bytes == pattern(bytes.len() as u64)))
}

fn pattern(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 256) as u8).collect()
}
