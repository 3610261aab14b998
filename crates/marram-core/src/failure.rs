//! What went wrong, whose fault it is, and whether trying again makes sense.
//!
//! A failure is classified once, where it happens. The HTTP status, the settlement of an event, the label of a metric
//! and the line in the console all follow from its [`Kind`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Who has to change something for this not to happen again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// Who sent the request.
    Caller,
    /// The function's code or its manifest.
    Guest,
    /// This node, or what it depends on.
    Host,
}

/// Whether the same thing, tried again, may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail in the same way.
    Never,
    /// Not before this long.
    After(Duration),
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $blame:ident, $status:literal, $title:literal;)*) => {
        /// What went wrong, as a closed list: labels of metrics are made of it, so it has to stay short.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every kind, in the order of the reference page.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The kind as a metric label and as the last part of a problem's type URI.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Kind::$name => $label,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $(Kind::$name => Blame::$blame,)* }
            }

            /// The HTTP status that a caller is answered with (RFC 9110 §15).
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Kind::$name => $status,)* }
            }

            /// One line for people, without the particulars.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Kind::$name => $title,)* }
            }
        }
    };
}

kinds! {
    /// The request is malformed.
    BadRequest = "bad-request", Caller, 400, "The request is malformed";
    /// Credentials are missing or wrong.
    Unauthorized = "unauthorized", Caller, 401, "Credentials are missing or wrong";
    /// No route matches host and path, or the named thing does not exist.
    NotFound = "not-found", Caller, 404, "Nothing is here";
    /// A route matches, but not with this method.
    MethodNotAllowed = "method-not-allowed", Caller, 405, "This method is not allowed here";
    /// The client took too long to send its request.
    ClientTimeout = "client-timeout", Caller, 408, "The request took too long to arrive";
    /// What is asked for conflicts with what is there.
    Conflict = "conflict", Caller, 409, "This conflicts with what is there";
    /// The body is larger than the limit.
    BodyTooLarge = "body-too-large", Caller, 413, "The body is larger than the limit";
    /// The URI is longer than the limit.
    UriTooLong = "uri-too-long", Caller, 414, "The URI is longer than the limit";
    /// What was sent cannot be used: an invalid manifest, not a component, an import that was not granted.
    Invalid = "invalid", Caller, 422, "What was sent cannot be used";
    /// The header section is larger than the limit.
    HeadersTooLarge = "headers-too-large", Caller, 431, "The header section is larger than the limit";
    /// The client went away before its answer was complete.
    ClientGone = "client-gone", Caller, 499, "The client went away";
    /// The function trapped: a panic, an unreachable, an access out of bounds, an exhausted stack.
    Trap = "trap", Guest, 500, "The function crashed";
    /// The function asked for more memory, table entries or handles than its limit.
    ResourceLimit = "resource-limit", Guest, 500, "The function went over a limit of memory, tables or handles";
    /// The function used more CPU time than its limit.
    CpuLimit = "cpu-limit", Guest, 500, "The function used more CPU time than its limit";
    /// The function returned without an answer, or with one that is not valid HTTP.
    NoResponse = "no-response", Guest, 502, "The function gave no valid answer";
    /// The function did not finish before its deadline.
    Deadline = "deadline", Guest, 504, "The function did not answer before its deadline";
    /// A server that the function asked failed, and the function hands that on.
    Upstream = "upstream", Host, 502, "A server that the function depends on failed";
    /// The same, because it took too long.
    UpstreamTimeout = "upstream-timeout", Host, 504, "A server that the function depends on took too long";
    /// Every permit and every place in the queue is taken.
    Overloaded = "overloaded", Host, 503, "The function is at its limit of concurrent requests";
    /// The stream keeps as much as it may, and can make no room: what it keeps is owed to a consumer, or consumed by nobody, or
    /// too much for one publish to remove.
    StreamFull = "stream-full", Host, 507, "The stream is full";
    /// The node is draining.
    Draining = "draining", Host, 503, "This node is shutting down";
    /// Nothing can be written, because there is no space for it. What was there before goes on.
    StorageFull = "storage-full", Host, 507, "This node's disk is full";
    /// Something in the node failed: a disk that breaks, a bug.
    Internal = "internal", Host, 500, "Something failed in this node";
}

/// One failure, cheap to clone, with its cause for the log and a message that is safe to show to a caller.
#[derive(Clone)]
pub struct Failure {
    kind: Kind,
    retry: Retry,
    message: Arc<str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure of `kind`. `message` names the thing and the next step; callers may be strangers, so it says nothing
    /// that they may not know.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<Arc<str>>) -> Self {
        let retry = match kind {
            Kind::Overloaded | Kind::Draining | Kind::StreamFull => Retry::After(Duration::from_secs(1)),
            Kind::Internal | Kind::Deadline | Kind::Upstream | Kind::UpstreamTimeout => {
                Retry::After(Duration::from_millis(100))
            }
            // Somebody has to make space first.
            Kind::StorageFull => Retry::After(Duration::from_secs(30)),
            _ => Retry::Never,
        };
        Self { kind, retry, message: message.into(), source: None }
    }

    /// The same with its cause, which goes to the log only.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The same with another view on trying again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether trying again makes sense.
    #[must_use]
    pub const fn retry_after(&self) -> Retry {
        self.retry
    }

    /// What to tell the caller.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The cause in full, for the log.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        self.source.as_ref().map(|source| {
            let mut text = source.to_string();
            let mut next = source.source();
            while let Some(cause) = next {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                next = cause.source();
            }
            text
        })
    }

    /// The cause, if it is one of this type: for those who can tell more from it than the kind says.
    #[must_use]
    pub fn cause<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.source.as_ref()?.downcast_ref()
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.detail().map_or(Ok(()), |detail| write!(f, " ({detail})"))
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_statuses_valid() {
        let mut labels: Vec<_> = Kind::ALL.iter().map(|kind| kind.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(Failure::new(*kind, "").status().as_u16(), kind.status());
        }
    }

    #[test]
    fn the_cause_is_in_the_log_and_not_in_the_answer() {
        let failure =
            Failure::new(Kind::Internal, "the store cannot be read").because(std::io::Error::other("/secret/path"));
        assert!(!failure.to_string().contains("/secret"));
        assert!(failure.detail().is_some_and(|detail| detail.contains("/secret/path")));
        assert!(failure.cause::<std::io::Error>().is_some() && failure.cause::<fmt::Error>().is_none());
    }
}
