//! Why a guest stopped: wasmtime's errors, classified once.

use marram_core::limits::{HANDLES_MAX, HELD_BYTES_MAX, Limits, TABLE_ELEMENTS_MAX};
use marram_core::{Failure, Kind};
use wasmtime::Trap;
use wasmtime::component::ResourceTableError;

use crate::limiter::Refused;

/// A limit that the host enforces by stopping the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitError {
    #[error("the limit of CPU time is reached")]
    Cpu,
    #[error("the limit of what the host holds is reached")]
    Held,
}

/// The failure that `error` is. `refused` is what the instance asked for in vain before, if anything.
pub(crate) fn classify(error: wasmtime::Error, refused: Option<Refused>, limits: &Limits) -> Failure {
    match error.downcast_ref::<LimitError>() {
        Some(LimitError::Cpu) => return cpu(limits),
        Some(LimitError::Held) => {
            let message = format!(
                "it has more than {HELD_BYTES_MAX} bytes with the host (messages, objects on their way): use them up, or drop them"
            );
            return Failure::new(Kind::ResourceLimit, message);
        }
        None => {}
    }
    if let Some(refused) = refused {
        return memory(refused, limits).because(error.into_boxed_dyn_error());
    }
    if matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full)) {
        let message =
            format!("it has more than {HANDLES_MAX} open handles (streams, headers, requests): close them after use");
        return Failure::new(Kind::ResourceLimit, message);
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return Failure::new(Kind::Trap, format!("the function called exit({}) instead of answering", exit.0));
    }
    let message = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "the function crashed: its stack is exhausted, perhaps by endless recursion",
        Some(_) | None => "the function crashed; its log says where",
    };
    Failure::new(Kind::Trap, message).because(detailed(&error))
}

/// The failure that an instance could not be made with.
pub(crate) fn at_instantiation(error: wasmtime::Error, refused: Option<Refused>, limits: &Limits) -> Failure {
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        let message = "all instances of this node are in use: try again later";
        return Failure::new(Kind::Overloaded, message).because(error.into_boxed_dyn_error());
    }
    classify(error, refused, limits)
}

/// The function went over its limit of CPU time.
pub(crate) fn cpu(limits: &Limits) -> Failure {
    let message = format!(
        "the function used more than its {:?} of CPU time: raise `cpu` in its limits, or do less in one request",
        limits.cpu
    );
    Failure::new(Kind::CpuLimit, message)
}

/// The function was stopped for another request, which went over its limit of CPU time in the same instance.
pub(crate) fn cpu_of_another(limits: &Limits) -> Failure {
    let message = format!(
        "the function was stopped with its instance, in which another request used more than its {:?} of CPU time: raise `cpu` in its limits, or write `instances = {{ concurrent = 1 }}`",
        limits.cpu
    );
    Failure::new(Kind::CpuLimit, message)
}

/// The function did not end in time.
pub(crate) fn deadline(limits: &Limits) -> Failure {
    let message = format!(
        "the function took longer than its {:?}: raise `deadline` in its limits, or answer sooner",
        limits.deadline
    );
    Failure::new(Kind::Deadline, message)
}

fn memory(refused: Refused, limits: &Limits) -> Failure {
    let message = match refused {
        Refused::Memory => {
            format!("the function asked for more than its {} of memory: raise `memory` in its limits", limits.memory)
        }
        Refused::Table => format!("the function asked for tables of more than {TABLE_ELEMENTS_MAX} elements"),
    };
    Failure::new(Kind::ResourceLimit, message)
}

/// The whole chain in one text: the trap, and the guest's frames below it.
fn detailed(error: &wasmtime::Error) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{error:?}").into()
}
