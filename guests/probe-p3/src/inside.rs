//! What a guest can learn inside its own sandbox: environment, arguments, clocks, randomness, files, and its log.

use std::io::Write as _;

use crate::reply::{json_pairs, json_string, text};
use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::http::types::Response;

/// The environment, as pairs.
pub fn environment() -> String {
    let variables = wasip3::cli::environment::get_environment();
    json_pairs(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The arguments.
pub fn arguments() -> String {
    let arguments = wasip3::cli::environment::get_arguments();
    let arguments: Vec<_> = arguments.iter().map(|argument| json_string(argument)).collect();
    format!("[{}]", arguments.join(","))
}

/// The wall clock in seconds, and how far the monotonic clock went over 5 ms of waiting.
pub async fn time() -> String {
    let before = monotonic_clock::now();
    monotonic_clock::wait_for(5_000_000).await;
    let waited_us = (monotonic_clock::now() - before) / 1_000;
    format!("{{\"unix_s\":{},\"waited_us\":{waited_us}}}", system_clock::now().seconds)
}

/// Sixteen random bytes in hexadecimal: no two answers may be equal.
pub fn random() -> String {
    let bytes = wasip3::random::random::get_random_bytes(16);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"random\":\"{hex}\"}}")
}

/// Tries to see and open files: nothing is preopened, so nothing may come of it.
pub fn files() -> String {
    let preopens = wasip3::filesystem::preopens::get_directories();
    let preopens: Vec<_> = preopens.iter().map(|(_, path)| json_string(path)).collect();
    let tried = |path: &str| match std::fs::read(path) {
        Ok(bytes) => json_string(&format!("read {} bytes", bytes.len())),
        Err(error) => json_string(&format!("refused: {error}")),
    };
    format!("{{\"preopens\":[{}],\"/etc/passwd\":{}}}", preopens.join(","), tried("/etc/passwd"))
}

/// Writes lines to both streams, the last one without its end. The standard library still speaks 0.2 underneath.
pub fn log() -> Response {
    println!("a line on stdout");
    eprintln!("a line on stderr");
    println!("two lines on stdout,\nin one write");
    print!("a line without its end");
    let _ = std::io::stdout().flush();
    text(200, "text/plain", "logged\n".to_owned())
}
