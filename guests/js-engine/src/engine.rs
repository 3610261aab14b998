//! The engine: boots the prelude, loads one module, and turns events into calls of the prelude's handlers.

use marram_js_abi::{Action, Batch, BodyIn, Code, Event, Load, Loaded, ScriptError, Source, decode};
use rquickjs::function::{Args, IntoArgs};
use rquickjs::object::Property;
use rquickjs::promise::PromiseState;
use rquickjs::{Context, Ctx, Error, Function, Module, Object, Persistent, Result, Runtime, TypedArray, Value};

use crate::modules::NoImports;
use crate::{actions, error, native, say};

/// JavaScript's stack, in bytes of the module's shadow stack. The linker gives 1 MiB; the rest is for what runs between two
/// checks. QuickJS throws a RangeError at the limit.
const STACK_BYTES_MAX: usize = 512 * 1024;
/// No collection before this much is allocated: a fresh instance that answers one request never needs one, and a
/// collection touches every page. QuickJS sets its own threshold after the first.
const FIRST_COLLECTION_BYTES: usize = 8 * 1024 * 1024;

/// The prelude, in the order in which its parts need each other; one function, so that its names stay its own.
const PRELUDE: &str = concat!(
    "(function (host) { 'use strict';\n",
    include_str!("../prelude/core.js"),
    include_str!("../prelude/events.js"),
    include_str!("../prelude/text.js"),
    include_str!("../prelude/url.js"),
    include_str!("../prelude/blob.js"),
    include_str!("../prelude/headers.js"),
    include_str!("../prelude/source.js"),
    include_str!("../prelude/body.js"),
    include_str!("../prelude/request.js"),
    include_str!("../prelude/response.js"),
    include_str!("../prelude/formdata.js"),
    include_str!("../prelude/fetch.js"),
    include_str!("../prelude/timers.js"),
    include_str!("../prelude/locale.js"),
    include_str!("../prelude/clone.js"),
    include_str!("../prelude/state.js"),
    include_str!("../prelude/collections.js"),
    include_str!("../prelude/objects.js"),
    include_str!("../prelude/env.js"),
    include_str!("../prelude/crypto.js"),
    include_str!("../prelude/inspect.js"),
    include_str!("../prelude/console.js"),
    include_str!("../prelude/serve.js"),
    "\n})"
);
/// The WHATWG streams, fetched from their registry by build.sh.
const STREAMS: &str = include_str!(env!("MARRAM_JS_STREAMS"));

/// A handler of the prelude.
type Handler = Persistent<Function<'static>>;

struct Handlers {
    start: Handler,
    request: Handler,
    chunk: Handler,
    end: Handler,
    broken: Handler,
    head: Handler,
    fetch_failed: Handler,
    timer: Handler,
    drained: Handler,
    cancel: Handler,
    call_result: Handler,
    settled: Handler,
}

/// One JavaScript realm, and the module in it once loaded.
pub(crate) struct Engine {
    runtime: Runtime,
    context: Context,
    handlers: Handlers,
}

impl Engine {
    /// Starts QuickJS and runs the prelude.
    pub(crate) fn boot() -> std::result::Result<Self, String> {
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        runtime.set_max_stack_size(STACK_BYTES_MAX);
        runtime.set_gc_threshold(FIRST_COLLECTION_BYTES);
        runtime.set_loader(NoImports, NoImports);
        let context = Context::full(&runtime).map_err(|e| e.to_string())?;
        let handlers = context.with(|ctx| {
            prelude(&ctx).map_err(|e| {
                let error = error::caught(&ctx, e, "prelude");
                format!("{}: {}\n{}", error.name, error.message, error.stack)
            })
        })?;
        native::track_rejections(&runtime);
        if let Some(failed) = crate::take_said(|said| Batch::<Action<'_>>::new(said).find_map(failure)) {
            return Err(format!("a request of the prelude's own: {failed}"));
        }
        // What booting left behind is collected now, so that the snapshot holds no garbage.
        runtime.run_gc();
        context.with(|ctx| crate::heap::seal(&ctx));
        runtime.set_gc_threshold(FIRST_COLLECTION_BYTES);
        Ok(Self { runtime, context, handlers })
    }

    /// Evaluates a module; the answer is a `Loaded`.
    pub(crate) fn load(&mut self, inbound: &[u8]) {
        let load: Load<'_> = decode(inbound).expect("host and engine are built from the same sources");
        self.runtime.set_memory_limit(load.memory_bytes_max as usize);
        native::set_file(load.file);
        let loaded = self.context.with(|ctx| self.evaluate(&ctx, &load));
        match loaded {
            Ok(compiled) => say(&Loaded::Ready { compiled: &compiled }),
            Err(error) => say(&Loaded::Refused(error)),
        }
        // A snapshot may be taken now; every instance made from it needs randomness of its own.
        native::forget_seed();
    }

    fn evaluate(&self, ctx: &Ctx<'_>, load: &Load<'_>) -> std::result::Result<Vec<u8>, ScriptError> {
        let caught = |e: Error| error::caught(ctx, e, load.file);
        let (module, compiled) = declare(ctx, load).map_err(caught)?;
        let (module, promise) = module.eval().map_err(caught)?;
        self.run_jobs(ctx);
        match promise.state() {
            PromiseState::Resolved => {}
            PromiseState::Rejected => {
                let error = promise.result::<Value<'_>>().and_then(std::result::Result::err);
                return Err(caught(error.unwrap_or(Error::Exception)));
            }
            PromiseState::Pending => {
                let message = "the module's top-level await never ends; await inside fetch instead".into();
                return Err(ScriptError { name: "TypeError".into(), message, ..ScriptError::default() });
            }
        }
        let env = Object::new(ctx.clone()).map_err(caught)?;
        for (name, value) in &load.env {
            // Defined: an assignment to `__proto__` would set the prototype.
            env.prop(*name, Property::from(*value).writable().enumerable().configurable()).map_err(caught)?;
        }
        let namespace = module.namespace().map_err(caught)?;
        let granted: Vec<&str> = load.granted.clone();
        self.call(ctx, &self.handlers.start, (namespace, env, granted)).map_err(caught)?;
        self.run_jobs(ctx);
        Ok(compiled)
    }

    /// Takes events, says actions.
    pub(crate) fn turn(&mut self, inbound: &[u8]) {
        self.context.with(|ctx| {
            for event in Batch::<Event<'_>>::new(inbound) {
                let event = event.expect("host and engine are built from the same sources");
                if let Err(e) = self.dispatch(&ctx, event) {
                    let error = error::caught(&ctx, e, &native::file());
                    actions::complain(0, &format!("{}: {}", error.name, error.message));
                    if let Event::Request { id, .. } = event {
                        actions::fail(id, error);
                    }
                }
                self.run_jobs(&ctx);
                if native::report_rejections(&ctx) {
                    self.run_jobs(&ctx);
                }
            }
            // The prelude looks whether a request waits for something that can never happen.
            if self.call(&ctx, &self.handlers.settled, ()).is_err() {
                ctx.catch();
            }
        });
    }

    fn dispatch<'js>(&self, ctx: &Ctx<'js>, event: Event<'_>) -> Result<()> {
        let on = &self.handlers;
        match event {
            Event::Request { id, method, url, headers, body } => {
                let (kind, bytes) = body_in(ctx, body)?;
                self.call(ctx, &on.request, (id, method, url, headers, kind, bytes))
            }
            Event::Chunk { of, bytes } => self.call(ctx, &on.chunk, (key(of), native::bytes(ctx, bytes)?)),
            Event::End { of } => self.call(ctx, &on.end, (key(of),)),
            Event::Broken { of, message } => self.call(ctx, &on.broken, (key(of), message)),
            Event::Head { op, status, url, headers, body } => {
                let (kind, bytes) = body_in(ctx, body)?;
                self.call(ctx, &on.head, (op, status, url, headers, kind, bytes))
            }
            Event::FetchFailed { op, message } => self.call(ctx, &on.fetch_failed, (op, message)),
            Event::Timer { op } => self.call(ctx, &on.timer, (op,)),
            Event::Drained { to, bytes } => self.call(ctx, &on.drained, (actions::sink_key(to), bytes)),
            Event::Cancel { request } => self.call(ctx, &on.cancel, (request,)),
            Event::CallResult { op, ok, payload } => {
                self.call(ctx, &on.call_result, (op, ok, native::bytes(ctx, payload)?))
            }
        }
    }

    fn call<'js>(&self, ctx: &Ctx<'js>, handler: &Handler, args: impl IntoArgs<'js>) -> Result<()> {
        let function = handler.clone().restore(ctx)?;
        let mut list = Args::new(ctx.clone(), args.num_args());
        args.into_args(&mut list)?;
        function.call_arg(list)
    }

    /// Runs promise jobs until there are none. A job that throws has rejected its promise already.
    fn run_jobs(&self, ctx: &Ctx<'_>) {
        while ctx.execute_pending_job() {}
    }
}

fn declare<'js>(ctx: &Ctx<'js>, load: &Load<'_>) -> Result<(Module<'js>, Vec<u8>)> {
    match load.code {
        Code::Source(source) => {
            let module = Module::declare(ctx.clone(), load.file, source)?;
            let options = rquickjs::WriteOptions { strip_source: true, ..Default::default() };
            let compiled = module.write(options)?;
            Ok((module, compiled))
        }
        Code::Compiled(bytes) => Ok((native::read_compiled(ctx, bytes)?, Vec::new())),
    }
}

fn prelude(ctx: &Ctx<'_>) -> Result<Handlers> {
    script::<()>(ctx, "streams.js", STREAMS)?;
    let prelude: Function<'_> = script(ctx, "prelude.js", PRELUDE)?;
    // What compiling left behind would take in, far apart, the objects that a request counts references to.
    crate::heap::seal(ctx);
    let host = Object::new(ctx.clone())?;
    actions::install(ctx, &host)?;
    native::install(ctx, &host)?;
    let handlers: Object<'_> = prelude.call((host,))?;
    handlers.get::<_, Function<'_>>("warm")?.call::<_, ()>(())?;
    while ctx.execute_pending_job() {}
    handlers.get::<_, Function<'_>>("warmed")?.call::<_, ()>(())?;
    let handler = |name: &str| Ok::<_, Error>(Persistent::save(ctx, handlers.get::<_, Function<'_>>(name)?));
    Ok(Handlers {
        start: handler("start")?,
        request: handler("request")?,
        chunk: handler("chunk")?,
        end: handler("end")?,
        broken: handler("broken")?,
        head: handler("head")?,
        fetch_failed: handler("fetchFailed")?,
        timer: handler("timer")?,
        drained: handler("drained")?,
        cancel: handler("cancel")?,
        call_result: handler("callResult")?,
        settled: handler("settled")?,
    })
}

fn failure(action: std::result::Result<Action<'_>, marram_js_abi::Malformed>) -> Option<String> {
    match action {
        Ok(Action::Failed { error, .. }) => Some(format!("{}: {}\n{}", error.name, error.message, error.stack)),
        Ok(Action::Log { text, .. }) => Some(text.into()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn script<'js, T: rquickjs::FromJs<'js>>(ctx: &Ctx<'js>, file: &str, source: &str) -> Result<T> {
    let mut options = rquickjs::context::EvalOptions::default();
    options.filename = Some(file.into());
    ctx.eval_with_options(source, options)
}

/// The number by which the prelude knows an incoming body: even for requests, odd for fetches.
fn key(source: Source) -> f64 {
    match source {
        Source::Request(id) => f64::from(id) * 2.0,
        Source::Fetch(op) => f64::from(op) * 2.0 + 1.0,
    }
}

/// A body as the prelude takes it: 0 and nothing, 1 and the bytes, or 2 for a stream.
fn body_in<'js>(ctx: &Ctx<'js>, body: BodyIn<'_>) -> Result<(u8, Option<TypedArray<'js, u8>>)> {
    Ok(match body {
        BodyIn::None => (0, None),
        BodyIn::Full(bytes) => (1, Some(native::bytes(ctx, bytes)?)),
        BodyIn::Stream => (2, None),
    })
}
