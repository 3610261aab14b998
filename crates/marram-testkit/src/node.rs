//! A node that belongs to a test.

use std::path::{Path, PathBuf};

use http::Method;
use marram_core::{Digest, Failure};
use marram_node::{ComponentSource, Node, NodeConfig, Package, api};
use tempfile::TempDir;

use crate::{Ask, Client, Reply};

/// A node on free ports, with its state in a folder that goes with it.
pub struct TestNode {
    node: Node,
    config: NodeConfig,
    state: TempDir,
    http: Client,
    admin: Client,
}

/// A manifest with these functions: name, component, route.
#[must_use]
pub fn manifest(app: &str, functions: &[(&str, &str, &str)]) -> String {
    let function = |(name, component, route): &(&str, &str, &str)| {
        format!("\n[[function]]\nname = \"{name}\"\ncomponent = \"{component}\"\non = [{{ http = \"{route}\" }}]\n")
    };
    let head = format!("manifest_version = 1\n[app]\nname = \"{app}\"\n");
    head + &functions.iter().map(function).collect::<String>()
}

impl TestNode {
    /// A node with the usual settings, and a small pool of instances.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(set: impl FnOnce(&mut NodeConfig)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let free = "127.0.0.1:0".parse().unwrap();
        let mut config = NodeConfig {
            listen: free,
            admin: free,
            state: state.path().join("state"),
            instances: 64,
            ..NodeConfig::default()
        };
        set(&mut config);
        Self::on(state, config).await
    }

    async fn on(state: TempDir, config: NodeConfig) -> Self {
        // Boxed: a node starts once, and whoever waits for it need not hold all that it needs for that.
        let node = Box::pin(Node::start(config.clone())).await.unwrap();
        let (http, admin) = (Client::new(node.http_addr()), Client::new(node.admin_addr()));
        Self { node, config, state, http, admin }
    }

    /// Stops the node and starts one on what it left.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same, with a change of the folder of its state in between.
    pub async fn restart_with(self, change: impl FnOnce(&Path)) -> Self {
        self.node.drain().await;
        let Self { node, config, state, .. } = self;
        drop(node);
        change(&config.state);
        Self::on(state, config).await
    }

    /// Drains the node; its state is removed.
    pub async fn stop(self) {
        self.node.drain().await;
    }

    /// The node itself.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The folder of its state.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.config.state
    }

    /// Where functions answer.
    #[must_use]
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Where the admin API answers.
    #[must_use]
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// Deploys in this process.
    pub async fn deploy(&self, manifest: &str, components: &[(&str, PathBuf)]) -> Result<api::Deployed, Failure> {
        let source = |(name, path): &(&str, PathBuf)| ((*name).to_owned(), ComponentSource::Path(path.clone()));
        let components = components.iter().map(source).collect();
        self.node.deploy(Package { manifest: manifest.to_owned(), components }).await
    }

    /// Deploys as the command line does: uploads, then the app.
    pub async fn deploy_over_http(&self, app: &str, manifest: &str, components: &[(&str, Vec<u8>)]) -> Reply {
        let mut digests = serde_json::Map::new();
        for (name, bytes) in components {
            let digest = Digest::of(bytes).to_string();
            let upload = Ask::new(Method::PUT, &format!("/v1/blobs/{digest}")).body(bytes.clone());
            let reply = self.admin.send(upload).await;
            assert!(matches!(reply.status, 200 | 201), "{reply:?}");
            digests.insert((*name).to_owned(), digest.into());
        }
        let request = serde_json::json!({ "manifest": manifest, "components": digests });
        self.admin.send(Ask::new(Method::PUT, &format!("/v1/apps/{app}")).json(&request)).await
    }
}
