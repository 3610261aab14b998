//! Settling: what became of deliveries, durable together with what they publish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use marram_core::Failure;
use marram_core::event::{Attribute, Event};
use marram_core::port::streams::{Settle, Settlement};
use marram_core::stream::{ConsumerPolicy, StreamName};

use super::close::{Change, due};
use super::window::Closing;
use super::{Cell, Held};
use crate::limits::{REASON_BYTES_MAX, WINDOW_MAX};
use crate::stream::encode::Encoded;
use crate::stream::hub::Shared;
use crate::stream::{append, read};
use crate::writer::Effect;
use crate::{StoreError, Tx};

/// A settlement that is ready for the writer.
pub(super) struct Prepared {
    at: u64,
    attempt: u32,
    /// The other deliveries that it is about.
    others: Vec<(u64, u32)>,
    what: What,
}

enum What {
    /// With what is published together with it, in order, by stream.
    Ack(Vec<(StreamName, Vec<Encoded>)>),
    Retry {
        after: Option<Duration>,
        spread: u64,
        reason: String,
    },
    Dead {
        reason: String,
    },
}

/// An event on its way to the dead-letter stream.
struct Dead {
    at: u64,
    attempts: u32,
    reason: String,
}

impl Prepared {
    pub(super) fn dead(at: u64, attempt: u32, reason: &str) -> Self {
        Self { at, attempt, others: Vec::new(), what: What::Dead { reason: reason.into() } }
    }

    /// Whether it may write to another stream, and so may fail after it has written.
    fn publishes(&self) -> bool {
        !matches!(&self.what, What::Ack(outputs) if outputs.is_empty())
    }
}

impl Held {
    pub(super) async fn settle_all(&self, settlements: Vec<Settle>) -> Result<(), Failure> {
        if settlements.iter().map(Settle::count).sum::<usize>() > WINDOW_MAX {
            return Err(StoreError::Invalid(format!("no more than {WINDOW_MAX} deliveries are settled at once")).into());
        }
        let now = self.parts.now();
        let mut prepared = Vec::with_capacity(settlements.len());
        for Settle { position: at, attempt, others, settlement, outputs } in settlements {
            let what = match settlement {
                Settlement::InProgress => {
                    let mut window = self.cell.window();
                    each(at, attempt, &others).for_each(|(at, attempt)| window.extend(at, attempt, now.0));
                    continue;
                }
                Settlement::Release => {
                    let mut window = self.cell.window();
                    each(at, attempt, &others).for_each(|(at, attempt)| window.release(at, attempt));
                    drop(window);
                    self.cell.wake();
                    continue;
                }
                Settlement::Ack => What::Ack(by_stream(outputs)?),
                Settlement::Retry { after, reason } => What::Retry { after, spread: self.parts.entropy.u64(), reason },
                Settlement::DeadLetter { reason } => What::Dead { reason },
            };
            prepared.push(Prepared { at, attempt, others, what });
        }
        if prepared.is_empty() {
            return Ok(());
        }
        let publishes = prepared.iter().any(Prepared::publishes);
        let (shared, cell) = (Arc::clone(&self.shared), Arc::clone(&self.cell));
        let operation = move |tx: &Tx| settle(tx, &shared, &cell, prepared, now);
        let writer = &self.parts.writer;
        let settled =
            if publishes { writer.write(operation).await } else { writer.write_bare(Effect::Frees, operation).await };
        Ok(settled?)
    }
}

/// An operation of the writer. What is not the latest delivery of its event, or was settled already, has no effect.
pub(super) fn settle(
    tx: &Tx,
    stream: &Shared,
    cell: &Arc<Cell>,
    prepared: Vec<Prepared>,
    (now, now_unix_ns): (Instant, u64),
) -> Result<(), StoreError> {
    let mut window = cell.window();
    let policy = window.policy.clone();
    let (mut closed, mut outputs, mut dead) = (Vec::with_capacity(prepared.len()), Vec::new(), Vec::new());
    for Prepared { at, attempt, others, what } in prepared {
        let before = closed.len();
        for (at, attempt) in each(at, attempt, &others) {
            let attempts = window.attempts(at);
            let last = attempts >= policy.deliveries_max.max(1);
            let closing = match &what {
                What::Ack(_) => Closing::Acked,
                What::Retry { after, spread, .. } if !last => {
                    let (due, due_unix_ns) = due(now, now_unix_ns, wait(&policy, attempts, *after, *spread));
                    Closing::Retried { due, due_unix_ns }
                }
                What::Retry { .. } | What::Dead { .. } => Closing::DeadLettered,
            };
            if !window.mark(at, attempt, closing) {
                continue;
            }
            closed.push(at);
            match &what {
                What::Retry { reason, .. } | What::Dead { reason } if closing == Closing::DeadLettered => {
                    dead.push(Dead { at, attempts, reason: reason.clone() });
                }
                What::Ack(_) | What::Retry { .. } | What::Dead { .. } => {}
            }
        }
        // The answer is one for all of them: it counts for as long as one of them is owed.
        if let What::Ack(new) = what
            && closed.len() > before
        {
            outputs.extend(new);
        }
    }
    drop(window);
    if closed.is_empty() {
        return Ok(());
    }
    tx.ledger().change(cell, Change::Closed(closed));
    for (to, events) in outputs {
        append::append_all(tx, &to, &events, now_unix_ns)?;
    }
    for dead in dead {
        let at = dead.at;
        match bury(tx, stream, cell, dead, now_unix_ns) {
            Ok(()) => {}
            // It stays owed, and the rest of the settlement stands: a full dead-letter stream does not stop the others.
            Err(StoreError::StreamFull(..) | StoreError::TooLarge(_) | StoreError::Invalid(_)) => {
                let (due, due_unix_ns) = due(now, now_unix_ns, policy.backoff_max);
                cell.window().mark_instead(at, Closing::Retried { due, due_unix_ns });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn each(at: u64, attempt: u32, others: &[(u64, u32)]) -> impl Iterator<Item = (u64, u32)> + '_ {
    std::iter::once((at, attempt)).chain(others.iter().copied())
}

/// What one answer publishes, by stream: each stream makes room for the whole, or refuses it.
fn by_stream(outputs: Vec<(StreamName, Event)>) -> Result<Vec<(StreamName, Vec<Encoded>)>, StoreError> {
    let mut streams: Vec<(StreamName, Vec<Encoded>)> = Vec::new();
    for (to, event) in outputs {
        let event = Encoded::new(event)?;
        match streams.iter_mut().find(|(stream, _)| *stream == to) {
            Some((_, events)) => events.push(event),
            None => streams.push((to, vec![event])),
        }
    }
    Ok(streams)
}

/// Appends the event to the dead-letter stream, with what is known of its end. One that is there already stays as it is: a
/// copy would come back to the consumer that cannot handle it, without end.
fn bury(tx: &Tx, stream: &Shared, cell: &Cell, dead: Dead, now: u64) -> Result<(), StoreError> {
    let Some(to) = stream.name.dead_letter() else { return Ok(()) };
    let (found, _) = read::at(tx, stream.id, &[dead.at], u64::MAX)?;
    let found = found.into_iter().next().ok_or_else(|| {
        StoreError::Damaged(format!("event {} of stream \"{}\" is owed and not there", dead.at, stream.name))
    })?;
    let mut event = Event::clone(&found.event);
    let text = |text: String| Attribute::Text(text);
    event.extensions.extend([
        ("marramconsumer".into(), text(cell.id.to_string())),
        ("marramreason".into(), text(one_line(&dead.reason))),
        ("marramattempts".into(), Attribute::Integer(i32::try_from(dead.attempts).unwrap_or(i32::MAX))),
        // A CloudEvents Integer has 32 bits, and a position 48.
        ("marramposition".into(), text(dead.at.to_string())),
        ("marramstream".into(), text(stream.name.to_string())),
    ]);
    append::append_again(tx, &to, &Encoded::unchecked(event), now)?;
    Ok(())
}

/// A string without control characters (CloudEvents 1.0.2 §3.1), not too long.
fn one_line(reason: &str) -> String {
    let mut line = String::new();
    for character in reason.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + character.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        line.push(character);
    }
    line
}

/// How long after delivery `attempt` the next one waits: a back-off that doubles, of which a random half is left out, and what
/// the function asked for, if that is longer; never longer than the longest back-off.
fn wait(policy: &ConsumerPolicy, attempt: u32, after: Option<Duration>, spread: u64) -> Duration {
    let doubled = policy.backoff_min.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1).min(31)));
    let full = doubled.min(policy.backoff_max);
    // 32 random bits are a fraction of one.
    let half = u64::try_from(full.as_nanos() / 2).unwrap_or(u64::MAX);
    let random = u64::try_from((u128::from(half) * u128::from(spread >> 32)) >> 32).unwrap_or(half);
    let backoff = full - Duration::from_nanos(random);
    backoff.max(after.unwrap_or_default()).min(policy.backoff_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_longest_and_spreads_over_its_later_half() {
        let policy = ConsumerPolicy {
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            ..ConsumerPolicy::default()
        };
        let millis = |attempt, after, spread| wait(&policy, attempt, after, spread).as_millis();
        for (attempt, longest) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (u32::MAX, 1_000)] {
            assert_eq!(millis(attempt, None, 0), longest);
            assert_eq!(millis(attempt, None, u64::MAX), longest / 2);
            let middle = millis(attempt, None, 1 << 63);
            assert_eq!(middle, longest * 3 / 4);
        }
        assert_eq!(millis(1, Some(Duration::from_millis(700)), 0), 700);
        assert_eq!(millis(4, Some(Duration::from_millis(1)), 0), 800);
        assert_eq!(millis(1, Some(Duration::MAX), 0), 1_000);
        let forever = ConsumerPolicy { backoff_min: Duration::MAX, backoff_max: Duration::MAX, ..policy };
        assert!(wait(&forever, 40, None, u64::MAX) >= Duration::from_secs(1 << 32));
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(one_line("trap:\n\tunreachable\u{7f}"), "trap:  unreachable ");
        assert_eq!(one_line(&"ä".repeat(2_000)).len(), REASON_BYTES_MAX);
    }
}
