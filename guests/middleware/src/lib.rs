//! A handler in front of a handler, to be composed with one: it answers `/closed` itself and hands the rest on.

use wasip2::http::types::{Fields, IncomingRequest, OutgoingResponse, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", with: { "wasi:http/types@0.2.12": wasip2::http::types }, generate_all });
use wasi::http::incoming_handler as next;

wasip2::http::proxy::export!(Middleware);

struct Middleware;

impl wasip2::exports::http::incoming_handler::Guest for Middleware {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        if request.path_with_query().is_some_and(|path| path.starts_with("/closed")) {
            let response = OutgoingResponse::new(Fields::new());
            response.set_status_code(403).expect("403 is a status");
            return ResponseOutparam::set(out, Ok(response));
        }
        next::handle(request, out);
    }
}
