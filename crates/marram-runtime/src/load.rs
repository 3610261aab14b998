//! From a function's file to a program that can run.

use std::sync::Arc;

use marram_core::{Digest, Failure, Kind as FailureKind};
use wasmtime::component::{Component, InstancePre};

use crate::deployed::Deployed;
use crate::engines::{self, LanguageEngine};
use crate::function::{Code, Environment};
use crate::js::JsEngine;
use crate::kind::{self, Kind};
use crate::link;
use crate::machine::Machine;
use crate::program::Program;
use crate::program::component02::Component02;
use crate::program::component03::Component03;
use crate::program::javascript::JavaScript;
use crate::shared::Shared;
use crate::state::{GuestState, JsState};

/// Maps a function's code, compiling it if it is not in the cache, and links it.
pub(crate) async fn program(environment: &Arc<Environment>, kind: Kind, code: &Code) -> Result<Program, Failure> {
    let shared = Arc::clone(&environment.shared);
    match kind {
        Kind::Component02 | Kind::Component03 | Kind::Watcher => {
            let (code, deployed) = (code.clone(), Arc::clone(&environment.deployed));
            blocking(move || {
                let (component, machine) = component(&shared, &code)?;
                of_component(machine, &component, kind, &deployed)
            })
            .await
        }
        Kind::JavaScript => {
            let text = source(code).await?;
            let engine = environment.shared.javascript.get_or_try_init(|| javascript(shared)).await?;
            let script = JavaScript::load(environment, Arc::clone(engine), &text);
            environment.beforehand(script).await.map(Program::JavaScript)
        }
        Kind::Python => {
            let text = source(code).await?;
            if let Some(source) = &environment.deployed.source {
                source.keep(text);
            }
            let engine = environment.shared.python.get_or_try_init(|| python(shared)).await?;
            let program = Component02::of_engine(engine.clone()).map_err(|error| unfit("Python", &error))?;
            Ok(Program::Component02(Arc::new(program)))
        }
    }
}

/// A function's source text, if it is still what was deployed.
async fn source(code: &Code) -> Result<String, Failure> {
    let bytes = tokio::fs::read(&code.path).await.map_err(unreadable)?;
    check_digest(&bytes, &code.digest)?;
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(FailureKind::Invalid, "the source is not UTF-8 text: save it as UTF-8"))
}

fn unreadable(error: std::io::Error) -> Failure {
    let message = "what is stored of the function cannot be read: deploy the app again";
    Failure::new(FailureKind::Internal, message).because(error)
}

/// Files and compilation block, so they have threads of their own.
pub(crate) async fn blocking<T: Send + 'static>(
    load: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let loaded = tokio::task::spawn_blocking(load).await;
    loaded.map_err(|error| Failure::new(FailureKind::Internal, "loading the function failed").because(error))?
}

/// The JavaScript engine, from the cache, or compiled.
async fn javascript(shared: Arc<Shared>) -> Result<Arc<JsEngine<JsState>>, Failure> {
    blocking(move || {
        let compile = |part: &LanguageEngine| {
            shared.machines.module(&part.digest, || part.bytes()).map_err(|error| {
                Failure::new(FailureKind::Internal, "the JavaScript engine cannot be compiled")
                    .because(format!("{error:#}"))
            })
        };
        let [code, memory] = engines::javascript()?;
        let engine = JsEngine::new(compile(code)?, compile(memory)?);
        engine.map(Arc::new).map_err(|error| unfit("JavaScript", &error))
    })
    .await
}

/// A component from the cache, or compiled from the store's blob.
pub(crate) fn component<'a>(shared: &'a Shared, code: &Code) -> Result<(Component, &'a Machine), Failure> {
    let mut refused = None;
    let loaded = shared.machines.component(&code.digest, || {
        let bytes = std::fs::read(&code.path).map_err(|error| {
            refused = Some(unreadable(error));
            anyhow::anyhow!("refused")
        })?;
        if let Err(failure) = check(&bytes, &code.digest) {
            refused = Some(failure);
            anyhow::bail!("refused");
        }
        Ok(bytes)
    });
    loaded.map_err(|error| {
        refused.unwrap_or_else(|| {
            let message =
                format!("the component cannot be compiled: {error:#}; build it again with a current toolchain");
            Failure::new(FailureKind::Invalid, message)
        })
    })
}

fn check(bytes: &[u8], digest: &Digest) -> Result<(), Failure> {
    kind::check_component_bytes(bytes)?;
    check_digest(bytes, digest)
}

/// Refuses a stored file that is not what was deployed.
fn check_digest(bytes: &[u8], digest: &Digest) -> Result<(), Failure> {
    if Digest::of(bytes) != *digest {
        let message = format!("the stored file is not {digest}: it was altered; deploy the app again");
        return Err(Failure::new(FailureKind::Internal, message));
    }
    Ok(())
}

fn of_component(machine: &Machine, component: &Component, kind: Kind, deployed: &Deployed) -> Result<Program, Failure> {
    let pre = link::link(&machine.engine, &machine.linker, component, &deployed.reach.allow, deployed.keys)?;
    let made = match kind {
        Kind::Component03 => Component03::new(pre).map(|program| Program::Component03(Arc::new(program))),
        _ => Component02::new(pre, kind).map(|program| Program::Component02(Arc::new(program))),
    };
    made.map_err(|error| {
        Failure::new(
            FailureKind::Invalid,
            format!("the component's handler has another type than wasi:http says: {error:#}"),
        )
    })
}

/// The Python engine: a component that asks for the user's source in each instance.
async fn python(shared: Arc<Shared>) -> Result<InstancePre<GuestState>, Failure> {
    blocking(move || {
        let engine = engines::python()?;
        let (component, machine) = shared.machines.component(&engine.digest, || engine.bytes()).map_err(|error| {
            Failure::new(FailureKind::Internal, "the Python engine cannot be compiled").because(format!("{error:#}"))
        })?;
        machine.engine_linker.instantiate_pre(&component).map_err(|error| unfit("Python", &error))
    })
    .await
}

fn unfit(language: &str, error: &wasmtime::Error) -> Failure {
    let message = format!("the {language} engine does not fit this version");
    Failure::new(FailureKind::Internal, message).because(format!("{error:#}"))
}
