//! A broker that keeps everything in memory, for other people's clients and for measurements without a disk.
//!
//! `memory_broker [ADDRESS]` prints where it listens, and captures the topics below `captured/`.

#![allow(clippy::unwrap_used)]

#[path = "../tests/broker/fixture.rs"]
#[allow(dead_code)]
mod fixture;
#[path = "../tests/broker/journal.rs"]
#[allow(dead_code)]
mod journal;

use std::sync::Arc;

use marram_mqtt::{AccessConfig, Broker, Limits, Permissions, Transport};

#[tokio::main]
#[allow(clippy::print_stdout)]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let journal = journal::Memory::default();
    journal.capture("captured/#");
    let access = AccessConfig { anonymous: Some(Permissions::all()), ..AccessConfig::default() };
    let (time, dice) = (Arc::new(fixture::Time::default()), Arc::new(fixture::Dice::default()));
    let broker = Broker::start(Limits::default(), access, Arc::new(journal), time, dice).await?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    broker.listen(listener, Transport::default());
    tokio::signal::ctrl_c().await?;
    broker.stop().await;
    Ok(())
}
