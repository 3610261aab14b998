//! An HTTP function.

use wstd::http::{Body, Request, Response, Result};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>> {
    let path = request.uri().path();
    Ok(Response::new(format!("Hello from Rust at {path}\n").into()))
}
