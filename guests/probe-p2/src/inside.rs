//! What a guest can learn inside its own sandbox: environment, arguments, clocks, randomness, files, and its log.

use std::io::Write as _;

use kit_p2::{answer_text, json_pairs, json_string};
use wasip2::http::types::ResponseOutparam;

/// The environment, as pairs.
pub fn environment() -> String {
    let variables: Vec<_> = std::env::vars().collect();
    json_pairs(variables.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The arguments.
pub fn arguments() -> String {
    let arguments: Vec<_> = std::env::args().map(|argument| json_string(&argument)).collect();
    format!("[{}]", arguments.join(","))
}

/// The wall clock in seconds, and how far the monotonic clock went over 5 ms of waiting.
pub fn time() -> String {
    let before = wasip2::clocks::monotonic_clock::now();
    kit_p2::sleep_ms(5);
    let waited_us = (wasip2::clocks::monotonic_clock::now() - before) / 1_000;
    let now = wasip2::clocks::wall_clock::now();
    format!("{{\"unix_s\":{},\"waited_us\":{waited_us}}}", now.seconds)
}

/// Sixteen random bytes in hexadecimal: no two answers may be equal.
pub fn random() -> String {
    let bytes = wasip2::random::random::get_random_bytes(16);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{{\"random\":\"{hex}\"}}")
}

/// Tries to see and open files: nothing is preopened, so nothing may come of it.
pub fn files() -> String {
    let preopens = wasip2::filesystem::preopens::get_directories();
    let preopens: Vec<_> = preopens.iter().map(|(_, path)| json_string(path)).collect();
    let tried = |path: &str| match std::fs::read(path) {
        Ok(bytes) => json_string(&format!("read {} bytes", bytes.len())),
        Err(error) => json_string(&format!("refused: {error}")),
    };
    format!(
        "{{\"preopens\":[{}],\"/etc/passwd\":{},\"../../etc/passwd\":{},\".\":{}}}",
        preopens.join(","),
        tried("/etc/passwd"),
        tried("../../etc/passwd"),
        match std::fs::read_dir(".") {
            Ok(entries) => json_string(&format!("listed {} entries", entries.count())),
            Err(error) => json_string(&format!("refused: {error}")),
        },
    )
}

/// Writes lines to both streams, the last one without its end.
pub fn log(out: ResponseOutparam) {
    println!("a line on stdout");
    eprintln!("a line on stderr");
    println!("two lines on stdout,\nin one write");
    print!("a line without its end");
    let _ = std::io::stdout().flush();
    answer_text(out, "logged\n");
}
