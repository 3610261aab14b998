//! One run of the function on one event or a batch, up to what is to be settled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use marram_core::event::Event;
use marram_core::port::streams::{Delivery, Settle, Settlement};
use marram_core::stream::StreamName;

use super::answer::{self, Verdict};
use super::status::add;
use super::{Shared, Target, request};
use crate::limits::HOLD;

/// What became of one delivery, or of those that had one answer.
pub(super) struct Settled {
    pub(super) settle: Settle,
    /// Each is to be delivered alone from now on.
    pub(super) alone: bool,
}

/// Runs the function on `deliveries` until each of them has a settlement.
pub(super) async fn run(shared: Arc<Shared>, deliveries: Vec<Delivery>) -> Vec<Settled> {
    let _running = Running::new(&shared.counters.running);
    let mut settled = Vec::with_capacity(deliveries.len());
    // Halves of halves: the last failure is with the culprit alone. One culprit takes two runs for each halving; where there
    // are more, the rest is delivered one by one after this. The first halvings reach a single event in any case: each batch
    // settles or counts one, so there is an end.
    let mut budget = 2 * (usize::BITS - deliveries.len().leading_zeros()) as usize;
    let mut parts = vec![&deliveries[..]];
    while let Some(part) = parts.pop() {
        let Some(verdict) = verdict(&shared, part).await else {
            settled.extend(part.iter().map(|delivery| settle(delivery, Settlement::Release, false)));
            continue;
        };
        match verdict {
            Verdict::Done(outputs) => settled.extend(acknowledge(part, outputs)),
            Verdict::Unused => {
                if shared.counters.outputs_unused.fetch_add(1, Ordering::Relaxed) == 0 {
                    let trigger = &shared.plan.source;
                    tracing::warn!(trigger, "a function answers with events and has no `output`: they are dropped");
                }
                settled.extend(acknowledge(part, Vec::new()));
            }
            Verdict::Again { after, reason, all } if all || part.len() == 1 => {
                let again = || Settlement::Retry { after, reason: reason.clone() };
                settled.extend(part.iter().map(|delivery| settle(delivery, again(), !all)));
            }
            Verdict::Never(reason) if part.len() == 1 => {
                settled.extend(
                    part.iter()
                        .map(|delivery| settle(delivery, Settlement::DeadLetter { reason: reason.clone() }, false)),
                );
            }
            // Nobody has shown yet which of them it is: this costs them no delivery, and next each comes alone.
            Verdict::Again { .. } | Verdict::Never(_) if budget < 2 => {
                settled.extend(part.iter().map(|delivery| settle(delivery, Settlement::Release, true)));
            }
            Verdict::Again { .. } | Verdict::Never(_) => {
                budget -= 2;
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
            // `verdict` waits until it is something else.
            Verdict::NotNow(_) => {}
        }
    }
    settled
}

/// Runs the function once, as soon as it can be run; `None` if delivery stops before.
async fn verdict(shared: &Shared, deliveries: &[Delivery]) -> Option<Verdict> {
    let mut wait = HOLD.0;
    loop {
        let target = shared.target.load_full();
        let verdict = once(shared, &target, deliveries).await;
        let Verdict::NotNow(reason) = verdict else { return Some(verdict) };
        add(&shared.counters.held, 1);
        shared.counters.failed(&reason);
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return None,
            () = tokio::time::sleep(spread(wait, shared.entropy.u64())) => {}
        }
        wait = (wait * 2).min(HOLD.1);
    }
}

async fn once(shared: &Shared, target: &Target, deliveries: &[Delivery]) -> Verdict {
    let (request, call) = match request::build(shared, target, deliveries) {
        Ok(built) => built,
        Err(reason) => return Verdict::Never(reason),
    };
    let (trace, state) = (call.trace, request.headers().get(request::TRACESTATE).cloned());
    add(&shared.counters.invocations, 1);
    let answered = async {
        match target.invoke.request(request, call).await {
            Ok(response) => answer::read(response, target.output.as_ref(), &*shared.clock).await,
            Err(failure) => answer::of_failure(&failure),
        }
    };
    // A panic here is a bug of the host. The event is not to pay for it by getting lost.
    let mut verdict = std::panic::AssertUnwindSafe(answered).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(trigger = shared.plan.source, "a run of a function panicked in the host");
        Verdict::Again { after: None, reason: "internal: the node failed while the function ran".into(), all: false }
    });
    match &mut verdict {
        Verdict::Done(events) => {
            let state = state.as_ref().and_then(|state| state.to_str().ok());
            events.iter_mut().for_each(|(_, event)| event.continue_trace(&trace, state));
        }
        Verdict::NotNow(_) => return verdict,
        _ => {}
    }
    add(&shared.counters.delivered, deliveries.len());
    verdict
}

/// All of them and their answer are one settlement: none of it is durable without the rest.
fn acknowledge(part: &[Delivery], outputs: Vec<(StreamName, Event)>) -> Option<Settled> {
    let (first, others) = part.split_first()?;
    let mut settled = settle(first, Settlement::Ack, false);
    settled.settle.others = others.iter().map(|delivery| (delivery.stored.position, delivery.attempt)).collect();
    settled.settle.outputs = outputs;
    Some(settled)
}

fn settle(delivery: &Delivery, settlement: Settlement, alone: bool) -> Settled {
    let (position, attempt) = (delivery.stored.position, delivery.attempt);
    Settled { settle: Settle { position, attempt, others: Vec::new(), settlement, outputs: Vec::new() }, alone }
}

/// At least half of `wait`, and the rest by chance.
pub(crate) fn spread(wait: Duration, random: u64) -> Duration {
    let half = wait / 2;
    half + half.mul_f64(random as f64 / u64::MAX as f64)
}

/// Counts for as long as it lives, also where the run is aborted.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
