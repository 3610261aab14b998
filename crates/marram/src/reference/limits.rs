//! The limits: what a function gets, what a manifest may ask for, and what each failure means.

use anyhow::Context as _;
use marram_core::Kind;
use marram_core::limits as core;
use marram_core::limits::{LIMIT_RANGE, Limits};
use marram_core::manifest;
use marram_core::quantity::{ByteSize, Span};

use super::{GENERATED, head, row};

/// The page.
pub(crate) fn page() -> anyhow::Result<String> {
    let mut page = format!(
        "{GENERATED}# Limits\n\nEvery limit holds at the same time. A function asks for its own in `limits`:\n\n"
    );
    page.push_str(&of_functions()?);
    page.push_str("\n## Limits that are not set in the manifest\n\n");
    page.push_str(&fixed());
    page.push_str("\n## What a failure means\n\nThe kind is the last part of a problem's `type`, and the label `outcome` in metrics and usage.\n\n");
    page.push_str(&failures());
    Ok(page)
}

fn of_functions() -> anyhow::Result<String> {
    let schema = serde_json::to_value(manifest::schema())?;
    let meaning = |key: &str| {
        let text = schema["$defs"]["LimitsTable"]["properties"][key]["description"].as_str();
        // The rest of the description is the range, which has columns of its own.
        text.and_then(|text| text.split([',', ';']).next())
            .map(str::to_owned)
            .with_context(|| format!("the schema has no limit `{key}`"))
    };
    let (range, default) = (LIMIT_RANGE, Limits::default());
    let rows = [
        ("memory", default.memory.to_string(), range.memory.0.to_string(), range.memory.1.to_string()),
        ("deadline", Span(default.deadline).to_string(), range.deadline.0.to_string(), range.deadline.1.to_string()),
        ("cpu", Span(default.cpu).to_string(), range.cpu.0.to_string(), range.cpu.1.to_string()),
        (
            "concurrency",
            default.concurrency.to_string(),
            range.concurrency.0.to_string(),
            range.concurrency.1.to_string(),
        ),
        ("queue", default.queue.to_string(), range.queue.0.to_string(), range.queue.1.to_string()),
        ("body", default.body.to_string(), range.body.0.to_string(), range.body.1.to_string()),
        ("log", default.log.to_string(), range.log.0.to_string(), range.log.1.to_string()),
    ];
    let mut table = head(["Limit", "What it limits", "Default", "Least", "Most"]);
    for (key, default, least, most) in rows {
        table.push_str(&row([&format!("`{key}`"), &meaning(key)?, &default, &least, &most]));
    }
    Ok(table)
}

fn fixed() -> String {
    let bytes = |bytes: usize| ByteSize(bytes as u64).to_string();
    let rows = [
        ("Functions of an app", core::FUNCTIONS_MAX.to_string()),
        ("Triggers of a function", core::TRIGGERS_MAX.to_string()),
        ("Entries of `config`, of `secrets`, and of each list below `allow`", core::ENTRIES_MAX.to_string()),
        ("One value of `config`, one secret", bytes(core::VALUE_BYTES_MAX)),
        ("A manifest", bytes(core::MANIFEST_BYTES_MAX)),
        ("A component", bytes(core::COMPONENT_BYTES_MAX)),
        ("Requests that an instance serves before it is replaced (`reuse`)", core::REUSE_MAX.to_string()),
        ("Requests at the same time in one instance (`concurrent`)", core::CONCURRENT_MAX.to_string()),
        ("Instances kept ready (`warm`)", core::WARM_MAX.to_string()),
        ("Resource handles of an instance", core::HANDLES_MAX.to_string()),
        ("Table elements of an instance", core::TABLE_ELEMENTS_MAX.to_string()),
        ("One log line; a longer one is cut and marked", bytes(core::LOG_LINE_BYTES_MAX)),
        ("How deeply functions call each other through `<function>.internal`", core::INTERNAL_DEPTH_MAX.to_string()),
        ("How late a deadline or a CPU limit takes hold, at most", "20ms".to_owned()),
    ];
    rows.iter().fold(head(["What", "Most"]), |table, (what, most)| table + &row([what, most]))
}

fn failures() -> String {
    Kind::ALL.iter().fold(head(["Kind", "Status", "Whose fault", "What happened"]), |table, kind| {
        let blame = match kind.blame() {
            marram_core::Blame::Caller => "the caller's",
            marram_core::Blame::Guest => "the function's",
            marram_core::Blame::Host => "the node's",
        };
        table + &row([&format!("`{}`", kind.label()), &kind.status().to_string(), blame, kind.title()])
    })
}
