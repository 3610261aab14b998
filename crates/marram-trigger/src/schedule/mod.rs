//! Schedules: a moment that comes is published to the stream `schedule`, and delivered from there as any event.
//!
//! The event's id is made of the function and the planned moment, and nothing is published that is not later than the last
//! planned moment, which is kept in the bucket [`BUCKET`]. That entry is written after the event; what was published in
//! between is found in the stream when a node comes back. So no moment is fired twice, wherever a node was stopped.
//!
//! **Clocks.** Moments are planned on the time of day, which is read at least every 30 seconds and at every planned moment.
//! Where it jumps forward, what lies in between was missed. Where it jumps back, nothing comes until it has passed the last
//! planned moment again; after an hour of waiting for that, the clock is believed.

mod cron;
mod due;
mod mark;
mod timer;

use std::sync::Arc;

use marram_core::Name;
use marram_core::capture::Capture;
use marram_core::event::{Event, SubjectFilter};
use marram_core::manifest::{Missed, ScheduleTrigger};
use marram_core::stream::StreamName;

pub use cron::{Cron, CronError};
pub(crate) use mark::forget;
pub use timer::{Timer, run};

/// The bucket of the last planned moments, by [`Schedule::subject`].
pub const BUCKET: &str = "marram-schedule";
/// The type of the events.
pub const FIRED: &str = "marram.schedule.fired";

/// One schedule of one function.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// `<app>/<function>/<expression> <time zone>`: the subject of its events, and the key of its last planned moment.
    pub subject: Arc<str>,
    /// When it comes.
    pub cron: Cron,
    /// What is made up for.
    pub missed: Missed,
    source: String,
    expression: String,
    timezone: String,
}

/// The stream, and which subject of it.
pub(crate) fn wire(
    app: &Name,
    function: &Name,
    trigger: &ScheduleTrigger,
) -> (StreamName, SubjectFilter, Option<Capture>) {
    (StreamName::schedule(), SubjectFilter::Exact(subject(app, function, trigger)), None)
}

fn subject(app: &Name, function: &Name, trigger: &ScheduleTrigger) -> String {
    format!("{app}/{function}/{} {}", trigger.schedule, trigger.timezone)
}

impl Schedule {
    /// The schedule of a trigger.
    pub fn new(app: &Name, function: &Name, trigger: &ScheduleTrigger) -> Result<Self, CronError> {
        Ok(Self {
            subject: subject(app, function, trigger).into(),
            cron: Cron::new(&trigger.schedule, &trigger.timezone)?,
            missed: trigger.missed,
            source: format!("/{app}/{function}"),
            expression: trigger.schedule.clone(),
            timezone: trigger.timezone.clone(),
        })
    }

    /// The event of a planned moment: always the same one.
    #[must_use]
    pub fn event(&self, planned_unix_ns: u64) -> Event {
        let time = cron::utc(planned_unix_ns);
        let planned = serde_json::json!({
            "schedule": self.expression, "timezone": self.timezone, "planned": self.cron.local(planned_unix_ns),
        });
        Event {
            id: format!("{} {time}", self.subject),
            source: self.source.clone(),
            kind: FIRED.into(),
            subject: self.subject.to_string(),
            time,
            data_content_type: "application/json".into(),
            data: Some(planned.to_string().into()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests;
