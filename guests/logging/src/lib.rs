//! Logs through `wasi:logging`: one line a level at `/log`, one line of a chosen level at `/log/LEVEL/MESSAGE`.

use kit_p2::{Route, answer, answer_text};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", generate_all });
use wasi::logging::logging::{Level, log};

const LEVELS: [(&str, Level); 6] = [
    ("trace", Level::Trace),
    ("debug", Level::Debug),
    ("info", Level::Info),
    ("warn", Level::Warn),
    ("error", Level::Error),
    ("critical", Level::Critical),
];

wasip2::http::proxy::export!(Logging);

struct Logging;

impl wasip2::exports::http::incoming_handler::Guest for Logging {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match Route::of(&request).segments()[..] {
            ["log"] => {
                for (name, level) in LEVELS {
                    log(level, "probe", &format!("a line at {name}"));
                }
                answer_text(out, "logged\n");
            }
            ["log", wanted, message] => match LEVELS.into_iter().find(|(name, _)| *name == wanted) {
                Some((_, level)) => {
                    log(level, "", message);
                    answer_text(out, "logged\n");
                }
                None => answer(out, 400, "text/plain", "no such level\n"),
            },
            _ => answer(out, 404, "text/plain", "ask for /log or /log/LEVEL/MESSAGE\n"),
        }
    }
}
