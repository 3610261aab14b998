//! `--data`: text, `@file`, or `@-` for stdin, as the body of a request.

use crate::client::{self, Body};
use crate::progress;

/// The body; nothing if nothing was given.
pub(crate) async fn body(data: Option<&str>) -> anyhow::Result<Body> {
    match data.map(|data| data.strip_prefix('@').ok_or(data)) {
        None => Ok(client::empty()),
        Some(Err(text)) => Ok(client::full(text.to_owned())),
        Some(Ok("-")) => Ok(progress::stdin()),
        Some(Ok(path)) => {
            let (file, size) = progress::open(path).await?;
            Ok(progress::upload(file, size, &format!("sending {path}")))
        }
    }
}
