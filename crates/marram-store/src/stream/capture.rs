//! Which streams want to know what happens in a source.

use marram_core::capture::{Capture, Source};
use marram_core::event::SubjectFilter;
use marram_core::stream::StreamName;

use crate::Store;

/// The captures of a node, as they are at one moment.
#[derive(Debug, Default)]
pub struct Captures(Vec<(Source, StreamName, Vec<SubjectFilter>)>);

impl Captures {
    pub(super) fn new(captures: Vec<Capture>) -> Self {
        let mut streams: Vec<(Source, StreamName, Vec<SubjectFilter>)> = Vec::new();
        for Capture { source, filter, stream } in captures {
            match streams.iter_mut().find(|(of, to, _)| *of == source && *to == stream) {
                Some((_, _, filters)) if filters.contains(&SubjectFilter::All) => {}
                Some((_, _, filters)) if filter == SubjectFilter::All => *filters = vec![filter],
                Some((_, _, filters)) => filters.push(filter),
                None => streams.push((source, stream, vec![filter])),
            }
        }
        Self(streams)
    }

    /// The streams that get an event of what happened to `subject`, each once.
    pub fn streams<'a>(&'a self, source: Source, subject: &'a str) -> impl Iterator<Item = &'a StreamName> {
        self.0
            .iter()
            .filter(move |(of, _, filters)| *of == source && filters.iter().any(|filter| filter.matches(subject)))
            .map(|(_, stream, _)| stream)
    }

    /// Whether anything of `source` is captured at all.
    #[must_use]
    pub fn any(&self, source: Source) -> bool {
        self.0.iter().any(|(of, _, _)| *of == source)
    }

    pub(super) fn without(&self, stream: &StreamName) -> Self {
        Self(self.0.iter().filter(|(_, to, _)| to != stream).cloned().collect())
    }
}

impl Store {
    /// Replaces what is captured. Writes that are queued already go by what was there before.
    pub fn set_captures(&self, captures: Vec<Capture>) {
        self.hub.captures.store(std::sync::Arc::new(Captures::new(captures)));
    }

    /// What is captured now.
    #[must_use]
    pub fn captures(&self) -> std::sync::Arc<Captures> {
        self.hub.captures.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_named_once_however_many_captures_take_the_subject() {
        let capture = |source, filter: &str, stream: &str| Capture {
            source,
            filter: SubjectFilter::topic(filter).unwrap(),
            stream: StreamName::new(stream).unwrap(),
        };
        let captures = Captures::new(vec![
            capture(Source::Mqtt, "plant/+/vibration", "mqtt"),
            capture(Source::Mqtt, "plant/#", "mqtt"),
            capture(Source::Mqtt, "plant/7/#", "seven"),
            capture(Source::Key, "plant/#", "keys"),
        ]);
        let streams = |source, subject| {
            captures.streams(source, subject).map(|stream| stream.as_str().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(streams(Source::Mqtt, "plant/7/vibration"), ["mqtt", "seven"]);
        assert_eq!(streams(Source::Mqtt, "plant/8"), ["mqtt"]);
        assert_eq!(streams(Source::Key, "plant/8"), ["keys"]);
        assert_eq!(streams(Source::Mqtt, "other"), Vec::<String>::new());
        assert!(captures.any(Source::Key) && !captures.any(Source::Object));
        let rest = captures.without(&StreamName::new("mqtt").unwrap());
        assert_eq!(rest.streams(Source::Mqtt, "plant/7/x").count(), 1);
    }
}
