//! How a command ends: its exit code, its error, and what to do about it.

use std::fmt;
use std::process::ExitCode;

use crate::output;

/// The documented exit codes. Scripts branch on them, so a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It is done.
    Done = 0,
    /// It failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// No node answers.
    Unreachable = 3,
    /// The node refuses: the token is missing or wrong.
    Denied = 4,
    /// The named thing does not exist.
    NotFound = 5,
    /// The manifest or a component cannot be used.
    Invalid = 6,
    /// It conflicts with what is there.
    Conflict = 7,
    /// A build failed.
    Build = 8,
    /// Ended by a second Ctrl-C, before everything was drained.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in the order of the reference page.
    pub(crate) const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Unreachable,
        Self::Denied,
        Self::NotFound,
        Self::Invalid,
        Self::Conflict,
        Self::Build,
        Self::Interrupted,
    ];

    /// One line for the reference page.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed for a reason without a code of its own",
            Self::Usage => "the command line is wrong",
            Self::Unreachable => "no node answers at `--node`",
            Self::Denied => "the node refuses: the token is missing or wrong",
            Self::NotFound => "the named app, function, revision, secret or file does not exist",
            Self::Invalid => "the manifest, a component or a value cannot be used",
            Self::Conflict => "it conflicts with what is there, such as a route that another app has",
            Self::Build => "a build failed",
            Self::Interrupted => "ended by a second Ctrl-C, before everything was drained",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with an exit code, and with the next step if there is one.
#[derive(Debug)]
pub(crate) struct Problem {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Problem {
    /// An error that ends the command with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The same with the next step.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code that it ends the command with.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Says what went wrong, and gives the code to end with.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    if is_unread(error) {
        return Exit::Done;
    }
    show(error);
    error.downcast_ref::<Problem>().map_or(Exit::Failed, Problem::exit)
}

/// `marram logs | head` is an ordinary way to use a pipe. Every other pipe that breaks, and every connection, is a failure.
fn is_unread(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<output::Unwritten>().is_some_and(output::Unwritten::is_unread))
}

/// Says what went wrong, and goes on.
pub(crate) fn show(error: &anyhow::Error) {
    // Manifest errors end with their own hint line; it gets the colour of one.
    let text = format!("{error:#}");
    let (text, inner) = match text.rsplit_once("\nhint: ") {
        Some((text, hint)) if !hint.contains('\n') => (text.to_owned(), Some(hint.to_owned())),
        _ => (text, None),
    };
    output::error(&text);
    let hint = inner.or_else(|| error.downcast_ref::<Problem>().and_then(|problem| problem.hint.clone()));
    if let Some(hint) = hint {
        output::hint(&hint);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn only_a_reader_of_stdout_that_went_away_is_no_failure() {
        let stdout = |kind: ErrorKind| anyhow::Error::new(output::Unwritten::from(Error::from(kind)));
        assert!(is_unread(&stdout(ErrorKind::BrokenPipe)));
        assert!(is_unread(&stdout(ErrorKind::BrokenPipe).context("cannot list")));
        assert!(!is_unread(&stdout(ErrorKind::StorageFull)), "a full disk behind `> file` is one");
        for kind in [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset] {
            let upload = anyhow::Error::new(Error::from(kind)).context("the connection to the node broke");
            assert_eq!(report(&upload), Exit::Failed, "{kind}");
        }
    }

    #[test]
    fn a_problem_gives_its_code_also_as_the_context_of_a_cause() {
        let problem = Problem::new(Exit::Unreachable, "it broke");
        assert_eq!(report(&anyhow::Error::new(Error::from(ErrorKind::BrokenPipe)).context(problem)), Exit::Unreachable);
    }
}
