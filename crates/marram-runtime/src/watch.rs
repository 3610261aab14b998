//! What a function needs that exports `wasi:keyvalue/watcher`, checked when it is deployed.

use marram_core::manifest::{Function, On};
use marram_core::{Failure, Kind as FailureKind};
use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::{ComponentItem, Type};

use crate::kind::Kind;

/// A draft of the interface that a component exports, and the one that its bucket is of.
pub(crate) struct Draft {
    pub(crate) watcher: &'static str,
    pub(crate) store: &'static str,
}

/// The drafts; the first of them that a component exports is called.
static DRAFTS: [Draft; 2] = [
    Draft { watcher: "wasi:keyvalue/watcher@0.2.0-draft2", store: "wasi:keyvalue/store@0.2.0-draft2" },
    Draft { watcher: "wasi:keyvalue/watcher@0.2.0-draft", store: "wasi:keyvalue/store@0.2.0-draft" },
];

/// The draft that is called, if the component watches keys.
pub(crate) fn draft(component: &Component) -> Option<&'static Draft> {
    DRAFTS.iter().find(|draft| component.get_export_index(None, draft.watcher).is_some())
}

/// Refuses a function whose component watches keys, and whose manifest asks for something else of it.
pub(crate) fn check(engine: &Engine, component: &Component, kind: Kind, function: &Function) -> Result<(), Failure> {
    let Some(draft) = draft(component) else { return Ok(()) };
    let told = match kind {
        Kind::Watcher => check_alone(draft, function),
        _ => None,
    };
    let told = told.or_else(|| check_batch(draft, function)).or_else(|| check_types(engine, component, draft));
    told.map_or(Ok(()), |message| Err(Failure::new(FailureKind::Invalid, message)))
}

/// A component without an HTTP handler takes changes of keys, and answers nothing.
fn check_alone(draft: &Draft, function: &Function) -> Option<String> {
    let exports = format!("the component exports {} and no HTTP handler", draft.watcher);
    let handler = "export wasi:http/incoming-handler@0.2 as well";
    if function.on.is_empty() {
        return Some(format!(
            "{exports}, so only changes of keys can start it: add a trigger such as `on = [{{ key = \"<bucket>/*\" }}]`, or {handler}"
        ));
    }
    if let Some(other) = function.on.iter().find(|on| !matches!(on, On::Key(_))) {
        let source = other.source();
        return Some(format!(
            "{exports}, so it cannot take its trigger `{source}`: take that out of `on`, or {handler}"
        ));
    }
    let output = function.output.as_ref()?;
    Some(format!("{exports}, so nothing can go to its output \"{output}\": take `output` out, or {handler}"))
}

fn check_batch(draft: &Draft, function: &Function) -> Option<String> {
    let batched = function
        .on
        .iter()
        .find(|on| matches!(on, On::Key(_)) && on.delivery().is_some_and(|delivery| delivery.batch.is_some()))?;
    let (source, watcher) = (batched.source(), draft.watcher);
    Some(format!(
        "its trigger `{source}` has a `batch`, and the component exports {watcher}, which takes one change at a time: take `batch` out, or export the HTTP handler only"
    ))
}

fn check_types(engine: &Engine, component: &Component, draft: &Draft) -> Option<String> {
    let watcher = draft.watcher;
    let wrong = |name: &str| {
        format!(
            "the component's `{name}` of {watcher} has another type than the draft says: make its bindings again from the WIT of wasi:keyvalue"
        )
    };
    let Some(ComponentItem::ComponentInstance(interface)) =
        component.component_type().get_export(engine, watcher).map(|export| export.ty)
    else {
        return Some(wrong("instance"));
    };
    for (name, expected) in [("on-set", 3), ("on-delete", 2)] {
        let Some(ComponentItem::ComponentFunc(function)) = interface.get_export(engine, name).map(|export| export.ty)
        else {
            return Some(wrong(name));
        };
        let params: Vec<_> = function.params().map(|(_, ty)| ty).collect();
        let fits = match &params[..] {
            [Type::Own(_), Type::String] => expected == 2,
            [Type::Own(_), Type::String, Type::List(value)] => expected == 3 && value.ty() == Type::U8,
            _ => false,
        };
        if !fits || function.results().len() > 0 {
            return Some(wrong(name));
        }
    }
    None
}
