//! Keys that change: captured into the stream `keys`, where the subject is `<bucket>/<key>`.

use marram_core::capture::{Capture, Source};
use marram_core::event::SubjectFilter;
use marram_core::manifest::KeyTrigger;
use marram_core::stream::StreamName;

/// The stream, what is taken of it, and what has to be captured.
pub(crate) fn wire(trigger: &KeyTrigger) -> (StreamName, SubjectFilter, Option<Capture>) {
    let source = Source::Key;
    let filter = trigger.key.filter().clone();
    (source.stream(), filter.clone(), Some(Capture { source, filter, stream: source.stream() }))
}
