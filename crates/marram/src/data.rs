//! `--data`: text, `@file`, or `@-` for stdin, as the body of a request.

use std::path::Path;

use anyhow::Context as _;

use crate::client::{self, Body};
use crate::progress;

/// The body; nothing if nothing was given.
pub(crate) async fn body(data: Option<&str>) -> anyhow::Result<Body> {
    match data.map(|data| data.strip_prefix('@').ok_or(data)) {
        None => Ok(client::empty()),
        Some(Err(text)) => Ok(client::full(text.to_owned())),
        Some(Ok("-")) => Ok(progress::stdin()),
        Some(Ok(path)) => {
            let file = tokio::fs::File::open(Path::new(path)).await.with_context(|| format!("cannot open {path}"))?;
            let size = file.metadata().await.with_context(|| format!("cannot read {path}"))?.len();
            Ok(progress::upload(file, size, &format!("sending {path}")))
        }
    }
}
