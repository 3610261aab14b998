//! The messages. Requests are numbered by the host, operations (fetches, timers, calls) by the engine.

use serde::{Deserialize, Serialize};

/// A function's script, with everything it may see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load<'a> {
    /// The name that stacks show, as the developer knows the file: `src/index.js`.
    pub file: &'a str,
    /// The module.
    #[serde(borrow)]
    pub code: Code<'a>,
    /// Configuration and secrets: the properties of `env`.
    pub env: Vec<(&'a str, &'a str)>,
    /// What `env` offers of the node's state besides, each as `<kind>/<name>`: `kv/thresholds`, `blob/uploads`, `stream/trends`, `mqtt/`.
    pub granted: Vec<&'a str>,
    /// The most memory that JavaScript may hold, in bytes; past it, it throws "out of memory".
    pub memory_bytes_max: u32,
}

/// A module as written, or as an engine of the same build compiled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code<'a> {
    /// ECMAScript module source.
    Source(&'a str),
    /// What [`Loaded::Ready`] gave for the same source.
    Compiled(#[serde(with = "bytes")] &'a [u8]),
}

/// How loading went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loaded<'a> {
    /// The module answers requests. `compiled` spares the next load the parsing; empty when compiled code was given.
    Ready {
        /// For [`Code::Compiled`].
        #[serde(with = "bytes")]
        compiled: &'a [u8],
    },
    /// The module does not parse, threw, or has no `fetch`.
    Refused(ScriptError),
}

/// Something thrown, with where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptError {
    /// The error's class: `SyntaxError`.
    pub name: String,
    /// Its message.
    pub message: String,
    /// The stack, one `    at function (file:line:column)` a line; may be empty.
    pub stack: String,
    /// Line in the function's file, from 1; 0 when not known.
    pub line: u32,
    /// Column in the line, from 1; 0 when not known.
    pub column: u32,
}

/// What a request or a fetched response brings as its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyIn<'a> {
    /// Nothing.
    None,
    /// All of it.
    Full(#[serde(with = "bytes")] &'a [u8]),
    /// Chunks, each sent after a [`Action::Pull`].
    Stream,
}

/// What a response or a fetch sends as its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyOut<'a> {
    /// Nothing.
    None,
    /// All of it.
    Full(#[serde(with = "bytes")] &'a [u8]),
    /// Chunks follow as [`Action::Chunk`].
    Stream,
    /// The body of this request or fetch, which JavaScript has not touched: the host passes it on by itself.
    Pipe(Source),
}

/// A body that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// The body of a request.
    Request(u32),
    /// The body of the response to a fetch.
    Fetch(u32),
}

/// A body that goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Sink {
    /// The response to a request.
    Response(u32),
    /// The request of a fetch.
    Fetch(u32),
}

/// What happened, told to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event<'a> {
    /// A request came in.
    Request {
        /// The host's number for it, not used twice in an instance.
        id: u32,
        /// Method, in its own case.
        method: &'a str,
        /// Absolute URL.
        url: &'a str,
        /// Fields as [`crate::lines`].
        headers: &'a str,
        /// Its body.
        #[serde(borrow)]
        body: BodyIn<'a>,
    },
    /// The next piece of a body, after a [`Action::Pull`].
    Chunk {
        /// Whose body.
        of: Source,
        /// The piece.
        #[serde(with = "bytes")]
        bytes: &'a [u8],
    },
    /// A body is complete.
    End {
        /// Whose body.
        of: Source,
    },
    /// A body will never be complete.
    Broken {
        /// Whose body.
        of: Source,
        /// What the developer reads.
        message: &'a str,
    },
    /// A fetch has an answer.
    Head {
        /// The fetch.
        op: u32,
        /// Status code.
        status: u16,
        /// Where the answer came from, when redirects were followed; else empty.
        url: &'a str,
        /// Fields as [`crate::lines`].
        headers: &'a str,
        /// Its body.
        #[serde(borrow)]
        body: BodyIn<'a>,
    },
    /// A fetch has no answer.
    FetchFailed {
        /// The fetch.
        op: u32,
        /// What the developer reads.
        message: &'a str,
    },
    /// A timer is due.
    Timer {
        /// The timer.
        op: u32,
    },
    /// The host has passed on this much of an outgoing body.
    Drained {
        /// Whose body.
        to: Sink,
        /// Bytes passed on since the last such event.
        bytes: u32,
    },
    /// The client is gone: nobody reads the response.
    Cancel {
        /// The request.
        request: u32,
    },
    /// A call has its result.
    CallResult {
        /// The call.
        op: u32,
        /// Whether it succeeded; if not, the payload is the kind of the failure, a line feed, and its message.
        ok: bool,
        /// In the capability's own encoding.
        #[serde(with = "bytes")]
        payload: &'a [u8],
    },
}

/// How a fetch treats a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redirect {
    /// Follow it, up to the host's limit.
    Follow,
    /// Fail.
    Error,
    /// Hand it to the function.
    Manual,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// `console.debug`, `console.trace`
    Debug,
    /// `console.log`, `console.info`
    Info,
    /// `console.warn`
    Warn,
    /// `console.error`
    Error,
}

/// What the engine asks of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action<'a> {
    /// The head of a response, and its body or how that follows. Once per request at most.
    Respond {
        /// The request.
        request: u32,
        /// Status code, 200 to 599.
        status: u16,
        /// Fields as [`crate::lines`].
        headers: &'a str,
        /// The body.
        #[serde(borrow)]
        body: BodyOut<'a>,
    },
    /// The next piece of an outgoing body.
    Chunk {
        /// Whose body.
        to: Sink,
        /// The piece.
        #[serde(with = "bytes")]
        bytes: &'a [u8],
    },
    /// An outgoing body is complete.
    End {
        /// Whose body.
        to: Sink,
    },
    /// An outgoing body will never be complete.
    Broken {
        /// Whose body.
        to: Sink,
        /// Why.
        message: &'a str,
    },
    /// Make an HTTP request.
    Fetch {
        /// The engine's number for it.
        op: u32,
        /// On behalf of this request; 0 when not known.
        request: u32,
        /// Method.
        method: &'a str,
        /// Absolute URL.
        url: &'a str,
        /// Fields as [`crate::lines`].
        headers: &'a str,
        /// The body.
        #[serde(borrow)]
        body: BodyOut<'a>,
        /// What to do about redirects.
        redirect: Redirect,
    },
    /// Nobody waits for this fetch any more.
    AbortFetch {
        /// The fetch.
        op: u32,
    },
    /// Send the next piece of this body.
    Pull {
        /// Whose body.
        of: Source,
    },
    /// Nobody will read the rest of this body.
    Discard {
        /// Whose body.
        of: Source,
    },
    /// Send [`Event::Timer`] after a while.
    SetTimer {
        /// The engine's number for it.
        op: u32,
        /// On behalf of this request; 0 when not known.
        request: u32,
        /// How long, in milliseconds.
        after_ms: u32,
    },
    /// A timer is not wanted any more.
    ClearTimer {
        /// The timer.
        op: u32,
    },
    /// A line for the log.
    Log {
        /// On behalf of this request; 0 when not known.
        request: u32,
        /// How loud.
        level: Level,
        /// One or more lines of text.
        text: &'a str,
    },
    /// A request's response and everything it asked to wait for are complete.
    Done {
        /// The request.
        request: u32,
    },
    /// A request has failed, before or after its response began. No [`Action::Done`] follows.
    Failed {
        /// The request.
        request: u32,
        /// What was thrown.
        error: ScriptError,
    },
    /// Use a capability.
    Call {
        /// The engine's number for it.
        op: u32,
        /// On behalf of this request; 0 when not known.
        request: u32,
        /// Its name.
        capability: &'a str,
        /// In the capability's own encoding.
        #[serde(with = "bytes")]
        payload: &'a [u8],
    },
}

/// Bytes as one run: serde's default would visit them one at a time.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<&'a [u8], D::Error> {
        <&'a [u8]>::deserialize(deserializer)
    }
}
