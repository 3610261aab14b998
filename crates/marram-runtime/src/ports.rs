//! What a runtime is joined to: the ports of its node.

use std::sync::Arc;

use marram_core::port::{Blobs, Clock, Crdt, Entropy, Kv, MqttPublish, Observe, Streams};

/// The ports of a node, as its functions need them.
#[derive(Clone)]
pub struct Ports {
    /// Takes what is seen of runs.
    pub observe: Arc<dyn Observe>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for identifiers.
    pub entropy: Arc<dyn Entropy>,
    /// What functions read, write and publish. Without it, a function that imports any of it is refused.
    pub state: Option<StatePorts>,
}

/// The state of a node.
#[derive(Clone)]
pub struct StatePorts {
    /// Keys.
    pub kv: Arc<dyn Kv>,
    /// Counters, sets and maps in buckets of keys.
    pub crdt: Arc<dyn Crdt>,
    /// Streams.
    pub streams: Arc<dyn Streams>,
    /// MQTT topics.
    pub mqtt: Arc<dyn MqttPublish>,
    /// Objects.
    pub blobs: Arc<dyn Blobs>,
}
