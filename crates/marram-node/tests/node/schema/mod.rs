//! Just enough of JSON Schema (2020-12) to hold an answer to its schema. A keyword that is not known here fails, so that
//! nothing passes unlooked at; and so does a property that the schema does not name.

use serde_json::Value;

/// What is wrong with `value` by `schema`; `document` is where `$ref` points into.
pub fn check(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(rules) = schema.as_object() else { return Ok(()) };
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "$ref" => {
                let pointer =
                    rule.as_str().and_then(|reference| reference.strip_prefix('#')).ok_or("a foreign $ref")?;
                let target = document.pointer(pointer).ok_or_else(|| format!("{pointer} is not in the document"))?;
                check(document, target, value, at)?;
            }
            "type" => check_type(rule, value, at)?,
            "enum" if !rule.as_array().is_some_and(|values| values.contains(value)) => {
                return Err(format!("{at}: {value} is none of {rule}"));
            }
            "const" if rule != value => return Err(format!("{at}: {value} is not {rule}")),
            "anyOf" | "oneOf" => {
                let choices = rule.as_array().ok_or("no list of choices")?;
                let failed: Vec<_> = choices.iter().map(|choice| check(document, choice, value, at)).collect();
                if failed.iter().all(Result::is_err) {
                    return Err(format!("{at}: none of the choices: {failed:?}"));
                }
            }
            "required" => {
                for name in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        return Err(format!("{at}: `{name}` is missing"));
                    }
                }
            }
            "properties" => check_properties(document, rules, value, at)?,
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, rule, item, &format!("{at}[{n}]"))?;
                }
            }
            "minimum" if value.as_f64() < rule.as_f64() => return Err(format!("{at}: {value} is below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => return Err(format!("{at}: {value} is above {rule}")),
            "pattern" => check_pattern(rule, value, at)?,
            "maxLength" if value.as_str().map(str::len) > rule.as_u64().map(|length| length as usize) => {
                return Err(format!("{at}: longer than {rule}"));
            }
            "enum" | "const" | "minimum" | "maximum" | "maxLength" | "additionalProperties" => {}
            "description" | "title" | "format" | "default" | "examples" => {}
            unknown => return Err(format!("{at}: the keyword {unknown} is not known to this check")),
        }
    }
    Ok(())
}

fn check_type(rule: &Value, value: &Value, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    let names = rule.as_array().map_or_else(|| vec![rule], |names| names.iter().collect());
    let any = names.iter().filter_map(|name| name.as_str()).any(is);
    if any { Ok(()) } else { Err(format!("{at}: {value} is not of type {rule}")) }
}

fn check_properties(
    document: &Value,
    rules: &serde_json::Map<String, Value>,
    value: &Value,
    at: &str,
) -> Result<(), String> {
    let known = rules["properties"].as_object().ok_or("properties are an object")?;
    for (name, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (known.get(name), rules.get("additionalProperties")) {
            (Some(schema), _) => check(document, schema, value, &at)?,
            (None, Some(schema)) if schema.is_object() => check(document, schema, value, &at)?,
            (None, _) => return Err(format!("{at} is not in the schema")),
        }
    }
    Ok(())
}

/// The patterns of the API are few; each is checked by what it means.
fn check_pattern(rule: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Ok(()) };
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
    let fits = match rule.as_str().unwrap_or_default() {
        "^sha256:[0-9a-f]{64}$" => text.strip_prefix("sha256:").is_some_and(|digits| hex(digits, 64)),
        "^[0-9a-f]{16}$" => hex(text, 16),
        "^[0-9a-f]{32}$" => hex(text, 32),
        "^[a-z]([a-z0-9-]*[a-z0-9])?$" => marram_core::Name::new(text).is_ok(),
        other => return Err(format!("{at}: the pattern {other} is not known to this check")),
    };
    if fits { Ok(()) } else { Err(format!("{at}: {text:?} does not match {rule}")) }
}
