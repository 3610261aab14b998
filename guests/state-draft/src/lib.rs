//! The first draft of `wasi:keyvalue`, a call a path. What a call gives is the answer, as text; what it refuses, the error.

use kit_p2::{Route, answer, answer_text};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", generate_all });
use wasi::keyvalue::store::{Error, open};
use wasi::keyvalue::{atomics, batch};

wasip2::http::proxy::export!(State);

struct State;

impl wasip2::exports::http::incoming_handler::Guest for State {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let route = Route::of(&request);
        match run(&route.segments()) {
            Ok(text) => answer_text(out, &text),
            Err(error) => answer(out, 400, "text/plain", &format!("{error:?}")),
        }
    }
}

fn run(path: &[&str]) -> Result<String, Error> {
    let [bucket, call, rest @ ..] = path else { return Ok("ask for /BUCKET/CALL/…".into()) };
    let bucket = open(bucket)?;
    match (*call, rest) {
        ("get", [key]) => Ok(format!("{:?}", bucket.get(key)?.map(text))),
        ("set", [key, value]) => bucket.set(key, value.as_bytes()).map(|()| "set".into()),
        ("delete", [key]) => bucket.delete(key).map(|()| "deleted".into()),
        ("exists", [key]) => Ok(bucket.exists(key)?.to_string()),
        ("increment", [key, delta]) => Ok(atomics::increment(&bucket, key, number(delta))?.to_string()),
        ("set-many", keys) => {
            let entries: Vec<_> = keys.iter().map(|key| (key.to_string(), b"many".to_vec())).collect();
            batch::set_many(&bucket, &entries).map(|()| "set".into())
        }
        // Every key, page by page.
        ("count", []) => {
            let (mut count, mut pages, mut cursor) = (0, 0, None);
            loop {
                let page = bucket.list_keys(cursor)?;
                (count, pages) = (count + page.keys.len(), pages + 1);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok(format!("{count} keys in {pages} pages"));
                }
            }
        }
        ("list-from", [cursor]) => Ok(format!("{:?}", bucket.list_keys(Some(number(cursor)))?.keys)),
        _ => Ok("there is no such call".into()),
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
