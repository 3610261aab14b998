//! The leanest handler for WASI 0.3: one text answer, straight on the bindings. Benchmarks measure the host with it.

use wasip3_0_3_0 as wasip3;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Hello with_types_in wasip3);

struct Hello;

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let headers = Fields::new();
        let _ = headers.append("content-type", b"text/plain");
        let (mut body, contents) = wit_stream::new();
        let (_, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(headers, Some(contents), no_trailers);
        wit_bindgen::spawn_local(async move {
            body.write_all(b"Hello from Marram".to_vec()).await;
        });
        Ok(response)
    }
}
