//! What starts functions besides web requests: streams, MQTT messages, keys, objects and schedules.
//!
//! Every one of them is a consumer of a stream (docs/adr/0013), and [`deliver`] is the only code that pulls, invokes and
//! settles. The other files say which stream and which events a trigger means, one file a trigger. [`Triggers`] starts
//! and stops them as apps are deployed. Nothing here stores anything: an event is in the stream until it is settled.
//!
//! ```no_run
//! # use std::{collections::BTreeMap, sync::Arc};
//! # use marram_core::{manifest::Manifest, port::{Clock, Entropy, Invoke, Kv, Streams}, Name};
//! # async fn example(streams: Arc<dyn Streams>, kv: Arc<dyn Kv>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>,
//! #     manifest: Manifest, functions: BTreeMap<Name, Arc<dyn Invoke>>) -> Result<(), marram_core::Failure> {
//! let triggers = marram_trigger::Triggers::new(marram_trigger::Ports { streams, kv, clock, entropy });
//! triggers.apply(&manifest, &functions).await?; // at each deploy, rollback and start
//! let captures = triggers.captures(); // for the store, after each change
//! triggers.forget_unwanted(&manifest).await; // once the manifest is kept
//! triggers.remove(&manifest.app.name).await;
//! triggers.drain(std::time::Duration::from_secs(30)).await;
//! # Ok(()) }
//! ```

mod check;
pub mod deliver;
mod key;
mod limits;
mod mqtt;
mod object;
pub mod schedule;
mod set;
mod stream;
mod wiring;

pub use check::check;
pub use deliver::Counts;
pub use set::{AppliedTrigger, Ports, Ready, TriggerState, Triggers};
pub use wiring::Wiring;
