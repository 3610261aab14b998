//! The OpenAPI 3.1 document, from the table of operations and the types of [`crate::api`].

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::{Content, Operation};
use marram_core::problem::{PROBLEM_JSON, Problem};

/// The document of these operations.
pub(super) fn document(operations: &[Operation]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in operations {
        let path = operation.path.replace("{*", "{");
        let item = paths.entry(path).or_insert_with(|| json!({})).as_object_mut().expect("made an object above");
        item.insert(operation.method.as_str().to_ascii_lowercase(), describe(operation, &mut generator));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Marram admin API",
            "version": "1",
            "summary": "Deploy functions to a node, run them, watch them.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(operation, generator),
        "responses": answers(operation, generator),
    });
    if let Some(content) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": media(content, generator) });
    }
    if operation.open {
        described["security"] = json!([]);
    }
    described
}

fn parameters(operation: &Operation, generator: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = operation.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = in_path
        .map(|name| json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = operation.query {
        parameters.extend(query_parameters(query(generator), generator));
    }
    parameters
}

/// The fields of the query's type, each a parameter.
fn query_parameters(schema: Schema, generator: &SchemaGenerator) -> Vec<Value> {
    let named = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
    let object = named.and_then(|name| generator.definitions().get(name)).cloned().unwrap_or_else(|| schema.to_value());
    let required = object["required"].as_array().cloned().unwrap_or_default();
    let Some(properties) = object["properties"].as_object() else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description")).unwrap_or_default();
        let required = required.iter().any(|required| required == name);
        json!({ "name": name, "in": "query", "required": required, "description": description, "schema": schema })
    };
    properties.iter().map(parameter).collect()
}

fn answers(operation: &Operation, generator: &mut SchemaGenerator) -> Map<String, Value> {
    let mut answers = Map::new();
    for answer in &operation.answers {
        let mut described = json!({ "description": answer.summary });
        if let Some(content) = answer.content {
            described["content"] = media(content, generator);
        }
        answers.insert(answer.status.to_string(), described);
    }
    let problem = generator.subschema_for::<Problem>();
    answers.insert(
        "default".to_owned(),
        json!({ "description": "What went wrong", "content": { PROBLEM_JSON: { "schema": problem } } }),
    );
    answers
}

fn media(content: Content, generator: &mut SchemaGenerator) -> Value {
    match content {
        Content::Json(schema) => json!({ "application/json": { "schema": schema(generator) } }),
        // OpenAPI 3.1 has no word for a sequence of values: the schema is that of a line.
        Content::Lines(schema) => json!({ "application/x-ndjson": { "schema": schema(generator) } }),
        Content::Bytes(media_type) => json!({ media_type: {} }),
    }
}
