//! An HTTP function. One instance serves many requests at a time: while one waits, others go on.

use http::Response;
use wasip3::http::types::{self, ErrorCode};
use wasip3::http_compat::{Request, http_from_wasi_request, http_into_wasi_response};

wasip3::http::service::export!(Function);

struct Function;

impl wasip3::exports::http::handler::Guest for Function {
    async fn handle(request: types::Request) -> Result<types::Response, ErrorCode> {
        let response = answer(http_from_wasi_request(request)?).await?;
        http_into_wasi_response(response)
    }
}

async fn answer(request: Request) -> Result<Response<String>, ErrorCode> {
    let path = request.uri().path();
    Ok(Response::new(format!("Hello from async Rust at {path}\n")))
}
