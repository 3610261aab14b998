//! Events of a stream: all of them, whoever published them.

use marram_core::capture::Capture;
use marram_core::event::SubjectFilter;
use marram_core::manifest::StreamTrigger;
use marram_core::stream::StreamName;

/// The stream, and that everything is taken of it.
pub(crate) fn wire(trigger: &StreamTrigger) -> (StreamName, SubjectFilter, Option<Capture>) {
    (trigger.stream.clone(), SubjectFilter::All, None)
}
