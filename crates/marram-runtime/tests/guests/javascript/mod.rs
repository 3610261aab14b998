//! JavaScript as source: what it can do, how its instances are shared, and which limits hold.

mod instances;
mod limits;
mod memories;
mod outbound;
mod standards;
mod web;

use marram_core::Failure;

use crate::host::Host;

/// One function from this source, with more of its manifest.
async fn try_script(source: &str, more: &str) -> Result<Host, Failure> {
    let functions = format!("[[function]]\nname = \"f\"\ncomponent = \"src/index.js\"\n{more}\n");
    Host::try_sources(&functions, &[("src/index.js", source)]).await
}

async fn script(source: &str, more: &str) -> Host {
    try_script(source, more).await.unwrap_or_else(|failure| panic!("{failure:?}"))
}
