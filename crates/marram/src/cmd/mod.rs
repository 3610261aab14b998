//! One file a verb: its arguments, and what it does.

pub(crate) mod apps;
pub(crate) mod blob;
pub(crate) mod build;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod invoke;
pub(crate) mod kv;
pub(crate) mod logs;
pub(crate) mod mqtt;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod reference;
pub(crate) mod rm;
pub(crate) mod rollback;
pub(crate) mod secret;
pub(crate) mod stream;
pub(crate) mod up;
pub(crate) mod usage;

use crate::cli::{Cli, Command};
use crate::exit::Exit;

/// Runs the verb.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::New(args) => new::run(&args)?,
        Command::Build(args) => build::run(&args).await?,
        Command::Up(args) => return up::run(&args).await,
        Command::Node(args) => return node::run(&args).await,
        Command::Deploy(args) => deploy::run(&args).await?,
        Command::Apps(args) => apps::run(&args).await?,
        Command::Invoke(args) => return invoke::run(&args).await,
        Command::Logs(args) => logs::run(&args).await?,
        Command::Stream(args) => stream::run(&args).await?,
        Command::Kv(args) => kv::run(&args).await?,
        Command::Blob(args) => blob::run(&args).await?,
        Command::Mqtt(args) => mqtt::run(&args).await?,
        Command::Usage(args) => usage::run(&args).await?,
        Command::Rollback(args) => rollback::run(&args).await?,
        Command::Rm(args) => rm::run(&args).await?,
        Command::Secret(args) => secret::run(&args).await?,
        Command::Doctor(args) => return doctor::run(&args).await,
        Command::Completions(args) => completions::run(&args)?,
        Command::Compile(args) => compile::run(&args)?,
        Command::Reference(args) => reference::run(&args)?,
    }
    Ok(Exit::Done)
}
