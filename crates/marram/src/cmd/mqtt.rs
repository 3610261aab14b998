//! `marram mqtt`: clients of a node's MQTT broker.

use std::io::Read as _;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::Method;
use marram_node::api::MqttClients;

use crate::cli::{JsonArgs, NodeArgs};
use crate::client::{self, Client, escape};
use crate::exit::{Exit, Problem};
use crate::output::{self, BOLD, DIM, GREEN, on_one_line, paint};
use crate::table::{Column, table};
use crate::units;

/// The longest password that is hashed.
const PASSWORD_BYTES_MAX: u64 = 1 << 10;

/// Looks at MQTT clients, ends their connections, and hashes passwords.
#[derive(Args, Debug)]
pub(crate) struct Mqtt {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List clients that have a session, connected or not
    Clients {
        #[command(flatten)]
        json: JsonArgs,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// End a client's connection
    Disconnect {
        /// The client identifier
        client: String,
        /// Forget its session and its queue, too
        #[arg(long)]
        forget: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Hash the password on stdin, for `password_hash` of `[[mqtt.user]]` in node.toml
    Passwd,
}

/// Does one of them.
pub(crate) async fn run(args: &Mqtt) -> anyhow::Result<()> {
    match &args.action {
        Action::Clients { json, node } => clients(json.json, &Client::new(node)?).await,
        Action::Disconnect { client, forget, node } => {
            let query = [("forget", forget.then(|| "true".to_owned()))];
            let path = client::with_query(&format!("/v1/mqtt/clients/{}", escape(client)), &query);
            Client::new(node)?.send(Method::DELETE, &path, client::empty()).await?.ok().await?;
            output::message(&format!("{} {}", paint(GREEN, "disconnected"), paint(BOLD, on_one_line(client))));
            Ok(())
        }
        Action::Passwd => passwd(),
    }
}

async fn clients(json: bool, client: &Client) -> anyhow::Result<()> {
    let answer = client.get("/v1/mqtt/clients").await?;
    let list: MqttClients = serde_json::from_value(answer).context("the node's answer is of another version")?;
    if json {
        return list.clients.iter().try_for_each(|client| Ok(output::line(&serde_json::to_string(client)?)?));
    }
    if list.clients.is_empty() {
        output::message("no MQTT client has a session");
        return Ok(());
    }
    let now = units::now_unix_ms();
    let rows = list.clients.iter().map(|client| {
        let since = client.connected_unix_ms.map_or_else(|| paint(DIM, "away"), |since| units::ago(since, now));
        vec![
            on_one_line(&client.client).into_owned(),
            on_one_line(client.user.as_deref().unwrap_or_default()).into_owned(),
            client.version.clone().unwrap_or_default(),
            since,
            units::count(client.queued),
            units::count(client.dropped),
            on_one_line(&client.subscriptions.join(", ")).into_owned(),
        ]
    });
    let columns = [
        Column::Left("CLIENT"),
        Column::Left("USER"),
        Column::Left("MQTT"),
        Column::Right("CONNECTED"),
        Column::Right("QUEUED"),
        Column::Right("DROPPED"),
        Column::Left("SUBSCRIPTIONS"),
    ];
    Ok(output::line(&table(&columns, &rows.collect::<Vec<_>>()))?)
}

/// A password is never an argument: those are in the shell's history and in every process list.
fn passwd() -> anyhow::Result<()> {
    let mut password = Vec::new();
    std::io::stdin().lock().take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut password)?;
    let password = password.strip_suffix(b"\n").unwrap_or(&password);
    if password.is_empty() || password.len() as u64 > PASSWORD_BYTES_MAX {
        let message = format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes");
        return Err(Problem::new(Exit::Invalid, message)
            .hint("pipe it in: printf %s \"$PASSWORD\" | marram mqtt passwd")
            .into());
    }
    Ok(output::line(&marram_node::hash_mqtt_password(password)?)?)
}
