//! `marram node`: a node that runs on, and that apps are deployed to.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use marram_node::{MqttConfig, NodeConfig, S3Config};
use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Problem};
use crate::serving;
use crate::signals::Signals;

/// Runs a node that functions are deployed to. Once it serves, it prints one `name=url` a line on stdout.
#[derive(Args, Debug)]
pub(crate) struct Node {
    /// The node's configuration; what follows overrides it
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenArgs,
    /// What to log: a level, or `target=level,…`
    #[arg(long, value_name = "FILTER", env = "MARRAM_LOG", default_value = "info")]
    log: String,
    /// How to log
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// Where a node listens, and where it keeps what it keeps.
#[derive(Args, Debug)]
pub(crate) struct ListenArgs {
    /// Where functions are served; port 0 takes a free one [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
    /// Where the admin API is served; port 0 takes a free one [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(crate) admin: Option<SocketAddr>,
    /// Where MQTT devices connect; port 0 takes a free one, `off` none [default: off; with `marram up` and an app that uses
    /// MQTT, 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) mqtt: Option<Listen>,
    /// Where clients of S3 connect; port 0 takes a free one, `off` none [default: off; with `marram up` and an app that uses
    /// objects, 127.0.0.1:9000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) s3: Option<Listen>,
    /// The folder of everything that the node keeps [default: .marram]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// Where something listens, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// There.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            Ok(Self::Off)
        } else {
            address(text).map(Self::At).map_err(|why| format!("{why}, or `off`"))
        }
    }
}

/// The first part of an address is not guessed: it says who can connect.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write address and port, such as 127.0.0.1:3000".to_owned())
}

impl Listen {
    /// What was said on the command line goes before the configuration.
    fn or(said: Option<Self>, configured: Option<SocketAddr>) -> Option<SocketAddr> {
        match said {
            Some(Self::At(address)) => Some(address),
            Some(Self::Off) => None,
            None => configured,
        }
    }
}

/// How the node's own log is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

impl ListenArgs {
    /// `config` with what was given on the command line.
    pub(crate) fn apply(&self, config: NodeConfig) -> NodeConfig {
        NodeConfig {
            listen: self.listen.unwrap_or(config.listen),
            admin: self.admin.unwrap_or(config.admin),
            mqtt: MqttConfig { listen: Listen::or(self.mqtt, config.mqtt.listen), ..config.mqtt },
            s3: S3Config { listen: Listen::or(self.s3, config.s3.listen), ..config.s3 },
            state: self.state.clone().unwrap_or(config.state.clone()),
            ..config
        }
    }
}

/// Starts it, says where it listens, and drains it after a signal.
pub(crate) async fn run(args: &Node) -> anyhow::Result<Exit> {
    begin_log(&args.log, args.log_format)?;
    let config = match &args.config {
        Some(path) => NodeConfig::read(path).map_err(|error| {
            let cause = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
            let is_missing = cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::NotFound);
            let problem = |exit| Problem::new(exit, format!("{error:#}"));
            match cause {
                Some(_) if is_missing => problem(Exit::NotFound)
                    .hint("write that file, or name another; without `--config`, a node has its defaults"),
                Some(_) => problem(Exit::Invalid).hint("let the user that the node runs as read it"),
                None => problem(Exit::Invalid),
            }
        })?,
        None => NodeConfig::default().with_environment()?,
    };
    let mut signals = Signals::listen()?;
    let node = serving::start(args.listen.apply(config)).await?;
    node.announce()?;
    signals.next().await;
    Ok(node.drain(&mut signals).await)
}

/// The node's own log goes to stderr. What functions log does not: `marram logs` shows that.
pub(crate) fn begin_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let wrong = |error| {
        Problem::new(Exit::Usage, format!("{filter:?} is not a log filter: {error}"))
            .hint("write --log info, or --log warn,marram_node=debug")
    };
    let filter = EnvFilter::try_new(filter).map_err(wrong)?;
    // It calls every request that is refused an error: what is one, this program says itself.
    let filter = filter.add_directive("s3s=off".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(anstream::stderr);
    let begun = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("the log cannot begin: {error}"))
}
