//! What an instance of a component owns on the host's side: the data of its store.

use std::sync::Arc;

use marram_core::Failure;
use marram_core::limits::HANDLES_MAX;
use marram_core::record::Source;
use marram_core::trace::TraceContext;
use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::console::{Console, Pipe};
use crate::cpu::SharedPollClock;
use crate::deployed::Deployed;
use crate::hooks::Hooks;
use crate::js;
use crate::limiter::Limiter;
use crate::reach::Reach;
use crate::room::Room;
use crate::trap::{self, LimitError};

/// Bytes of a header section as the guest's toolchain sees it, in memory. The gateway bounds it on the wire.
const FIELDS_BYTES_MAX: usize = 256 << 10;

/// The data of a component's store.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    pub(crate) limiter: Limiter,
    pub(crate) room: Room,
    pub(crate) clock: SharedPollClock,
    pub(crate) console: Arc<Console>,
    pub(crate) deployed: Arc<Deployed>,
}

impl GuestState {
    /// What the guest holds of the host.
    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// How far the function reaches into the node's state.
    pub(crate) fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.deployed.reach)
    }

    /// The trace of a run that the instance is in.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.console.any().map(|invocation| invocation.call.trace)
    }

    /// A store for a new instance, with every limit armed.
    pub(crate) fn store(engine: &wasmtime::Engine, deployed: &Arc<Deployed>, clock: &SharedPollClock) -> Store<Self> {
        let console = Console::new(Arc::clone(deployed));
        let mut wasi = WasiCtx::builder();
        wasi.stdout(Pipe::new(&console, Source::Stdout)).stderr(Pipe::new(&console, Source::Stderr));
        for (key, value) in &deployed.config {
            wasi.env(key, value);
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELDS_BYTES_MAX);
        let state = Self {
            wasi: wasi.build(),
            http,
            table,
            hooks: Hooks::new(Arc::clone(&console), Arc::clone(deployed)),
            limiter: Limiter::new(&deployed.limits, Arc::clone(clock)),
            room: Room::default(),
            clock: Arc::clone(clock),
            console,
            deployed: Arc::clone(deployed),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        interrupt_at_each_tick(&mut store, |state| &state.clock);
        store
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

/// The data of a store of the JavaScript engine.
pub(crate) struct JsState {
    limiter: Limiter,
    clock: SharedPollClock,
    deployed: Arc<Deployed>,
    last_words: String,
}

impl JsState {
    /// A store for a new instance, with every limit armed.
    pub(crate) fn store(engine: &wasmtime::Engine, deployed: &Arc<Deployed>, clock: &SharedPollClock) -> Store<Self> {
        let state = Self {
            limiter: Limiter::new(&deployed.limits, Arc::clone(clock)),
            clock: Arc::clone(clock),
            deployed: Arc::clone(deployed),
            last_words: String::new(),
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        interrupt_at_each_tick(&mut store, |state| &state.clock);
        store
    }
}

impl js::State for JsState {
    fn unix_us(&self) -> f64 {
        self.deployed.clock.unix_ns() as f64 / 1e3
    }

    fn monotonic_us(&self) -> f64 {
        // JavaScript sees differences only.
        self.deployed.clock.instant().saturating_duration_since(self.deployed.started).as_nanos() as f64 / 1e3
    }

    fn fill_random(&self, buffer: &mut [u8]) -> wasmtime::Result<()> {
        getrandom::fill(buffer).map_err(|error| wasmtime::Error::msg(error.to_string()))
    }

    fn last_words(&mut self, text: &str) {
        text.clone_into(&mut self.last_words);
    }

    fn clock(&self) -> &SharedPollClock {
        &self.clock
    }

    fn failure(&self, error: wasmtime::Error) -> Failure {
        let error = if self.last_words.is_empty() { error } else { error.context(self.last_words.clone()) };
        trap::at_instantiation(error, self.limiter.refused(), &self.deployed.limits)
    }
}

/// Stops a guest that has used up its CPU time, and lets the others of its thread run otherwise: also those who wait for a socket,
/// which a thread of tokio looks for only now and then while it has tasks, but always before it goes on with one that yields so.
fn interrupt_at_each_tick<T: 'static>(store: &mut Store<T>, clock: fn(&T) -> &SharedPollClock) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |store| {
        if clock(store.data()).is_over() {
            return Err(LimitError::Cpu.into());
        }
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
}
