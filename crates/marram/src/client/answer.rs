//! An answer of the admin API: a head that is here, a body that may still be coming.

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use marram_core::problem::{PROBLEM_JSON, REQUEST_ID_HEADER};
use serde::Deserialize;

use super::exit_of;
use crate::exit::{Exit, Problem};

/// The largest JSON document that is read at once. Logs are streamed instead.
const JSON_BYTES_MAX: usize = 64 << 20;
/// A line is a log line (16 KiB), or an event (1 MiB of data) with its escapes.
const LINE_BYTES_MAX: usize = 8 << 20;
/// What the node says of a failure is a few sentences; what is longer, a function says.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// An answer.
pub(crate) struct Answer {
    response: Response<Incoming>,
    /// What has come of the body and was not taken as a line yet.
    pending: BytesMut,
}

/// RFC 9457.
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProblemJson {
    title: String,
    detail: String,
    hint: Option<String>,
    request_id: String,
}

impl Answer {
    pub(super) fn new(response: Response<Incoming>) -> Self {
        Self { response, pending: BytesMut::new() }
    }

    /// Status and headers.
    pub(crate) fn head(&self) -> &Response<Incoming> {
        &self.response
    }

    /// The answer, if its status says success; else what it says went wrong.
    pub(crate) async fn ok(self) -> anyhow::Result<Self> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        Err(self.problem(status).await.into())
    }

    /// The body as JSON; nothing is `null`.
    pub(crate) async fn json(self) -> anyhow::Result<serde_json::Value> {
        let body = self.gather().await?;
        if body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&body).context("the node's answer is not JSON: does another server listen there?")
    }

    /// What the node itself says of a request that failed; `None` where a function has answered, and the body is still to be
    /// read. A function may answer with such a document, too, but only the node's names the request.
    pub(crate) async fn of_the_node(&mut self) -> anyhow::Result<Option<Problem>> {
        let headers = self.response.headers();
        let text =
            |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if !text(headers.get(header::CONTENT_TYPE)).starts_with(PROBLEM_JSON) {
            return Ok(None);
        }
        let id = text(headers.get(REQUEST_ID_HEADER));
        while self.pending.len() <= PROBLEM_BYTES_MAX
            && let Some(bytes) = self.frame().await?
        {
            self.pending.extend_from_slice(&bytes);
        }
        let status = self.response.status();
        // The answer to HEAD has no body that could say so.
        if self.pending.is_empty() {
            return Ok(Some(problem(status, ProblemJson::default())));
        }
        let said: ProblemJson = serde_json::from_slice(&self.pending).unwrap_or_default();
        Ok((!id.is_empty() && said.request_id == id).then(|| problem(status, said)))
    }

    /// The next piece of the body, or `None` at its end.
    pub(crate) async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        if !self.pending.is_empty() {
            return Ok(Some(self.pending.split().freeze()));
        }
        self.frame().await
    }

    async fn frame(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(bytes) = frame.context("the node broke off its answer")?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The next line of the body without its line break, or `None` at its end. Empty lines say only that the node is still there,
    /// and are left out.
    pub(crate) async fn line(&mut self) -> anyhow::Result<Option<Bytes>> {
        let mut searched = 0;
        loop {
            if let Some(line) = take_line(&mut self.pending, &mut searched) {
                return Ok(Some(line));
            }
            anyhow::ensure!(searched <= LINE_BYTES_MAX, "the node sent a line of more than {LINE_BYTES_MAX} bytes");
            match self.frame().await? {
                Some(bytes) => self.pending.extend_from_slice(&bytes),
                None if self.pending.is_empty() => return Ok(None),
                None => return Ok(Some(self.pending.split().freeze())),
            }
        }
    }

    async fn gather(self) -> anyhow::Result<Bytes> {
        let body = Limited::new(self.response.into_body(), JSON_BYTES_MAX).collect().await;
        Ok(body.map_err(anyhow::Error::from_boxed).context("the node broke off its answer")?.to_bytes())
    }

    async fn problem(self, status: StatusCode) -> Problem {
        let kind = self
            .response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = self.gather().await.unwrap_or_default();
        if !kind.starts_with(PROBLEM_JSON) {
            let reason = status.canonical_reason().unwrap_or("no reason given");
            return Problem::new(exit_of(status), format!("the node answers {} ({reason})", status.as_u16()))
                .hint("is this the admin address of a node, and one of this version?");
        }
        problem(status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

/// What the node has said, as an error.
fn problem(status: StatusCode, said: ProblemJson) -> Problem {
    let mut message = [said.detail, said.title].into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| {
        // A connection that breaks right after the head has no text.
        let reason = status.canonical_reason().unwrap_or("no reason given");
        format!("the node answers {} ({reason})", status.as_u16())
    });
    if status.is_server_error() && !said.request_id.is_empty() {
        message.push_str(&format!(" (request {})", said.request_id));
    }
    let exit = exit_of(status);
    let made = Problem::new(exit, message);
    match said.hint {
        Some(hint) => made.hint(hint),
        None if exit == Exit::Denied => made.hint("give the node's token with --token or MARRAM_TOKEN"),
        None => made,
    }
}

/// The first line of `pending` that is not empty, without its line break. What was `searched` has none.
fn take_line(pending: &mut BytesMut, searched: &mut usize) -> Option<Bytes> {
    while let Some(at) = pending[*searched..].iter().position(|byte| *byte == b'\n') {
        let line = pending.split_to(*searched + at + 1).freeze();
        *searched = 0;
        if line.len() > 1 {
            return Some(line.slice(..line.len() - 1));
        }
    }
    *searched = pending.len();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_empty_ones_not_at_all() {
        let (mut pending, mut searched) = (BytesMut::new(), 0);
        let mut lines = Vec::new();
        for part in [&b"\n\none"[..], b"", b" line\n\ntwo\n", b"\n", b"thr", b"ee\n"] {
            pending.extend_from_slice(part);
            while let Some(line) = take_line(&mut pending, &mut searched) {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
        }
        assert_eq!(lines, ["one line", "two", "three"]);
        assert!(pending.is_empty());
    }
}
