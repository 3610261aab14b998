//! The manifest: every table and key, from its JSON schema.

use std::fmt::Write as _;

use anyhow::Context as _;
use marram_core::manifest;
use serde_json::Value;

use super::{GENERATED, head, row};

/// How deep types refer to each other at most.
const DEPTH_MAX: usize = 8;

/// The page.
pub(crate) fn page() -> anyhow::Result<String> {
    let schema = serde_json::to_value(manifest::schema())?;
    let mut page = format!("{GENERATED}# The manifest\n\n");
    page.push_str(
        "`marram.toml` says what an app is: its functions, what starts them, what they may use and reach, and its streams. A key that is not \
         listed here is an error. For editors there is a JSON schema: `marram reference schema`.\n",
    );
    table(&schema, &schema, "", "The whole file", &mut page, 0)?;
    Ok(page)
}

/// A section for one type, then sections for the types in it.
fn table(root: &Value, schema: &Value, path: &str, title: &str, page: &mut String, depth: usize) -> anyhow::Result<()> {
    anyhow::ensure!(depth < DEPTH_MAX, "the manifest's types refer to each other in a circle");
    let properties =
        schema["properties"].as_object().with_context(|| format!("the schema of {title} has no properties"))?;
    let _ = write!(page, "\n## {title}\n\n");
    if let Some(text) = schema["description"].as_str() {
        let _ = write!(page, "{text}\n\n");
    }
    page.push_str(&head(["Key", "Type", "", "Meaning"]));
    let required = |key: &str| schema["required"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
    let mut below = Vec::new();
    for (key, property) in properties {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let needed = if required(key) { "required".to_owned() } else { default(property) };
        let description = property["description"].as_str().unwrap_or_default();
        page.push_str(&row([&format!("`{key}`"), &kind(root, property), &needed, description]));
        if let Some(inner) = by_name(root, property) {
            if inner["properties"].is_object() {
                below.push((inner, format!("{full}.<name>"), format!("`[{full}.<name>]`")));
            }
        } else if let Some((inner, many)) = object(root, property) {
            let title = if path.is_empty() && many {
                format!("`[[{full}]]`")
            } else if path.is_empty() {
                format!("`[{full}]`")
            } else {
                format!("`{full}`")
            };
            below.push((inner, full, title));
        }
    }
    for (inner, full, title) in below {
        table(root, inner, &full, &title, page, depth + 1)?;
    }
    Ok(())
}

fn default(property: &Value) -> String {
    match &property["default"] {
        Value::Null | Value::Object(_) => String::new(),
        Value::Array(list) if list.is_empty() => String::new(),
        value => format!("default `{value}`"),
    }
}

/// The type in words.
fn kind(root: &Value, property: &Value) -> String {
    let property = resolve(root, property);
    if let Some(options) = property["anyOf"].as_array().or(property["oneOf"].as_array()) {
        let mut kinds: Vec<_> =
            options.iter().filter(|option| option["type"] != "null").map(|option| kind(root, option)).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    if let Some(values) = property["enum"].as_array() {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ");
    }
    if let Some(value) = property.get("const") {
        return format!("`{value}`");
    }
    let named = match &property["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or("value"),
        _ => "value",
    };
    match named {
        "array" => format!("list of {}", kind(root, &property["items"])),
        "object" if property["properties"].is_object() => "table".into(),
        "object" if property["patternProperties"].is_object() => "tables by name".into(),
        "object" => "table of strings".into(),
        "string" if property["pattern"].as_str().is_some_and(|pattern| pattern.contains("KiB")) => "size".into(),
        "string" if property["pattern"].as_str().is_some_and(|pattern| pattern.contains("ms|")) => "duration".into(),
        other => other.into(),
    }
}

/// The table of which a property has one for each name.
fn by_name<'a>(root: &'a Value, property: &'a Value) -> Option<&'a Value> {
    property["patternProperties"].as_object()?.values().next().map(|table| resolve(root, table))
}

/// The table that a property is or lists, and whether it lists them.
fn object<'a>(root: &'a Value, property: &'a Value) -> Option<(&'a Value, bool)> {
    let property = resolve(root, property);
    if property["properties"].is_object() {
        return Some((property, false));
    }
    if property["items"].is_object() {
        return object(root, &property["items"]).map(|(inner, _)| (inner, true));
    }
    property["anyOf"].as_array().or(property["oneOf"].as_array())?.iter().find_map(|option| object(root, option))
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}
