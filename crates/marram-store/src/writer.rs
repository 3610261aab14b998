//! The one writer: what has queued up goes into one transaction, then everybody is answered. Where that takes long, it goes into
//! several.
//!
//! Nobody is answered before the commit has reached the disk. An operation that fails undoes itself and nothing else: each runs
//! within a savepoint, or ([`Writer::write_bare`]) has written nothing when it fails. When the commit fails, everybody in the
//! group gets its error, and nothing of the group was kept. What is in memory changes after the commit ([`Tx::after_commit`]).
//! Operations run on the writer's thread, one after the other: they must not wait for anything. One that would be alone in its
//! group can be committed on its caller's thread instead, where the disk is quick ([`Writer::write_here`]). On a full disk what
//! takes something away ([`Writer::free`]) still has room.

mod disk;
mod gather;
mod job;
mod quick;
mod room;
mod tx;

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::StoreError;
use crate::limits::{
    ADD_GROUP_MAX_SHORT, FREE_GROUP_MAX, SHRINK_GROUP_MAX, WRITE_GROUP_MAX, WRITE_GROUP_TIME, WRITE_QUEUE_MAX,
};

use gather::Gather;
pub(crate) use job::Effect;
use job::{Undo, Write, job};
use quick::Quick;
pub(crate) use room::is_short;
pub use tx::Tx;

/// Takes writes and commits them in groups.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    desk: Arc<Desk>,
}

/// What the writer's thread shares with callers that commit by themselves.
#[derive(Debug)]
struct Desk {
    /// Until the writer has stopped.
    tx: Mutex<Option<Tx>>,
    /// Writes that were handed in, or wait for a place in the queue, and were not answered.
    waiting: AtomicUsize,
    quick: Quick,
    /// Why nothing is written any more.
    refused: OnceLock<Arc<str>>,
    /// Waits for those whom it has answered as if there were no end to it.
    #[cfg(test)]
    patient: std::sync::atomic::AtomicBool,
}

/// The answer to a write: await it, or [`Ticket::wait`] for it on a thread. It comes once the write is durable.
///
/// Dropping it does not undo the write.
#[derive(Debug)]
#[must_use = "the write is durable only when the ticket says so"]
pub struct Ticket<T>(oneshot::Receiver<Result<T, StoreError>>);

enum Message {
    Write(Box<dyn Write>),
    /// Nothing to write; the log may be long.
    Look,
    Stop,
}

impl Writer {
    /// Starts the writer's thread.
    pub(crate) fn start(tx: Tx) -> Result<Self, StoreError> {
        let (queue, receiver) = mpsc::channel(WRITE_QUEUE_MAX);
        let desk = Arc::new(Desk {
            tx: Mutex::new(Some(tx)),
            waiting: AtomicUsize::new(0),
            quick: Quick::new(),
            refused: OnceLock::new(),
            #[cfg(test)]
            patient: false.into(),
        });
        let at = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&at, receiver))
            .map_err(|error| StoreError::io("start", "the writer's thread".as_ref(), error))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)), desk })
    }

    /// Hands in a write at once, or says that the queue is full ([`StoreError::Busy`]).
    ///
    /// Tickets of one caller are answered in the order of their submission.
    pub fn submit<T, F>(&self, operation: F) -> Result<Ticket<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        self.try_send(job(Undo::Savepoint, Effect::Adds, operation))
    }

    /// Waits for a place in the queue, then until the write is durable.
    ///
    /// A caller that gives up while waiting for its place has written nothing; later, the write happens anyway.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_as(Effect::Adds, operation).await
    }

    /// [`Writer::write`] for an operation that takes more away than it adds: it has room on a disk that is full, if anything has.
    pub async fn free<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_as(Effect::Frees, operation).await
    }

    /// [`Writer::write`] for an operation of this effect.
    pub(crate) async fn write_as<T, F>(&self, effect: Effect, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, ticket) = job(Undo::Savepoint, effect, operation);
        self.send(job).await?;
        ticket.await
    }

    /// [`Writer::write_as`] for an operation that first checks everything and then only writes: it needs no savepoint, which is
    /// a third of the cost of a small write. If it fails after it has written something, the whole group fails with it.
    pub(crate) async fn write_bare<T, F>(&self, effect: Effect, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, ticket) = job(Undo::Nothing, effect, operation);
        self.send(job).await?;
        ticket.await
    }

    /// [`Writer::submit`] without a savepoint, as [`Writer::write_bare`], and on this thread if nobody else writes and commits
    /// are usually quick. So it may block for as long as a sync takes, and its caller must hold nothing that an operation waits for.
    pub(crate) fn write_here<T, F>(&self, operation: F) -> Result<Ticket<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, ticket) = job(Undo::Nothing, Effect::Adds, operation);
        match self.commit_here(job) {
            Some(job) => self.try_send((job, ticket)),
            None => Ok(ticket),
        }
    }

    /// [`Writer::write_as`], on this thread where [`Writer::write_here`] would be.
    pub(crate) async fn write_near<T, F>(&self, effect: Effect, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, ticket) = job(Undo::Savepoint, effect, operation);
        if let Some(job) = self.commit_here(job) {
            self.send(job).await?;
        }
        ticket.await
    }

    /// Gives the write back if it is for the writer's thread.
    fn commit_here(&self, write: Box<dyn Write>) -> Option<Box<dyn Write>> {
        let desk = &*self.desk;
        if !desk.quick.is_likely() || desk.refused.get().is_some() {
            return Some(write);
        }
        let Ok(mut tx) = desk.tx.try_lock() else { return Some(write) };
        // What was handed in before comes first, also if the writer has taken it already and waits for the lock.
        if desk.waiting.load(Ordering::Acquire) > 0 || self.queue.is_closed() {
            return Some(write);
        }
        let Some(tx) = tx.as_mut() else { return Some(write) };
        // The writer looks at the log after each commit, which has to stay short then.
        if tx.room.is_tight() {
            return Some(write);
        }
        desk.commit(tx, &mut vec![write], |_| false);
        if desk.quick.is_time_to_look() {
            // If there is no place in the queue, the writer is awake.
            let _ = self.queue.try_send(Message::Look);
        }
        None
    }

    /// Takes nothing more, for the rest of this process: the database is damaged.
    pub(crate) fn refuse(&self, why: Arc<str>) {
        let _ = self.desk.refused.set(why);
    }

    /// Why it does, if it does.
    pub(crate) fn refused(&self) -> Option<Arc<str>> {
        self.desk.refused.get().cloned()
    }

    /// Fails if it does.
    pub(crate) fn is_refused(&self) -> Result<(), StoreError> {
        self.desk.refused.get().map_or(Ok(()), |why| Err(StoreError::Damaged(why.to_string())))
    }

    fn try_send<T>(&self, (job, ticket): (Box<dyn Write>, Ticket<T>)) -> Result<Ticket<T>, StoreError> {
        self.is_refused()?;
        let place = self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(()) => StoreError::Closed,
        })?;
        Waiting::new(&self.desk).hand_in(place, job);
        Ok(ticket)
    }

    async fn send(&self, job: Box<dyn Write>) -> Result<(), StoreError> {
        self.is_refused()?;
        let waiting = Waiting::new(&self.desk);
        let place = self.queue.reserve().await.map_err(|_| StoreError::Closed)?;
        waiting.hand_in(place, job);
        Ok(())
    }

    /// Takes no more, commits what has queued, and ends the thread. Blocks until that is done.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        // The queue may be full: the writer is emptying it, so a place comes.
        let mut stop = Message::Stop;
        while let Err(mpsc::error::TrySendError::Full(back)) = self.queue.try_send(stop) {
            stop = back;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // An operation that holds the last reference to the store drops it on the writer's own thread.
        if thread.thread().id() != std::thread::current().id() {
            // Panics of operations are caught; one of the loop itself has nobody else to tell.
            let _ = thread.join();
        }
    }
}

/// A write that others must not overtake, also while there is no place for it in the queue.
struct Waiting<'d>(&'d Desk);

impl<'d> Waiting<'d> {
    fn new(desk: &'d Desk) -> Self {
        desk.waiting.fetch_add(1, Ordering::Release);
        Self(desk)
    }

    /// From here on it waits for its answer.
    fn hand_in(self, place: mpsc::Permit<'_, Message>, job: Box<dyn Write>) {
        place.send(Message::Write(job));
        std::mem::forget(self);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<T> Ticket<T> {
    /// Blocks until the write is durable. Not for asynchronous code: await the ticket there.
    pub fn wait(self) -> Result<T, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Future for Ticket<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Self::Output> {
        // A writer that went away without an answer has not committed.
        Pin::new(&mut self.0).poll(ctx).map(|answer| answer.unwrap_or(Err(StoreError::Closed)))
    }
}

impl Desk {
    fn tx(&self) -> MutexGuard<'_, Option<Tx>> {
        self.tx.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the first of a group, as many as its time is enough for, and answers them; everybody, if nothing was kept. The
    /// others stay in the group. `more` adds those to the group who have come, and says whether to ask again. Returns how many writes
    /// waited before the answers were given.
    fn commit(
        &self,
        tx: &mut Tx,
        group: &mut Vec<Box<dyn Write>>,
        more: impl FnMut(&mut Vec<Box<dyn Write>>) -> bool,
    ) -> usize {
        let begun = Instant::now();
        if tx.room.is_short(begun) {
            self.commit_short(tx, group, begun);
            return 0;
        }
        let committed = commit(tx, group, more);
        let alone = group.len() == 1;
        if let Err(StoreError::Full) = &committed {
            missed(tx, begun);
        }
        match &committed {
            Ok(_) if alone => self.quick.alone(begun.elapsed()),
            _ => self.quick.other(),
        }
        let waiting = self.waiting.load(Ordering::Acquire);
        answer(group, &committed);
        waiting
    }

    /// [`Desk::commit`] on a disk that is full, or was, of all of them: in the same order, but what takes something away for
    /// itself.
    fn commit_short(&self, tx: &mut Tx, group: &mut Vec<Box<dyn Write>>, begun: Instant) {
        self.quick.other();
        while let Some(first) = group.first() {
            let effect = first.effect();
            let most = match effect {
                Effect::Frees => FREE_GROUP_MAX,
                Effect::Shrinks => SHRINK_GROUP_MAX,
                Effect::Adds => ADD_GROUP_MAX_SHORT,
            };
            let length = group.iter().take(most).take_while(|write| write.effect() == effect).count();
            let mut alike: Vec<_> = group.drain(..length).collect();
            let committed = match effect {
                Effect::Frees | Effect::Shrinks => tx.with_reserve(|tx| commit(tx, &mut alike, |_| false)),
                Effect::Adds if tx.has_pages() => tx.with_reserve(|tx| commit(tx, &mut alike, |_| false)),
                Effect::Adds if tx.room.hold() => commit(tx, &mut alike, |_| false).inspect(|_| tx.room.found()),
                Effect::Adds => Err(StoreError::Full),
            };
            if effect == Effect::Adds
                && let Err(StoreError::Full) = &committed
            {
                missed(tx, begun);
            }
            answer(&mut alike, &committed);
            // Those that its time was not enough for come next.
            group.splice(..0, alike);
        }
    }
}

/// Answers the first of a group, as many as were committed; everybody, if nothing was.
fn answer(group: &mut Vec<Box<dyn Write>>, committed: &Result<usize, StoreError>) {
    let known = committed.as_ref().map_or(group.len(), |applied| *applied);
    for write in group.drain(..known) {
        write.answer(committed.clone().map(|_| ()));
    }
}

/// A write has found no room on the disk: what is in the log can be elsewhere, and then there may be some.
fn missed(tx: &mut Tx, now: Instant) {
    if tx.room.missed(now) {
        tx.with_reserve(|_| ());
    }
}

fn run(desk: &Desk, mut queue: mpsc::Receiver<Message>) {
    let mut group: Vec<Box<dyn Write>> = Vec::new();
    let (mut gather, mut answered) = (Gather::default(), Instant::now());
    while let Some(first) = queue.blocking_recv() {
        take(&mut queue, &mut group, Some(first));
        let mut tx = desk.tx();
        let Some(tx) = tx.as_mut() else { return };
        loop {
            if !group.is_empty() {
                let (begun, mut writes) = (Instant::now(), group.len());
                let waiting = desk.commit(tx, &mut group, |group| {
                    let before = group.len();
                    if gather.is_open(before) {
                        let come = queue.try_recv().ok();
                        take(&mut queue, group, come);
                    }
                    if group.len() > before {
                        writes += group.len() - before;
                        return true;
                    }
                    let passed = answered.elapsed();
                    #[cfg(test)]
                    let passed = if desk.patient.load(Ordering::Relaxed) { std::time::Duration::ZERO } else { passed };
                    let waits = gather.waits(before, passed);
                    if waits {
                        Gather::pause(passed);
                    }
                    waits
                });
                answered = Instant::now();
                gather.committed(answered - begun, waiting.min(WRITE_GROUP_MAX));
                desk.waiting.fetch_sub(writes - group.len(), Ordering::Release);
            }
            tx.checkpoint();
            if group.is_empty() {
                break;
            }
        }
    }
    // Closes the database.
    if let Some(tx) = desk.tx().take() {
        tx.close();
    }
}

/// Puts what has queued up into the group, beginning with `next`.
fn take(queue: &mut mpsc::Receiver<Message>, group: &mut Vec<Box<dyn Write>>, mut next: Option<Message>) {
    while let Some(message) = next.take() {
        match message {
            Message::Write(write) => group.push(write),
            Message::Look => {}
            // What is queued is still taken; nothing new is.
            Message::Stop => queue.close(),
        }
        if group.len() < WRITE_GROUP_MAX {
            next = queue.try_recv().ok();
        }
    }
}

/// One transaction for the first of the group, up to [`WRITE_GROUP_TIME`] and at least one; says how many they were. On an
/// error nothing was kept, and it is everybody's: the rest of the group would only wait for the same disk.
fn commit(
    tx: &mut Tx,
    group: &mut Vec<Box<dyn Write>>,
    more: impl FnMut(&mut Vec<Box<dyn Write>>) -> bool,
) -> Result<usize, StoreError> {
    let applied = tx.begin().and_then(|()| apply_first(tx, group, more));
    let committed = applied.and_then(|applied| tx.commit().map(|()| applied));
    if let Err(error) = &committed {
        tx.abort(error);
    }
    committed
}

fn apply_first(
    tx: &Tx,
    group: &mut Vec<Box<dyn Write>>,
    mut more: impl FnMut(&mut Vec<Box<dyn Write>>) -> bool,
) -> Result<usize, StoreError> {
    let (begun, mut applied) = (Instant::now(), 0);
    loop {
        while let Some(write) = group.get_mut(applied) {
            apply(tx, write.as_mut())?;
            applied += 1;
            if begun.elapsed() >= WRITE_GROUP_TIME {
                return Ok(applied);
            }
        }
        if !more(group) {
            return Ok(applied);
        }
    }
}

/// One operation. An error here is the whole group's: the transaction is gone or cannot be trusted.
fn apply(tx: &Tx, write: &mut dyn Write) -> Result<(), StoreError> {
    let guarded = write.undo() == Undo::Savepoint;
    if guarded {
        tx.prepare_cached("SAVEPOINT one")?.execute([])?;
    }
    let before = tx.total_changes();
    let mark = tx.mark();
    let applied = write.apply(tx);
    let Err(error) = applied else {
        if guarded {
            tx.prepare_cached("RELEASE one")?.execute([])?;
        }
        return Ok(());
    };
    tx.undo(mark);
    // On a full disk or an I/O error SQLite may roll the whole transaction back by itself
    // (sqlite.org/lang_transaction.html §3.1): then what went before in this group is gone as well.
    if tx.is_autocommit() {
        return Err(error);
    }
    if guarded {
        tx.prepare_cached("ROLLBACK TO one")?.execute([])?;
        tx.prepare_cached("RELEASE one")?.execute([])?;
    } else if tx.total_changes() != before {
        return Err(error);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
