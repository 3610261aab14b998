//! What is known of a connection by all who touch it: its socket, its requests, and the watch over its time-outs.
//!
//! Requests only write down when something happened. Deadlines follow from these notes when the watch looks, so a
//! request costs no timer.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::connection::Tasks;
use crate::pace::Pace;
use crate::{Limits, Shared};

/// One connection.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) remote: IpAddr,
    pub(crate) local: SocketAddr,
    pub(crate) pace: Pace,
    pub(crate) tasks: Tasks,
    opened: Instant,
    /// Requests whose answers have not ended.
    in_flight: AtomicU32,
    /// The socket tells the end of the stream when there are none.
    end_awaited: AtomicBool,
    /// Answers with bytes that the client has not taken.
    unread: AtomicU32,
    /// When there was last a request.
    idle_since: AtomicU64,
    /// When the client last took something of an answer.
    taken: AtomicU64,
    /// Since when a header section is incomplete.
    pub(crate) head: Since,
    /// Since when the socket takes no more bytes.
    pub(crate) blocked: Since,
    /// Since when the connection is being closed.
    pub(crate) closing: Since,
    /// Set by the watch: the header section that is under way came too slowly.
    slow: AtomicBool,
    /// Set by the watch: close as soon as no request is in flight.
    finish: AtomicBool,
    /// Set at the deadline of a drain.
    cut: AtomicBool,
    /// Whether the connection is polled at this moment, and was woken since that began.
    turn: AtomicU8,
    /// The connection's task.
    task: OnceLock<Waker>,
}

/// Values of [`State::turn`].
const NO_TURN: u8 = 0;
const TURN: u8 = 1;
const WOKEN: u8 = 2;

/// Nanoseconds from the opening of the connection; 0 is never.
#[derive(Default)]
pub(crate) struct Since(AtomicU64);

/// What the watch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Look again this long after the connection was opened.
    At(Duration),
    /// No request for too long.
    Idle,
    /// A header section is too slow.
    SlowHead,
    /// The client takes nothing, or does not close.
    Cut,
}

impl State {
    pub(crate) fn new(shared: Arc<Shared>, tasks: Tasks, remote: IpAddr, local: SocketAddr) -> Self {
        let opened = shared.clock.instant();
        Self {
            shared,
            remote,
            local,
            pace: Pace::default(),
            tasks,
            opened,
            in_flight: AtomicU32::new(0),
            end_awaited: AtomicBool::new(false),
            unread: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            head: Since::default(),
            blocked: Since::default(),
            closing: Since::default(),
            slow: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            turn: AtomicU8::new(NO_TURN),
            task: OnceLock::new(),
        }
    }

    /// Whether it is one of more connections than [`Limits::crowd`].
    pub(crate) fn is_in_crowd(&self) -> bool {
        self.tasks.0.len() > self.limits().crowd
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.config.limits
    }

    /// Time since the connection was opened.
    pub(crate) fn age(&self) -> Duration {
        self.shared.clock.instant().saturating_duration_since(self.opened)
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self, now: Instant) {
        self.idle_since.store(nanos(now.saturating_duration_since(self.opened)), Relaxed);
        if self.in_flight.fetch_sub(1, Relaxed) == 1 && self.end_awaited.swap(false, Relaxed) {
            self.wake();
        }
    }

    /// Wakes the connection's task when no request is in flight. For HTTP/1.1, whose requests are of that task.
    pub(crate) fn await_end(&self) {
        self.end_awaited.store(true, Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// An answer has bytes for the client.
    pub(crate) fn unread(&self) {
        self.unread.fetch_add(1, Relaxed);
        self.took();
    }

    /// The client took them.
    pub(crate) fn read(&self) {
        self.unread.fetch_sub(1, Relaxed);
        self.took();
    }

    /// The client took some of them, and has more to take.
    pub(crate) fn took(&self) {
        self.taken.store(nanos(self.age()), Relaxed);
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Relaxed)
    }

    pub(crate) fn set_slow(&self) {
        self.slow.store(true, Relaxed);
        self.head.clear();
    }

    pub(crate) fn must_finish(&self) -> bool {
        self.finish.load(Relaxed)
    }

    /// Asks the connection to close when its requests are answered.
    pub(crate) fn finish(&self) {
        self.finish.store(true, Relaxed);
        self.wake();
    }

    pub(crate) fn must_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Ends the connection, whatever it is doing. Returns whether a request was in flight.
    pub(crate) fn cut(&self) -> bool {
        self.cut.store(true, Relaxed);
        self.wake();
        self.in_flight() > 0
    }

    /// The task to wake by [`State::finish`] and [`State::cut`]. A connection never moves to another.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.get_or_init(|| waker.clone());
    }

    /// From here on the connection itself is not woken by its own waker, but polled again.
    pub(crate) fn begin_turn(&self) {
        self.turn.store(TURN, Release);
    }

    /// Whether nobody has woken the connection since its turn began.
    pub(crate) fn end_turn(&self) -> bool {
        self.turn.swap(NO_TURN, AcqRel) == TURN
    }

    pub(crate) fn wake(&self) {
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// The next deadline, as time since the connection was opened.
    pub(crate) fn due(&self) -> Option<(Duration, Watch)> {
        let limits = self.limits();
        let after = |since: Option<Duration>, limit: Duration, what| since.map(|since| (since + limit, what));
        let unread = (self.unread.load(Relaxed) > 0).then(|| Duration::from_nanos(self.taken.load(Relaxed)));
        let idle = (self.in_flight() == 0 && self.head.get().is_none() && !self.must_finish())
            .then(|| Duration::from_nanos(self.idle_since.load(Relaxed)));
        let closing = self.closing.get().filter(|_| self.in_flight() == 0);
        [
            after(closing, limits.linger, Watch::Cut),
            after(self.head.get(), limits.header_time, Watch::SlowHead),
            after(self.blocked.get(), limits.write_stall, Watch::Cut),
            after(unread, limits.write_stall, Watch::Cut),
            after(idle, limits.idle, Watch::Idle),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(due, _)| *due)
    }

    /// What is due at `age`. Where nothing is, it has to be asked again, since other tasks may begin and end requests.
    pub(crate) fn watch(&self, age: Duration) -> Watch {
        match self.due() {
            Some((due, what)) if due <= age => what,
            Some((due, _)) => Watch::At(due),
            None => Watch::At(age + self.limits().write_stall.min(self.limits().idle)),
        }
    }
}

/// The waker of the connection's parts.
impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Whoever polls it sees this when the turn ends.
        let woken = self.turn.compare_exchange(TURN, WOKEN, AcqRel, Acquire);
        if woken == Err(NO_TURN) {
            State::wake(self);
        }
    }
}

impl Since {
    /// Notes that it began at `age`, unless it had begun.
    pub(crate) fn set(&self, age: Duration) {
        if self.0.load(Relaxed) == 0 {
            self.0.store(nanos(age).max(1), Relaxed);
        }
    }

    pub(crate) fn clear(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

fn nanos(age: Duration) -> u64 {
    u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)
}
