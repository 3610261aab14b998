//! `marram up`: build, serve, and swap on every save.

use clap::Args;
use http::Method;
use marram_core::Name;
use marram_node::api::{AppState, Apps};
use marram_node::{NodeConfig, OwnS3Key};

use super::node::{self, ListenArgs, LogFormat};
use crate::cli::ProjectArgs;
use crate::client::{self, Answer, Client};
use crate::exit::Exit;
use crate::log_line::LogLine;
use crate::project::Project;
use crate::serving;
use crate::session::{Screen, Session};
use crate::signals::Signals;
use crate::wants::Wants;
use crate::watch::Watch;

/// Builds an app, serves it, and swaps to what was saved. A build that fails leaves the last revision serving. Once
/// it serves, it prints one `name=url` a line on stdout; what the functions log goes to stderr. An app that uses MQTT or
/// objects gets a listener for that, too, which only this machine reaches.
#[derive(Args, Debug)]
pub(crate) struct Up {
    #[command(flatten)]
    project: ProjectArgs,
    #[command(flatten)]
    listen: ListenArgs,
    /// What the node itself logs: a level, or `target=level,…`
    #[arg(long, value_name = "FILTER", env = "MARRAM_LOG", default_value = "warn")]
    log: String,
}

/// Serves until a signal, then drains.
pub(crate) async fn run(args: &Up) -> anyhow::Result<Exit> {
    node::begin_log(&args.log, LogFormat::Text)?;
    let project = Project::open(&args.project)?;
    if let Some(problem) = project.missing_source() {
        return Err(problem.into());
    }
    let state = project.state();
    if args.listen.state.is_none() {
        keep_out_of_git(&state)?;
    }
    let mut signals = Signals::listen()?;
    let wants = Wants::of(&project.manifest);
    let config = NodeConfig { state, keeps_functions: true, ..wants.listeners(&args.listen) };
    let serving = serving::start(args.listen.apply(config)).await?;
    let ended = tokio::select! {
        ended = serve(project, wants.or_said(&args.listen), &serving) => ended,
        () = signals.next() => Ok(()),
    };
    let exit = serving.drain(&mut signals).await;
    ended.map(|()| exit)
}

/// Never ends, unless something is broken that no save repairs.
async fn serve(project: Project, mut wants: Wants, serving: &serving::Serving) -> anyhow::Result<()> {
    let client = Client::local(serving.node.admin_addr(), None)?;
    let is_there = remove_others(&client, &project.manifest.app.name).await?;
    let mut logs = Some(client.send(Method::GET, "/v1/logs?follow=true", client::empty()).await?.ok().await?);
    let client = Client::local(serving.node.admin_addr(), None)?;
    let mut watch = Watch::new()?;
    let mut session =
        Session::new(project, std::sync::Arc::clone(&serving.node), Screen::new(serving.http()), is_there)?;
    watch.follow(session.inputs().folders(), session.inputs().matters())?;
    for function in session.inputs().unwatched() {
        session
            .screen()
            .note(&format!("{} has a build without `watch`: saving a file does not build it again", function.name));
    }
    let mut announced = false;
    loop {
        if !announced && session.is_settled() {
            serving.announce()?;
            session.screen().listeners(serving.node.urls(), own_key(serving).as_ref());
            announced = true;
        }
        let name = session.inputs().project().manifest.app.name.clone();
        tokio::select! {
            () = session.step() => {}
            line = next_line(&mut logs) => match line {
                Some(line) => session.screen().line(&line),
                None => logs = None,
            },
            change = watch.changed() => {
                session.changed(&change);
                watch.follow(session.inputs().folders(), session.inputs().matters())?;
                let now = &session.inputs().project().manifest.app.name;
                if *now != name {
                    remove_others(&client, now).await?;
                }
                let want = Wants::of(&session.inputs().project().manifest);
                if wants.grow(want) {
                    session.screen().note("the app has come to use MQTT or objects: start `marram up` again for a listener");
                }
            }
        }
    }
}

/// The key that the node has made for its S3 API, if that listens.
fn own_key(serving: &serving::Serving) -> Option<OwnS3Key> {
    let listens = serving.node.urls().iter().any(|(name, _)| *name == "s3");
    listens.then(|| marram_node::own_s3_key(&serving.state).ok()).flatten()
}

/// The next log line, for people; never, where the log has ended.
async fn next_line(logs: &mut Option<Answer>) -> Option<String> {
    match logs {
        None => std::future::pending().await,
        Some(answer) => answer.line().await.ok().flatten().map(|line| LogLine::parse(&line).pretty(false)),
    }
}

/// The state belongs to one app: what it was called before would keep its routes. Says whether the app itself
/// serves.
async fn remove_others(client: &Client, keep: &Name) -> anyhow::Result<bool> {
    let apps = client.get("/v1/apps").await?;
    let apps: Apps = serde_json::from_value(apps)?;
    for other in apps.apps.iter().filter(|app| app.app != *keep) {
        client.send(Method::DELETE, &format!("/v1/apps/{}", other.app), client::empty()).await?.ok().await?;
    }
    Ok(apps.apps.iter().any(|app| app.app == *keep && app.state == AppState::Ready))
}

fn keep_out_of_git(state: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;

    use anyhow::Context as _;
    let write = || {
        // As the node would make it: for its owner only.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state)?;
        let ignore = state.join(".gitignore");
        if ignore.exists() { Ok(()) } else { std::fs::write(ignore, "*\n") }
    };
    write().with_context(|| format!("cannot make {}", state.display()))
}
