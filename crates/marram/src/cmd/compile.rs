//! `marram compile`: what a node starts to compile a function, so that neither the memory nor the crash of a compiler is its
//! own.

use std::path::PathBuf;

use clap::Args;
use marram_node::Compiler;

const VERB: &str = "compile";

/// Compiles the WebAssembly on stdin to native code on stdout.
#[derive(Args, Debug)]
pub(crate) struct Compile {
    /// `component` or `module`
    input: String,
    /// Which of the node's engines the code is for
    engine: String,
    /// Where compiled functions are kept for the next time
    functions: Option<PathBuf>,
}

/// Compiles.
pub(crate) fn run(args: &Compile) -> anyhow::Result<()> {
    marram_node::compile_stdin(&args.input, &args.engine, args.functions.clone())
}

/// How a node of this program has its functions compiled: by the program that runs, also when its file was replaced by a
/// later version.
pub(crate) fn compiler() -> Compiler {
    let program = if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { std::env::current_exe() };
    program.map_or(Compiler::Here, |program| Compiler::Child { program, arguments: vec![VERB.to_owned()] })
}
