//! From WebAssembly to native code, in a process of its own where there is one to start.
//!
//! A compiler needs much memory for a moment, and its allocator keeps what it needed; what it compiles comes from
//! strangers. In a child process both end with the compilation, and it runs at a lower priority than requests do.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use wasmtime::Engine;

use crate::engine;
use crate::functions::FunctionsFile;
use crate::plain;

/// How much lower the child's priority is than the node's (nice(2)).
const NICE: i32 = 10;

/// Where compilation happens.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In this process.
    Here,
    /// By this program, started with these arguments, which has to call [`compile_stdin`] with what it is given besides.
    Child {
        /// The program.
        program: PathBuf,
        /// What comes before them.
        arguments: Vec<String>,
    },
}

/// What is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Component,
    Module,
}

impl Input {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Module => "module",
        }
    }

    fn compile(self, engine: &Engine, wasm: &[u8]) -> anyhow::Result<Vec<u8>> {
        let code = match self {
            Self::Component => engine.precompile_component(wasm),
            Self::Module => engine.precompile_module(wasm),
        };
        code.map_err(plain)
    }
}

impl Compiler {
    /// Native code for `engine`, whose settings are those of `label`. Blocks for as long as it takes.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        label: &str,
        input: Input,
        wasm: &[u8],
        functions: Option<&FunctionsFile>,
    ) -> anyhow::Result<Vec<u8>> {
        let Self::Child { program, arguments } = self else { return input.compile(engine, wasm) };
        let started = Command::new(program)
            .args(arguments)
            .args([input.label(), label])
            .args(functions.map(|functions| &functions.path))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(%error, "the compiler's process cannot be started: compiling in this one");
                return input.compile(engine, wasm);
            }
        };
        // It reads all before it writes. If it ends early, its status says more than the broken pipe.
        let key = functions.map_or(&[][..], |functions| &functions.key);
        let sent = child.stdin.take().map(|mut to| to.write_all(key).and_then(|()| to.write_all(wasm)));
        let output = child.wait_with_output().context("the compiler's process cannot be waited for")?;
        if output.status.success() {
            sent.transpose().context("the compiler's process took no input")?;
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(_) => anyhow::bail!("{}", said.trim().trim_start_matches("error: ")),
            None => anyhow::bail!("the compiler's process was ended ({}): is there enough memory?", output.status),
        }
    }
}

/// Ends this process when nobody reads its stdout any more: a node that was killed cannot end its compiler by itself.
fn end_with_the_reader() {
    let stdout = std::io::stdout();
    loop {
        // Asked for nothing, it waits for an error or an end only.
        let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => std::process::exit(1),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The child's part: reads WebAssembly from stdin and writes native code to stdout. `input`, `engine` and `functions` are what
/// the parent gave as arguments. With `functions`, a file of compiled functions, the key of its authentication code comes first on
/// stdin.
pub fn compile_stdin(input: &str, engine: &str, functions: Option<PathBuf>) -> anyhow::Result<()> {
    let input = [Input::Component, Input::Module].into_iter().find(|known| known.label() == input);
    let input = input.context("this is started by a node, not by hand")?;
    // Not being nicer is no reason not to compile.
    let _ = rustix::process::nice(NICE);
    // Without that thread it would compile on for nobody, and nothing else.
    let _ = std::thread::Builder::new().name("reader".into()).spawn(end_with_the_reader);
    let mut from = std::io::stdin().lock();
    let mut file = functions.map(|path| FunctionsFile { path, key: [0; 32] });
    if let Some(file) = &mut file {
        from.read_exact(&mut file.key)?;
    }
    let functions = file.as_ref().map(|file| Arc::new(file.read()));
    let engine = engine::for_compiling(engine, functions.clone())?;
    let mut wasm = Vec::new();
    from.read_to_end(&mut wasm)?;
    let code = input.compile(&engine, &wasm)?;
    let mut to = std::io::stdout().lock();
    to.write_all(&code)?;
    to.flush()?;
    drop(to);
    // They cost the next compilation time, and nothing else.
    if let (Some(file), Some(functions)) = (file, functions)
        && let Err(error) = file.write(&functions)
    {
        tracing::warn!(file = %file.path.display(), %error, "compiled functions cannot be kept");
    }
    Ok(())
}
