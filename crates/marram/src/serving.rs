//! A node in this process: start, say where it listens, drain.

use std::path::PathBuf;
use std::sync::Arc;

use marram_node::{Node, NodeConfig};

use crate::cmd::compile;
use crate::exit::Exit;
use crate::output::{self, DIM, paint};
use crate::signals::Signals;

/// A node that serves.
pub(crate) struct Serving {
    /// The node itself.
    pub(crate) node: Arc<Node>,
    /// The folder of everything that it keeps.
    pub(crate) state: PathBuf,
    admin_scheme: &'static str,
}

/// Starts a node.
pub(crate) async fn start(config: NodeConfig) -> anyhow::Result<Serving> {
    let admin_scheme = if config.admin_tls.is_some() { "https" } else { "http" };
    let config = NodeConfig { compiler: compile::compiler(), ..config };
    let state = config.state.clone();
    Ok(Serving { node: Arc::new(Node::start(config).await?), state, admin_scheme })
}

impl Serving {
    /// Where functions are served.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.node.http_addr())
    }

    /// One `name=url` a line on stdout, for scripts that wait.
    pub(crate) fn announce(&self) -> anyhow::Result<()> {
        let more: String = self.node.urls().iter().map(|(name, url)| format!("\n{name}={url}")).collect();
        let admin = self.node.admin_addr();
        Ok(output::line(&format!("http={}\nadmin={}://{admin}{more}", self.http(), self.admin_scheme))?)
    }

    /// Finishes what runs and takes nothing new. Another signal ends it at once.
    pub(crate) async fn drain(self, signals: &mut Signals) -> Exit {
        output::message(&paint(DIM, "draining; Ctrl-C again ends at once"));
        tokio::select! {
            () = self.node.drain() => Exit::Done,
            () = signals.next() => Exit::Interrupted,
        }
    }
}
