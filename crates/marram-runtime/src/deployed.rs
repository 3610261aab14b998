//! What does not change while a revision of a function is deployed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use marram_core::limits::{LOG_LINE_BYTES_MAX, Limits};
use marram_core::manifest::InstancePolicy;
use marram_core::port::{Clock, Entropy, Invoke, Observe};
use marram_core::record::{Level, LogLine, Source};
use marram_core::{FunctionId, Name};

use crate::invocation::Invocation;
use crate::log_budget::{LogBudget, LogRoom};
use crate::mask::Mask;
use crate::outbound::{Grant, Outbound};
use crate::reach::Reach;

/// A function's identity, limits, configuration and grants, and the node's ports that it is joined to.
pub(crate) struct Deployed {
    pub(crate) id: Arc<FunctionId>,
    pub(crate) limits: Limits,
    pub(crate) policy: InstancePolicy,
    /// Whether changes of keys start it.
    pub(crate) keys: bool,
    /// `config` and `secrets`, by key.
    pub(crate) config: BTreeMap<String, String>,
    /// What of it its log must not show.
    pub(crate) mask: Mask,
    /// For a function that ships as source.
    pub(crate) source: Option<SourceText>,
    pub(crate) grant: Arc<Grant>,
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) reach: Arc<Reach>,
    pub(crate) observe: Arc<dyn Observe>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// When this was made: where the monotonic clock of JavaScript begins.
    pub(crate) started: std::time::Instant,
}

/// The program of a function that ships as source.
pub(crate) struct SourceText {
    file: String,
    text: OnceLock<String>,
}

impl SourceText {
    pub(crate) const fn new(file: String) -> Self {
        Self { file, text: OnceLock::new() }
    }

    /// Its file, as its author knows it.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// What was kept for engines that ask for it in each instance; nothing before that.
    pub(crate) fn text(&self) -> &str {
        self.text.get().map_or("", String::as_str)
    }

    pub(crate) fn keep(&self, text: String) {
        let _ = self.text.set(text);
    }
}

/// The functions of one revision of an app, for calls among them. Weak, because they hold this.
#[derive(Default)]
pub(crate) struct Peers(OnceLock<BTreeMap<Name, Weak<dyn Invoke>>>);

impl Peers {
    pub(crate) fn set(&self, functions: BTreeMap<Name, Weak<dyn Invoke>>) {
        let _ = self.0.set(functions);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn Invoke>> {
        self.0.get()?.get(name)?.upgrade()
    }
}

impl Deployed {
    /// Writes a line of the function's log, if the budget of whoever pays for it allows. `owner` is the run that the line
    /// is known to be of: an instance that serves several at once does not tell them apart.
    pub(crate) fn log(
        &self,
        payer: &LogBudget,
        owner: Option<&Invocation>,
        level: Level,
        source: Source,
        mut context: String,
        mut text: String,
    ) {
        self.mask.hide(&mut context);
        // Before it is cut: half a secret would not be found.
        self.mask.hide(&mut text);
        truncate(&mut text, LOG_LINE_BYTES_MAX);
        match payer.room(text.len() + context.len()) {
            LogRoom::Enough => self.write(owner, level, source, context, text),
            LogRoom::Last => {
                let limit = self.limits.log;
                self.note(
                    owner,
                    Level::Warn,
                    format!("log limit of {limit} reached: the rest of this run's output is dropped"),
                );
            }
            LogRoom::None => {}
        }
    }

    /// What the node itself says of a run. Not charged, so it has to be said a bounded number of times a run.
    pub(crate) fn note(&self, owner: Option<&Invocation>, level: Level, mut text: String) {
        // It may say what the function has thrown, or whom it asked.
        self.mask.hide(&mut text);
        self.write(owner, level, Source::Node, String::new(), text);
    }

    fn write(&self, owner: Option<&Invocation>, level: Level, source: Source, context: String, text: String) {
        self.observe.log(LogLine {
            time_unix_ns: self.clock.unix_ns(),
            level,
            id: Arc::clone(&self.id),
            request: owner.map(|invocation| invocation.call.request),
            trace: owner.map(|invocation| invocation.call.trace.trace),
            source,
            context,
            text,
        });
    }
}

/// Cuts a line that is too long, and says so.
fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push_str(" … (line cut)");
    }
}
