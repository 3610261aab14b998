//! `marram secret`: values that functions read and nobody else sees. A value is never an argument: those are in the
//! shell's history and in every process list.

use std::io::{IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use marram_core::Name;
use marram_core::limits::VALUE_BYTES_MAX;
use marram_node::api::Secrets;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client, escape};
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, GREEN, paint};
use crate::signals::Signals;
use crate::table::{Column, table};
use crate::units;

/// Sets, lists and removes the secrets of an app.
#[derive(Args, Debug)]
pub(crate) struct Secret {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Set a secret to what comes on stdin, or is typed without an echo
    Set {
        /// The app
        app: Name,
        /// The secret
        #[arg(value_parser = parse_name)]
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// List the names of an app's secrets
    Ls {
        /// The app
        app: Name,
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Remove a secret
    Rm {
        /// The app
        app: Name,
        /// The secret
        #[arg(value_parser = parse_name)]
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

/// Does one of the three.
pub(crate) async fn run(args: &Secret) -> anyhow::Result<()> {
    match &args.action {
        Action::Set { app, name, node } => set(app, name, &Client::new(node)?).await,
        Action::Ls { app, json, node } => list(app, json.json, &Client::new(node)?).await,
        Action::Rm { app, name, node } => remove(app, name, &Client::new(node)?).await,
    }
}

async fn set(app: &Name, name: &str, client: &Client) -> anyhow::Result<()> {
    let value = value_of(name).await?;
    if value.is_empty() {
        return Err(Problem::new(Exit::Invalid, "the value is empty")
            .hint(format!("remove a secret with `marram secret rm {app} {name}`"))
            .into());
    }
    client.send(Method::PUT, &url(app, name), client::full(value)).await?.ok().await?;
    output::message(&format!("{} {} of {app}", paint(GREEN, "set"), paint(BOLD, name)));
    Ok(())
}

async fn list(app: &Name, json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.get(&format!("/v1/apps/{app}/secrets")).await?;
    if json {
        return Ok(output::json(&answer)?);
    }
    let list: Secrets = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if list.secrets.is_empty() {
        output::message(&format!("{app} has no secrets"));
        return Ok(());
    }
    let now = units::now_unix_ms();
    let rows = list.secrets.iter().map(|secret| {
        let readers: Vec<_> = secret.functions.iter().map(ToString::to_string).collect();
        vec![secret.name.clone(), units::ago(secret.updated_unix_ms, now), readers.join(", ")]
    });
    let columns = [Column::Left("SECRET"), Column::Right("SET"), Column::Left("READ BY")];
    Ok(output::line(&table(&columns, &rows.collect::<Vec<_>>()))?)
}

async fn remove(app: &Name, name: &str, client: &Client) -> anyhow::Result<()> {
    client.send(Method::DELETE, &url(app, name), client::empty()).await?.ok().await?;
    output::message(&format!("{} {} of {app}", paint(GREEN, "removed"), paint(BOLD, name)));
    Ok(())
}

/// An empty one would be no part of a URL. Of others, the node says what is wrong.
fn parse_name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("the name is empty") } else { Ok(text.to_owned()) }
}

fn url(app: &Name, name: &str) -> String {
    format!("/v1/apps/{app}/secrets/{}", escape(name))
}

/// What is typed, up to the line's end; or all of a pipe, without the line's end that `echo` adds.
async fn value_of(name: &str) -> anyhow::Result<String> {
    let mut value = if std::io::stdin().is_terminal() {
        let _ = write!(std::io::stderr(), "value of {name} (not shown): ");
        let mut signals = Signals::listen()?;
        let _silent = Silent::begin()?;
        // A Ctrl-C that ended the process at once would leave the terminal silent.
        tokio::select! {
            typed = tokio::task::spawn_blocking(|| std::io::stdin().lines().next().transpose()) => typed??.unwrap_or_default(),
            () = signals.next() => return Err(Problem::new(Exit::Interrupted, "nothing was set").into()),
        }
    } else {
        let mut piped = String::new();
        let limit = VALUE_BYTES_MAX as u64 + 3;
        let read = std::io::stdin().lock().take(limit).read_to_string(&mut piped);
        read.map_err(|error| {
            Problem::new(Exit::Invalid, format!("the value on stdin cannot be read as text: {error}"))
        })?;
        piped
    };
    let length = value.strip_suffix('\n').map_or(value.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)).len();
    value.truncate(length);
    if value.len() > VALUE_BYTES_MAX {
        return Err(Problem::new(Exit::Invalid, format!("the value has more than {VALUE_BYTES_MAX} bytes")).into());
    }
    Ok(value)
}

/// A terminal without echo, until this is dropped.
struct Silent(Termios);

impl Silent {
    fn begin() -> anyhow::Result<Self> {
        let before = tcgetattr(std::io::stdin()).context("cannot turn off the terminal's echo")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent).context("cannot turn off the terminal's echo")?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to put right.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
