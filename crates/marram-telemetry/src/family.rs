//! Metrics that others own: the node brings them along when it is asked for all.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// A metric with a value for each set of labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its name, with the unit; that of a counter is without `_total`, which is written behind it.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Its values.
    pub values: Values,
}

/// Values by their labels. Whoever makes them answers for how many labels there are: each is a series in every database that
/// collects them.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// What only grows, while the process lives.
    Counts(Vec<(Labels, u64)>),
    /// What goes up and down.
    Levels(Vec<(Labels, f64)>),
}

/// Names and values.
pub type Labels = Vec<(&'static str, String)>;

impl Family {
    /// A counter without labels.
    #[must_use]
    pub fn count(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, values: Values::Counts(vec![(Labels::new(), value)]) }
    }

    /// A gauge without labels.
    #[must_use]
    pub fn level(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, values: Values::Levels(vec![(Labels::new(), value)]) }
    }

    fn encode(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        match &self.values {
            Values::Counts(counts) => {
                let mut to = to.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
                counts.iter().try_for_each(|(labels, count)| match labels.is_empty() {
                    true => to.encode_counter::<NoLabelSet, _, u64>(count, None),
                    false => to.encode_family(&escaped(labels))?.encode_counter::<NoLabelSet, _, u64>(count, None),
                })
            }
            Values::Levels(levels) => {
                let mut to = to.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
                levels.iter().try_for_each(|(labels, level)| match labels.is_empty() {
                    true => to.encode_gauge(level),
                    false => to.encode_family(&escaped(labels))?.encode_gauge(level),
                })
            }
        }
    }
}

/// The library writes values as they are; OpenMetrics 1.0 §5.1.1 wants these three escaped, and a consumer's name may have them.
fn escaped(labels: &Labels) -> Labels {
    let value = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    labels.iter().map(|(name, text)| (*name, value(text))).collect()
}

/// Families on their way into the text.
#[derive(Debug)]
pub(crate) struct Families(pub(crate) Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|family| family.encode(&mut to))
    }
}
