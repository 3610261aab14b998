//! Whose turn it is: functions get the processors alternately, however many requests one of them has.
//!
//! An executor polls what is ready in the order in which it became ready, so the next request of a quiet function would
//! wait for all that a flooded one has ready, thousands at times. A guest is polled only with a turn. There are as many
//! turns as processors, and those who wait for one stand in a line for each function, served round robin.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// The turns of a node.
pub(crate) struct Turns(Mutex<Inner>);

struct Inner {
    free: usize,
    /// One for each function that somebody waits for; the first is next.
    lines: VecDeque<Line>,
    /// Places whose turn has come and that do not know yet.
    called: HashSet<u64>,
    last_place: u64,
}

struct Line {
    function: usize,
    waiting: VecDeque<(u64, Waker)>,
}

impl Turns {
    pub(crate) fn new(processors: usize) -> Self {
        let inner = Inner { free: processors, lines: VecDeque::new(), called: HashSet::new(), last_place: 0 };
        Self(Mutex::new(inner))
    }

    /// Polls `work` only with a turn, which is given back after each poll. `function` says in whose line it waits.
    ///
    /// In a crowd the turn is first kept while all others who are ready are polled once: they line up, or are refused,
    /// before anything runs. Without that there would never be a line, since a short run is over in one poll.
    pub(crate) async fn take<F: Future>(&self, function: usize, crowd: bool, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let mut place = Place { turns: self, function, state: State::Away };
        let mut heard = !crowd;
        std::future::poll_fn(|cx| {
            ready!(place.poll_turn(cx));
            if !std::mem::replace(&mut heard, true) {
                // A task that wakes itself goes to the end of the executor's queue.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let polled = work.as_mut().poll(cx);
            place.leave();
            polled
        })
        .await
    }

    /// Gives a turn to who is next.
    fn give_back(&self) {
        let mut inner = self.lock();
        let Some(mut line) = inner.lines.pop_front() else {
            inner.free += 1;
            return;
        };
        let (place, waker) = line.waiting.pop_front().expect("a line in which nobody waits is removed");
        if !line.waiting.is_empty() {
            inner.lines.push_back(line);
        }
        inner.called.insert(place);
        drop(inner);
        waker.wake();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A turn at once, or a place in the line.
    fn enter(&mut self, function: usize, waker: &Waker) -> State {
        if self.free > 0 {
            self.free -= 1;
            return State::Turn;
        }
        self.last_place += 1;
        let waiting = (self.last_place, waker.clone());
        match self.lines.iter_mut().find(|line| line.function == function) {
            Some(line) => line.waiting.push_back(waiting),
            None => self.lines.push_back(Line { function, waiting: VecDeque::from([waiting]) }),
        }
        State::Waiting(self.last_place)
    }

    fn set_waker(&mut self, place: u64, waker: &Waker) {
        let mut places = self.lines.iter_mut().flat_map(|line| &mut line.waiting);
        if let Some((_, known)) = places.find(|(other, _)| *other == place) {
            known.clone_from(waker);
        }
    }

    fn remove(&mut self, place: u64) {
        self.lines.iter_mut().for_each(|line| line.waiting.retain(|(other, _)| *other != place));
        self.lines.retain(|line| !line.waiting.is_empty());
    }
}

#[derive(Clone, Copy)]
enum State {
    Away,
    Waiting(u64),
    Turn,
}

/// Somebody who wants turns.
struct Place<'t> {
    turns: &'t Turns,
    function: usize,
    state: State,
}

impl Place<'_> {
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        match self.state {
            State::Turn => return Poll::Ready(()),
            State::Away => self.state = self.turns.lock().enter(self.function, cx.waker()),
            State::Waiting(place) => {
                let mut inner = self.turns.lock();
                if inner.called.remove(&place) {
                    self.state = State::Turn;
                } else {
                    inner.set_waker(place, cx.waker());
                }
            }
        }
        if matches!(self.state, State::Turn) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn leave(&mut self) {
        match std::mem::replace(&mut self.state, State::Away) {
            State::Away => {}
            State::Turn => self.turns.give_back(),
            State::Waiting(place) => {
                let mut inner = self.turns.lock();
                if inner.called.remove(&place) {
                    drop(inner);
                    self.turns.give_back();
                } else {
                    inner.remove(place);
                }
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;

    /// Runs pieces of work, each over in one poll, and says in which order they ran.
    async fn order(turns: &'static Turns, crowd: bool, work: &[usize]) -> Vec<usize> {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let runs: Vec<_> = work
            .iter()
            .map(|function| {
                let (ran, function) = (Arc::clone(&ran), *function);
                tokio::spawn(turns.take(function, crowd, async move { ran.lock().unwrap().push(function) }))
            })
            .collect();
        for run in runs {
            run.await.unwrap();
        }
        std::mem::take(&mut *ran.lock().unwrap())
    }

    fn turns(processors: usize) -> &'static Turns {
        Box::leak(Box::new(Turns::new(processors)))
    }

    #[tokio::test]
    async fn functions_alternate_in_a_crowd() {
        let turns = turns(1);
        let mut work = vec![1; 1000];
        work.push(2);
        let ran = order(turns, true, &work).await;
        assert_eq!(ran.len(), 1001);
        let place = ran.iter().position(|function| *function == 2).unwrap();
        assert!(place <= 2, "the other function ran after {place} others");
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test]
    async fn without_a_crowd_nobody_is_kept() {
        assert_eq!(order(turns(1), false, &[1, 1, 2, 1]).await, [1, 1, 2, 1]);
    }

    #[test]
    fn who_leaves_gives_back_what_it_had() {
        let turns = turns(1);
        let mut cx = Context::from_waker(Waker::noop());
        let mut keeps = Box::pin(turns.take(1, true, std::future::ready(())));
        assert!(keeps.poll_unpin(&mut cx).is_pending());
        let mut waits = Box::pin(turns.take(2, false, std::future::ready(())));
        let mut called = Box::pin(turns.take(3, false, std::future::ready(())));
        assert!(waits.poll_unpin(&mut cx).is_pending() && called.poll_unpin(&mut cx).is_pending());
        drop(waits);
        drop(keeps);
        // Its turn has come, and it leaves before it knows.
        drop(called);
        let inner = turns.lock();
        assert_eq!((inner.free, inner.lines.len(), inner.called.len()), (1, 0, 0));
    }
}
