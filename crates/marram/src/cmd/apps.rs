//! `marram apps`: what is deployed on a node.

use anyhow::Context as _;
use clap::Args;
use marram_core::Name;
use marram_core::manifest::{Function, Manifest, On};
use marram_node::api::{AppState, AppView, Apps as AppList, FunctionStatus, Revisions};

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::Client;
use crate::output::{self, BOLD, DIM, GREEN, RED, paint};
use crate::table::{Column, table};
use crate::units;

/// Revisions that are shown; `--json` has all that the node keeps.
const REVISIONS_SHOWN: usize = 10;

/// Lists the apps of a node, or shows one with its functions and revisions.
#[derive(Args, Debug)]
pub(crate) struct Apps {
    /// Show this app
    app: Option<Name>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Asks and prints.
pub(crate) async fn run(args: &Apps) -> anyhow::Result<()> {
    let client = Client::new(&args.node)?;
    match &args.app {
        None => list(&client, args.json.json).await,
        Some(app) => one(&client, app, args.json.json).await,
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get("/v1/apps").await?;
    if json {
        return Ok(output::json(&answer)?);
    }
    let list: AppList = read(answer)?;
    if list.apps.is_empty() {
        output::message("no apps yet");
        output::hint("deploy one with `marram deploy`");
        return Ok(());
    }
    let now = units::now_unix_ms();
    let rows = list.apps.iter().map(|app| {
        let functions: Vec<_> = app.functions.iter().map(ToString::to_string).collect();
        let deployed = units::ago(app.deployed_unix_ms, now);
        vec![
            app.app.to_string(),
            state(app.state),
            version(app.version.as_ref()),
            app.revision.short(),
            deployed,
            functions.join(", "),
        ]
    });
    let columns = [
        Column::Left("APP"),
        Column::Left("STATE"),
        Column::Left("VERSION"),
        Column::Left("REVISION"),
        Column::Right("DEPLOYED"),
        Column::Left("FUNCTIONS"),
    ];
    output::line(&table(&columns, &rows.collect::<Vec<_>>()))?;
    Ok(())
}

async fn one(client: &Client, app: &Name, json: bool) -> anyhow::Result<()> {
    let mut answer = client.get(&format!("/v1/apps/{app}")).await?;
    let revisions = client.get(&format!("/v1/apps/{app}/revisions")).await?;
    if json {
        answer["revisions"] = revisions["revisions"].clone();
        return Ok(output::json(&answer)?);
    }
    let app: AppView = read(answer)?;
    let revisions: Revisions = read(revisions)?;
    let now = units::now_unix_ms();
    let deployed = paint(DIM, format!("deployed {}", units::ago(app.deployed_unix_ms, now)));
    output::line(&format!(
        "{} {} {} {deployed}",
        paint(BOLD, &app.app),
        version(app.version.as_ref()),
        state(app.state)
    ))?;
    if let Some(error) = &app.error {
        output::error(error);
    }
    output::line("")?;
    match Manifest::parse(&app.manifest) {
        Ok(manifest) if app.functions.is_empty() => {
            output::line(&super::deploy::without_functions(&manifest))?;
        }
        manifest => output::line(&functions(&app, manifest.ok().as_ref()))?,
    }
    output::line("")?;
    output::line(&history(&revisions, now))?;
    Ok(())
}

fn functions(app: &AppView, manifest: Option<&Manifest>) -> String {
    let rows = app.functions.iter().map(|function| {
        let written = manifest.and_then(|manifest| manifest.function(function.name.as_str()));
        let events = written.into_iter().flat_map(Function::events).map(On::source);
        let triggers: Vec<_> = function.routes.iter().cloned().chain(events).collect();
        let triggers = if triggers.is_empty() { "-".to_owned() } else { triggers.join("\n") };
        vec![
            function.name.to_string(),
            function.kind.clone(),
            function.instances.clone(),
            doing(function.status.as_ref()),
            triggers,
        ]
    });
    let columns = [
        Column::Left("FUNCTION"),
        Column::Left("KIND"),
        Column::Left("INSTANCES"),
        Column::Left("NOW"),
        Column::Left("TRIGGERS"),
    ];
    table(&columns, &rows.collect::<Vec<_>>())
}

fn history(revisions: &Revisions, now: u64) -> String {
    let rows = revisions.revisions.iter().take(REVISIONS_SHOWN).map(|revision| {
        let deployed = units::ago(revision.deployed_unix_ms, now);
        let current = if revision.current { paint(GREEN, "serving") } else { String::new() };
        vec![revision.revision.short(), version(revision.version.as_ref()), deployed, current]
    });
    let columns = [Column::Left("REVISION"), Column::Left("VERSION"), Column::Right("DEPLOYED"), Column::Left("")];
    table(&columns, &rows.collect::<Vec<_>>())
}

/// `2 run, 1 idle`, or `asleep` where the code is not even in memory.
fn doing(status: Option<&FunctionStatus>) -> String {
    match status {
        None => "-".into(),
        Some(status) if !status.mapped => "asleep".into(),
        Some(status) if status.queued > 0 => format!("{} run, {} wait", status.running, status.queued),
        Some(status) => format!("{} run, {} idle", status.running, status.idle),
    }
}

fn state(state: AppState) -> String {
    match state {
        AppState::Ready => paint(GREEN, "ready"),
        AppState::Failed => paint(RED, "failed"),
    }
}

fn version(version: Option<&String>) -> String {
    version.cloned().unwrap_or_else(|| "-".into())
}

fn read<T: serde::de::DeserializeOwned>(answer: serde_json::Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).context("the node's answer is of another version")
}
