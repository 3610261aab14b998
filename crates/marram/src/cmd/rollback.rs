//! `marram rollback`: an earlier revision of an app serves again.

use anyhow::Context as _;
use clap::Args;
use http::Method;
use marram_core::Name;
use marram_core::manifest::Manifest;
use marram_node::api::{AppView, Deployed, RollbackRequest};

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
    super::deploy::show(&deployed, if deployed.unchanged { "unchanged" } else { "rolled back" })?;
    if let Some(manifest) = manifest(&client, &deployed).await {
        super::deploy::show_events(&manifest);
    }
    Ok(())
}

/// What the revision says, which the answer to a roll-back does not have. That it cannot be read is no failure: the roll-back
/// is done.
async fn manifest(client: &Client, deployed: &Deployed) -> Option<Manifest> {
    let app = client.get(&format!("/v1/apps/{}", deployed.app)).await.ok()?;
    let app: AppView = serde_json::from_value(app).ok()?;
    (app.revision == deployed.revision).then(|| Manifest::parse(&app.manifest).ok()).flatten()
}
