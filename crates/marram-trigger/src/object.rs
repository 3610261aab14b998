//! Objects that are created or deleted: captured into the stream `objects`, where the subject is `<bucket>/<name>`.

use marram_core::capture::{Capture, Source};
use marram_core::event::SubjectFilter;
use marram_core::manifest::ObjectTrigger;
use marram_core::stream::StreamName;

/// The stream, what is taken of it, and what has to be captured.
pub(crate) fn wire(trigger: &ObjectTrigger) -> (StreamName, SubjectFilter, Option<Capture>) {
    let source = Source::Object;
    let filter = trigger.object.filter().clone();
    (source.stream(), filter.clone(), Some(Capture { source, filter, stream: source.stream() }))
}
