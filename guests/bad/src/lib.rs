//! Every way for a WASI 0.2 guest to misbehave, one a path. Only what the host does about it is of interest.

mod greed;

use kit_p2::{Reply, Route, answer, answer_text, number, sleep_ms};
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wasip2::http::proxy::export!(Bad);

struct Bad;

impl wasip2::exports::http::incoming_handler::Guest for Bad {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match Route::of(&request).segments()[..] {
            // Takes the CPU.
            ["loop"] => greed::spin(),
            ["cpu", ms] => {
                greed::burn_ms(number(ms));
                answer_text(out, "burnt\n");
            }
            // Takes what is limited.
            ["alloc"] => greed::allocate(),
            ["recurse"] => answer_text(out, &format!("depth {}\n", greed::recurse(0))),
            ["handles"] => greed::open_handles(),
            ["log-flood"] => greed::flood_the_log(),
            ["big-headers"] => greed::send_big_headers(out),
            // Breaks off.
            ["trap"] => std::process::abort(),
            ["trap-after-headers"] => {
                let _ = Reply::start(out, 200, &[]).write(b"before the trap\n");
                std::process::abort();
            }
            ["panic"] => panic!("this guest panics when it is asked to"),
            ["exit", code] => std::process::exit(number(code) as i32),
            ["no-response"] => drop(out),
            // Takes its time.
            ["never"] => sleep_forever(),
            ["never-end"] => {
                let reply = Reply::start(out, 200, &[]);
                let _ = reply.write(b"the first chunk is the last\n");
                sleep_forever();
                reply.finish(None);
            }
            ["sleep", ms] => {
                sleep_ms(number(ms));
                answer_text(out, "slept\n");
            }
            // And, for once, behaves: to see that the next request is served.
            ["ok"] => answer_text(out, "ok\n"),
            _ => answer(out, 404, "text/plain", "nothing bad has that name\n"),
        }
    }
}

fn sleep_forever() {
    loop {
        sleep_ms(3_600_000);
    }
}
