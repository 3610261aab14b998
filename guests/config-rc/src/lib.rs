//! Reads the function's configuration through `wasi:config` (0.2.0-rc.1): `/config` answers all of it, `/config/KEY` one value.

use kit_p2::{Route, answer, answer_json, answer_text, json_pairs};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", generate_all });
use wasi::config::store;

wasip2::http::proxy::export!(Config);

struct Config;

impl wasip2::exports::http::incoming_handler::Guest for Config {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match Route::of(&request).segments()[..] {
            ["config"] => match store::get_all() {
                Ok(pairs) => answer_json(out, &json_pairs(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())))),
                Err(error) => answer(out, 500, "text/plain", &format!("{error:?}\n")),
            },
            ["config", key] => match store::get(key) {
                Ok(Some(value)) => answer_text(out, &value),
                Ok(None) => answer(out, 404, "text/plain", "no such key\n"),
                Err(error) => answer(out, 500, "text/plain", &format!("{error:?}\n")),
            },
            _ => answer(out, 404, "text/plain", "ask for /config or /config/KEY\n"),
        }
    }
}
