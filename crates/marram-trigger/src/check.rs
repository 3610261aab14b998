//! What a manifest says of calendars, checked where the calendar is.

use marram_core::manifest::{Manifest, ManifestError, On};

use crate::schedule::Cron;

/// Refuses a schedule that is no cron expression or never comes, and a time zone that is not known, with the line of `text`.
pub fn check(manifest: &Manifest, text: &str) -> Result<(), ManifestError> {
    for function in &manifest.functions {
        for on in &function.on {
            let On::Schedule(trigger) = on else { continue };
            if let Err(error) = Cron::new(&trigger.schedule, &trigger.timezone) {
                let named = |needle: &str| text.contains(needle).then(|| needle.to_owned());
                let needle =
                    named(&format!("\"{}\"", error.about())).unwrap_or_else(|| format!("\"{}\"", function.name));
                let message = format!("function \"{}\": {error}", function.name);
                return Err(ManifestError::at(text, &needle, message));
            }
        }
    }
    Ok(())
}
