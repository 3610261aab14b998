//! Ways for a WASI 0.3 guest to misbehave, one a path. Only what the host does about it is of interest.

use std::hint::black_box;

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::{spawn_local, yield_async};
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Bad);

struct Bad;

impl wasip3::exports::http::handler::Guest for Bad {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let segments: Vec<_> = target.split('/').skip(1).collect();
        match segments[..] {
            ["loop"] => spin(),
            ["loop-async"] => spin_and_yield().await,
            ["loop-after-headers"] => Ok(answer_then("then it spins\n", async { spin() })),
            ["alloc"] => allocate(),
            ["trap"] => std::process::abort(),
            ["trap-after-headers"] => Ok(answer_then("before the trap\n", async { std::process::abort() })),
            ["error"] => Err(ErrorCode::InternalError(Some("the guest says so".to_owned()))),
            ["never"] => {
                sleep_forever().await;
                Ok(answer("never\n"))
            }
            ["never-end"] => Ok(answer_then("the first chunk is the last\n", sleep_forever())),
            // Answers in full, and goes on working behind the client's back.
            ["linger", ms] => {
                let ns = milliseconds(ms);
                spawn_local(async move { monotonic_clock::wait_for(ns).await });
                Ok(answer("answered\n"))
            }
            ["sleep", ms] => {
                monotonic_clock::wait_for(milliseconds(ms)).await;
                Ok(answer("slept\n"))
            }
            ["ok"] => Ok(answer("ok\n")),
            _ => {
                let response = answer("nothing bad has that name\n");
                let _ = response.set_status_code(404);
                Ok(response)
            }
        }
    }
}

fn answer(text: &'static str) -> Response {
    answer_then(text, async {})
}

/// Sends `text`, then runs `after` before the body may end.
fn answer_then(text: &'static str, after: impl Future<Output = ()> + 'static) -> Response {
    let (mut body, contents) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(contents), trailers);
    spawn_local(async move {
        body.write_all(text.as_bytes().to_vec()).await;
        after.await;
        drop(body);
        let _ = end.write(Ok(None)).await;
    });
    response
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// Gives way to the host all the time, and still uses the CPU without end.
async fn spin_and_yield() -> ! {
    loop {
        for n in 0..100_000_u32 {
            black_box(n);
        }
        yield_async().await;
    }
}

fn allocate() -> ! {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1 << 20]));
    }
}

async fn sleep_forever() {
    loop {
        monotonic_clock::wait_for(3_600_000_000_000).await;
    }
}

fn milliseconds(segment: &str) -> u64 {
    segment.parse::<u64>().unwrap_or(0) * 1_000_000
}
