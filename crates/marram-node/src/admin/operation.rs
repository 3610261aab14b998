//! The table that the admin API is made of: router and OpenAPI document both come from it, so neither can say what the
//! other does not.

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::Admin;

/// Makes the schema of one type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One method of one path.
pub(super) struct Operation {
    pub(super) method: Method,
    /// As axum writes it: `{app}`, `{*path}`.
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// The type whose fields are the query's parameters.
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<Content>,
    pub(super) answers: Vec<Answer>,
    /// Whether it answers without a token.
    pub(super) open: bool,
    pub(super) handler: MethodRouter<Arc<Admin>>,
}

/// A body.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// `application/json` of this schema.
    Json(SchemaOf),
    /// `application/x-ndjson`: a line, and a JSON value of this schema, for each.
    Lines(SchemaOf),
    /// Bytes of this media type.
    Bytes(&'static str),
}

/// An answer that is not a problem.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) summary: &'static str,
    pub(super) content: Option<Content>,
}

impl Operation {
    /// An operation whose particulars follow.
    pub(super) fn new<T: 'static, H: Handler<T, Arc<Admin>>>(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self {
        let filter = MethodFilter::try_from(method.clone()).expect("the methods of the table are standard ones");
        let handler = on(filter, handler);
        Self { method, path, id, summary, query: None, body: None, answers: Vec::new(), open: false, handler }
    }

    /// Its query is a `T`.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema::<T>), ..self }
    }

    /// It takes a `T`.
    pub(super) fn takes<T: JsonSchema>(self) -> Self {
        Self { body: Some(Content::Json(schema::<T>)), ..self }
    }

    /// It takes bytes.
    pub(super) fn takes_bytes(self) -> Self {
        Self { body: Some(Content::Bytes("application/octet-stream")), ..self }
    }

    /// It answers with a `T`.
    pub(super) fn json<T: JsonSchema>(self, status: u16, summary: &'static str) -> Self {
        self.answer(status, summary, Some(Content::Json(schema::<T>)))
    }

    /// It answers with one `T` a line.
    pub(super) fn lines<T: JsonSchema>(self, status: u16, summary: &'static str) -> Self {
        self.answer(status, summary, Some(Content::Lines(schema::<T>)))
    }

    /// It answers with something else, or with nothing.
    pub(super) fn answer(mut self, status: u16, summary: &'static str, content: Option<Content>) -> Self {
        self.answers.push(Answer { status, summary, content });
        self
    }

    /// It answers without a token.
    pub(super) fn open(self) -> Self {
        Self { open: true, ..self }
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
