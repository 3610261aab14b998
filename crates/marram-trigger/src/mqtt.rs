//! MQTT messages: captured into the stream `mqtt`, where the subject is the topic.

use marram_core::capture::{Capture, Source};
use marram_core::event::SubjectFilter;
use marram_core::manifest::MqttTrigger;
use marram_core::stream::StreamName;

/// The stream, what is taken of it, and what has to be captured.
pub(crate) fn wire(trigger: &MqttTrigger) -> (StreamName, SubjectFilter, Option<Capture>) {
    let source = Source::Mqtt;
    let filter = trigger.mqtt.filter().clone();
    (source.stream(), filter.clone(), Some(Capture { source, filter, stream: source.stream() }))
}
