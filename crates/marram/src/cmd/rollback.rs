//! `marram rollback`: an earlier revision of an app serves again.

use anyhow::Context as _;
use clap::Args;
use http::Method;
use marram_core::Name;
use marram_node::api::{Deployed, RollbackRequest};

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::Client;
use crate::output;

/// Goes back to an earlier revision of an app. `marram apps <app>` lists those that are kept.
#[derive(Args, Debug)]
pub(crate) struct Rollback {
    /// The app
    app: Name,
    /// The revision, or a beginning of it that only one has; if left out, the one before
    revision: Option<String>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Goes back.
pub(crate) async fn run(args: &Rollback) -> anyhow::Result<()> {
    let client = Client::new(&args.node)?;
    let request = serde_json::to_value(RollbackRequest { revision: args.revision.clone() })?;
    let answer = client.call(Method::POST, &format!("/v1/apps/{}/rollback", args.app), &request).await?;
    if args.json.json {
        return Ok(output::json(&answer)?);
    }
    let deployed: Deployed = serde_json::from_value(answer).context("the node's answer is of another version")?;
    super::deploy::show(&deployed, if deployed.unchanged { "unchanged" } else { "rolled back" })
}
