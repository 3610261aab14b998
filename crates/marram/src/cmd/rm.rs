//! `marram rm`: an app leaves a node.

use clap::Args;
use http::Method;
use marram_core::Name;

use crate::cli::NodeArgs;
use crate::client::{self, Client};
use crate::output::{self, BOLD, GREEN, paint};

/// Removes an app from a node; requests in flight finish.
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// The app
    app: Name,
    #[command(flatten)]
    node: NodeArgs,
}

/// Removes it.
pub(crate) async fn run(args: &Rm) -> anyhow::Result<()> {
    let client = Client::new(&args.node)?;
    client.send(Method::DELETE, &format!("/v1/apps/{}", args.app), client::empty()).await?.ok().await?;
    output::message(&format!("{} {}", paint(GREEN, "removed"), paint(BOLD, &args.app)));
    Ok(())
}
