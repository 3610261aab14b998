//! The state of a node, a call a path: `wasi:keyvalue` (second draft) at `/kv/BUCKET/…`, `marram:keyvalue` and `marram:crdt` at
//! `/expiring/…`, `/counter/…`, `/set/…`, `/map/…`, what publishes at `/send/…`, `/publish/…` and `/mqtt/…`. What a call gives is
//! the answer, as text; what it refuses, the error. `/bench/get/COUNT/KEYS`,
//! `/bench/set/COUNT/KEYS` and `/bench/fill/FROM/TO` make many of them.

use kit_p2::{Route, answer, answer_text, number};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", generate_all });

mod keys;
mod publishing;

wasip2::http::proxy::export!(State);

struct State;

impl wasip2::exports::http::incoming_handler::Guest for State {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let route = Route::of(&request);
        let given = match route.segments()[..] {
            ["kv", bucket, ref rest @ ..] => keys::kv(bucket, rest),
            ["expiring", bucket, ref rest @ ..] => keys::expiring(bucket, rest),
            ["counter", bucket, ref rest @ ..] => keys::counter(bucket, rest),
            ["set", bucket, ref rest @ ..] => keys::set(bucket, rest),
            ["map", bucket, ref rest @ ..] => keys::map(bucket, rest),
            ["hoard", count, bytes] => publishing::hoard(number(count), number(bytes)),
            ["send", client, topic, data] => publishing::send(client, topic, data),
            ["publish", stream, ref subjects @ ..] => publishing::publish(stream, subjects),
            ["mqtt", ref rest @ .., payload] => publishing::mqtt(&rest.join("/"), payload),
            ["bench", "get", count, of] => keys::bench_get(number(count), number(of)),
            ["bench", "set", count, of] => keys::bench_set(number(count), number(of)),
            ["bench", "fill", from, to] => keys::bench_fill(number(from), number(to)),
            _ => Err("there is no such call".into()),
        };
        match given {
            Ok(text) => answer_text(out, &text),
            Err(error) => answer(out, 400, "text/plain", &error),
        }
    }
}

/// What a call gives, as text.
type Given = Result<String, String>;

fn refused(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
