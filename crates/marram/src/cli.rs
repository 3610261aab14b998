//! What can be typed: the parser, the help, the completions and the reference page all derive from these types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cmd;

/// Runs WebAssembly functions at the edge: one binary, from the first line of code to a fleet.
#[derive(Parser, Debug)]
#[command(
    name = "marram",
    version,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Start here: marram new shop --template http-js && cd shop && marram up"
)]
pub(crate) struct Cli {
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every verb.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a new app from a template
    New(cmd::new::New),
    /// Run the builds of the manifest
    Build(cmd::build::Build),
    /// Build, serve, and swap on every save; Ctrl-C drains
    Up(cmd::up::Up),
    /// Run a node that functions are deployed to
    Node(cmd::node::Node),
    /// Deploy an app to a node, without a dropped request
    Deploy(cmd::deploy::Deploy),
    /// List the apps of a node, or show one
    Apps(cmd::apps::Apps),
    /// Send a request to one function and print its answer
    Invoke(cmd::invoke::Invoke),
    /// Show what functions have logged
    Logs(cmd::logs::Logs),
    /// Streams of events: list, follow, publish, replay, dead letters
    Stream(cmd::stream::Stream),
    /// Keys of buckets: get, set, list, watch
    Kv(cmd::kv::Kv),
    /// Objects of buckets: list, put, get, delete
    Blob(cmd::blob::Blob),
    /// MQTT clients: list, disconnect, hash a password
    Mqtt(cmd::mqtt::Mqtt),
    /// Show what functions have used
    Usage(cmd::usage::Usage),
    /// Go back to an earlier revision of an app
    Rollback(cmd::rollback::Rollback),
    /// Remove an app from a node
    Rm(cmd::rm::Rm),
    /// Set, list and remove the secrets of an app
    Secret(cmd::secret::Secret),
    /// Say which toolchains are there, and how to get the missing
    Doctor(cmd::doctor::Doctor),
    /// Print the completions of a shell
    Completions(cmd::completions::Completions),
    /// Compile stdin to stdout, for the node that starts this
    #[command(hide = true)]
    Compile(cmd::compile::Compile),
    /// Print a reference page of the book, as Markdown
    #[command(hide = true)]
    Reference(cmd::reference::Reference),
}

/// Which node to talk to.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Connection")]
pub(crate) struct NodeArgs {
    /// The admin API of the node
    #[arg(
        long,
        value_name = "URL",
        env = "MARRAM_NODE",
        default_value = "http://127.0.0.1:7070",
        hide_env_values = true
    )]
    pub(crate) node: String,
    /// The token that the node asks for
    #[arg(long, value_name = "TOKEN", env = "MARRAM_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificates (PEM) to trust besides the public ones
    #[arg(long, value_name = "FILE", env = "MARRAM_CA")]
    pub(crate) ca: Option<PathBuf>,
}

/// Which app's sources to work on.
#[derive(Args, Debug, Clone)]
pub(crate) struct ProjectArgs {
    /// The app's folder or its manifest; a folder without `marram.toml` means the nearest one above
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) path: PathBuf,
}

/// Data for people or for programs.
#[derive(Args, Debug, Clone, Copy)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `<app>/<function>`.
#[derive(Clone, Debug)]
pub(crate) struct FunctionPath {
    /// The app.
    pub(crate) app: marram_core::Name,
    /// The function in it.
    pub(crate) function: marram_core::Name,
}

impl std::str::FromStr for FunctionPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (app, function) = text.split_once('/').ok_or("write <app>/<function>, such as shop/price")?;
        let name = |text: &str| marram_core::Name::new(text).map_err(|error| error.to_string());
        Ok(Self { app: name(app)?, function: name(function)? })
    }
}
