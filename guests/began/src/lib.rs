//! Says when it began: answers an event with an event whose data is the wall clock's nanoseconds since 1970, read first of
//! all, and whose subject is that of the event. Benchmarks measure with it how long an event is on its way to a function.

use kit_p2::Reply;
use wasip2::clocks::wall_clock;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wasip2::http::proxy::export!(Began);

struct Began;

impl wasip2::exports::http::incoming_handler::Guest for Began {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let now = wall_clock::now();
        let headers = request.headers();
        let text = |name: &str| String::from_utf8_lossy(&headers.get(name).pop().unwrap_or_default()).into_owned();
        let (id, subject) = (text("ce-id"), text("ce-subject"));
        let reply = Reply::start(out, 200, &[
            ("ce-specversion", "1.0"),
            ("ce-id", &id),
            ("ce-source", "/began"),
            ("ce-type", "began"),
            ("ce-subject", &subject),
            ("content-type", "application/json"),
        ]);
        let nanoseconds = u128::from(now.seconds) * 1_000_000_000 + u128::from(now.nanoseconds);
        let _ = reply.write(nanoseconds.to_string().as_bytes());
        reply.finish(None);
    }
}
