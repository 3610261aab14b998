//! `marram deploy`: components go to the node's store, then the node swaps to them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use http::{Method, StatusCode};
use marram_core::manifest::{Function, Manifest, On};
use marram_core::{Digest, Name};
use marram_node::api::{DeployRequest, Deployed};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;

use crate::cli::{JsonArgs, NodeArgs, ProjectArgs};
use crate::client::{self, Client};
use crate::output::{self, BOLD, DIM, GREEN, paint};
use crate::project::Project;
use crate::table::{Column, table};
use crate::{progress, stale};

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Deploys an app to a node. Requests in flight finish on the old revision.
#[derive(Args, Debug)]
pub(crate) struct Deploy {
    #[command(flatten)]
    project: ProjectArgs,
    /// Build what is older than its sources first
    #[arg(long)]
    build: bool,
    /// Check everything as a deployment would, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    node: NodeArgs,
}

/// Uploads what the node lacks, then deploys.
pub(crate) async fn run(args: &Deploy) -> anyhow::Result<()> {
    let project = Project::open(&args.project)?;
    if args.build {
        super::build::stale_ones(&project).await?;
    }
    if let Some(problem) = project.missing_component() {
        return Err(problem.into());
    }
    if !args.build {
        warn_of_stale(&project)?;
    }
    let client = Client::new(&args.node)?;
    let mut components = BTreeMap::new();
    for function in &project.manifest.functions {
        let digest = upload(&client, &function.name, &project.component(function)).await?;
        components.insert(function.name.clone(), digest);
    }
    let request = DeployRequest { manifest: project.text.clone(), components };
    let dry_run = args.dry_run.then(|| "true".to_owned());
    let path = client::with_query(&format!("/v1/apps/{}", project.manifest.app.name), &[("dry_run", dry_run)]);
    let waiting = progress::waiting(&format!("deploying {}", project.manifest.app.name));
    let request = serde_json::to_value(&request)?;
    let answer = client.call(Method::PUT, &path, &request);
    let answer = progress::patiently(answer, || waiting.note(&project.compiles())).await;
    drop(waiting);
    let answer = answer?;
    if args.json.json {
        return Ok(output::json(&answer)?);
    }
    let deployed: Deployed = serde_json::from_value(answer).context("the node's answer is of another version")?;
    let done = match (args.dry_run, deployed.unchanged) {
        (true, _) => "could deploy",
        (false, true) => "unchanged",
        (false, false) => "deployed",
    };
    show(&deployed, done)?;
    show_events(&project.manifest);
    Ok(())
}

/// What starts the app besides requests, or what it has instead of functions.
pub(super) fn show_events(manifest: &Manifest) {
    let events: Vec<_> = manifest.functions.iter().flat_map(Function::events).map(On::source).collect();
    if !events.is_empty() {
        output::message(&paint(DIM, format!("events: {}", events.join("  "))));
    }
    if manifest.functions.is_empty() {
        output::message(&paint(DIM, without_functions(manifest)));
    }
}

/// What an app has that has no functions.
pub(super) fn without_functions(manifest: &Manifest) -> String {
    let named = |what: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!("{what}: {}", names.join("  ")));
    let streams = named("streams", manifest.streams.keys().map(Name::as_str).collect());
    let buckets = named("buckets", manifest.buckets.keys().map(Name::as_str).collect());
    let parts = [Some("no functions".to_owned()), streams, buckets];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What a deployment or a roll-back did.
pub(crate) fn show(deployed: &Deployed, done: &str) -> anyhow::Result<()> {
    let instead = deployed.previous.filter(|previous| *previous != deployed.revision);
    let instead = instead.map_or(String::new(), |previous| paint(DIM, format!(" (before: {})", previous.short())));
    output::message(&format!(
        "{} {} {}{instead}",
        paint(GREEN, done),
        paint(BOLD, &deployed.app),
        deployed.revision.short()
    ));
    let rows = deployed.functions.iter().map(|function| {
        vec![function.name.to_string(), function.kind.clone(), function.instances.clone(), function.digest.short()]
    });
    let columns =
        [Column::Left("FUNCTION"), Column::Left("KIND"), Column::Left("INSTANCES"), Column::Left("COMPONENT")];
    if !deployed.functions.is_empty() {
        output::line(&table(&columns, &rows.collect::<Vec<_>>()))?;
    }
    if !deployed.routes.is_empty() {
        output::message(&paint(DIM, format!("routes: {}", deployed.routes.join("  "))));
    }
    Ok(())
}

fn warn_of_stale(project: &Project) -> anyhow::Result<()> {
    for function in &project.manifest.functions {
        let knows = function.build.as_ref().is_some_and(|build| !build.watch.is_empty());
        if knows && stale::is_stale(project, function)? {
            output::warning(&format!(
                "the component of {} is older than its sources: `--build` builds it first",
                function.name
            ));
        }
    }
    Ok(())
}

/// Sends the file unless the node has it, and returns its digest.
async fn upload(client: &Client, function: &Name, path: &Path) -> anyhow::Result<Digest> {
    let (digest, size) = digest_of(path).await?;
    let url = format!("/v1/blobs/{digest}");
    let known = client.send(Method::HEAD, &url, client::empty()).await?;
    if known.head().status() == StatusCode::OK {
        return Ok(digest);
    }
    if known.head().status() != StatusCode::NOT_FOUND {
        // A refusal has no text here, because HEAD has no body: the same with one says why.
        client.get("/v1/node").await?;
    }
    let file = tokio::fs::File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?;
    let body = progress::upload(file, size, &format!("uploading {function}"));
    let request = client.request(Method::PUT, &url).header(http::header::CONTENT_LENGTH, size).body(body)?;
    client
        .exchange(request)
        .await?
        .ok()
        .await
        .with_context(|| format!("cannot upload the component of {function}"))?
        .json()
        .await?;
    Ok(digest)
}

async fn digest_of(path: &Path) -> anyhow::Result<(Digest, u64)> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = tokio::fs::File::open(path).await.with_context(cannot)?;
    let (mut hasher, mut size, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk).await.with_context(cannot)? {
            0 => return Ok((Digest::from_bytes(hasher.finalize().into()), size)),
            length => {
                hasher.update(&chunk[..length]);
                size += length as u64;
            }
        }
    }
}
