//! Promises that were rejected and that nobody has handled by the end of a turn's event: each is one line in the log.

use rquickjs::{Ctx, Persistent, Runtime, Value};
use std::cell::RefCell;

use crate::{actions, error};

/// More than these in one event are only counted.
const LISTED_MAX: usize = 16;

thread_local! {
    static PENDING: RefCell<Vec<(Persistent<Value<'static>>, Persistent<Value<'static>>)>> = const { RefCell::new(Vec::new()) };
}

/// Starts listening.
pub(crate) fn track_rejections(runtime: &Runtime) {
    runtime.set_host_promise_rejection_tracker(Some(Box::new(|ctx, promise, reason, handled| {
        PENDING.with_borrow_mut(|pending| {
            if handled {
                pending.retain(|(known, _)| known.clone().restore(&ctx).is_ok_and(|known| known != promise));
            } else if pending.len() < LISTED_MAX {
                pending.push((Persistent::save(&ctx, promise), Persistent::save(&ctx, reason)));
            }
        });
    })));
}

/// Logs what is still unhandled; whether there was anything.
pub(crate) fn report_rejections(ctx: &Ctx<'_>) -> bool {
    let pending = PENDING.with_borrow_mut(std::mem::take);
    let any = !pending.is_empty();
    for (_, reason) in pending {
        let Ok(reason) = reason.restore(ctx) else { continue };
        let error = error::thrown(reason, &super::file());
        let text = format!("unhandled rejection: {}: {}\n{}", error.name, error.message, error.stack);
        actions::complain(0, text.trim_end());
    }
    any
}
