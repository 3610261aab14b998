//! The wasmtime engine of a node: pooled instances, copy-on-write memories, and the clock tick that interrupts guests.

use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use marram_core::limits::TABLE_ELEMENTS_MAX;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::functions::Functions;

/// Native stack of a guest. QuickJS and CPython recurse in C, so the default of 512 KiB is too little: QuickJS throws at
/// 512 KiB of its own stack, and has to get there first.
const WASM_STACK_BYTES: usize = 2 << 20;
/// Stack of the fiber that a guest runs on: the guest's and what host calls need above it.
const FIBER_STACK_BYTES: usize = 3 << 20;
/// Of a memory that is given back, this much is cleared in place instead of being unmapped and faulted in again. Three
/// quarters of the cost of a fresh instance were page faults.
const MEMORY_KEEP_BYTES: usize = 2 << 20;
/// The same where pages can be swapped out: then all of it is cleared each time, and not only what was written to.
const MEMORY_KEEP_BYTES_SWAPPING: usize = 128 << 10;
/// The same for tables and stacks.
const TABLE_KEEP_BYTES: usize = 64 << 10;
const STACK_KEEP_BYTES: usize = 64 << 10;
/// Slots that remember the function they ran: more of them means more resident memory on a node with many functions.
const WARM_SLOTS: u32 = 32;
/// Largest linear memory: all that 32-bit addresses reach.
const MEMORY_BYTES_MAX: usize = 4 << 30;

/// Whether instances come from a pool, or are mapped one by one where there is no room for a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Slots set aside at start.
    Pooled,
    /// Mapped when needed: small address spaces, such as 32-bit ones and those of small ARM boards.
    OnDemand,
}

/// Whether guests may have several calls under way in one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Components of 0.2 and core modules: wasmtime keeps no tasks for a call.
    OneAtATime,
    /// The asynchronous component model, which 0.3 stands on.
    Concurrent,
}

const ENGINES: [(&str, Allocation, Calls); 4] = [
    ("pooled", Allocation::Pooled, Calls::OneAtATime),
    ("pooled-concurrent", Allocation::Pooled, Calls::Concurrent),
    ("on-demand", Allocation::OnDemand, Calls::OneAtATime),
    ("on-demand-concurrent", Allocation::OnDemand, Calls::Concurrent),
];

/// What an engine of these settings is called between a node and its compiler.
pub(crate) fn label(allocation: Allocation, calls: Calls) -> &'static str {
    ENGINES.into_iter().find(|known| (known.1, known.2) == (allocation, calls)).expect("all four are listed").0
}

/// Builds the engine, falling back from a large pool to a small one and then to none.
pub(crate) fn build(instances_max: u32, calls: Calls) -> anyhow::Result<(Engine, Allocation)> {
    let mut refused = None;
    for instances in [instances_max, instances_max / 4, instances_max / 16] {
        if instances == 0 {
            continue;
        }
        let mut config = base(calls);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
        match Engine::new(&config) {
            Ok(engine) => return Ok((engine, Allocation::Pooled)),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        tracing::warn!(%error, "no address space for a pool of instances: mapping them one by one, which is slower");
    }
    let engine = Engine::new(&on_demand(calls)).map_err(crate::plain).context("the WebAssembly engine cannot start")?;
    Ok((engine, Allocation::OnDemand))
}

/// An engine whose code the one of this label takes, and that has room for nothing else. It finds and leaves compiled
/// functions in `functions`.
pub(crate) fn for_compiling(label: &str, functions: Option<Arc<Functions>>) -> anyhow::Result<Engine> {
    let known = ENGINES.into_iter().find(|known| known.0 == label);
    let (_, allocation, calls) = known.context("this is started by a node, not by hand")?;
    let mut config = on_demand(calls);
    if allocation == Allocation::Pooled {
        config = base(calls);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(1)));
    }
    if let Some(functions) = functions {
        config.enable_incremental_compilation(functions).map_err(crate::plain)?;
    }
    Engine::new(&config).map_err(crate::plain).context("the WebAssembly engine cannot start")
}

fn on_demand(calls: Calls) -> Config {
    let mut config = base(calls);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    // What a small address space has to give is given to guests and not to guard pages.
    config.memory_reservation(0).memory_guard_size(64 << 10).memory_reservation_for_growth(1 << 20);
    config
}

fn base(calls: Calls) -> Config {
    let concurrent = calls == Calls::Concurrent;
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .wasm_component_model_async(concurrent)
        .concurrency_support(concurrent)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(32));
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    // A component is often several core modules: the guest and the adapters of its toolchain.
    let cores = instances.saturating_mul(4);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(cores)
        .total_memories(instances)
        .total_tables(cores)
        .total_stacks(instances)
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_memories_per_module(8)
        .max_tables_per_component(64)
        // One of functions, and those of references to what the host or a garbage collector holds.
        .max_tables_per_module(8)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(MEMORY_BYTES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(if may_swap() { MEMORY_KEEP_BYTES_SWAPPING } else { MEMORY_KEEP_BYTES })
        .table_keep_resident(TABLE_KEEP_BYTES)
        .async_stack_keep_resident(STACK_KEEP_BYTES)
        .pagemap_scan(if may_swap() { Enabled::No } else { Enabled::Auto });
    pool
}

/// Whether pages of this machine can be swapped out. wasmtime 48 asks for written pages that are present before it gives a memory to the
/// next instance, and so overlooks what was swapped out: that instance would read what another one has written.
fn may_swap() -> bool {
    static SWAPS: LazyLock<bool> =
        LazyLock::new(|| std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| lists_swap(&swaps)));
    *SWAPS
}

/// A line of titles, then one for each area (proc_swaps(5)).
fn lists_swap(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_of_swap_are_seen() {
        let titles = "Filename\t\t\tType\t\tSize\tUsed\tPriority\n";
        assert!(!lists_swap(titles) && !lists_swap(""));
        assert!(lists_swap(&format!("{titles}/dev/zram0 partition 524284 0 100\n")));
    }
}
