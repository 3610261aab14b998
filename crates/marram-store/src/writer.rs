//! The one writer: what has queued up goes into one transaction, then everybody is answered.
//!
//! Nobody is answered before the commit has reached the disk. An operation that fails undoes itself and nothing else: each runs
//! within a savepoint, or ([`Writer::write_bare`]) has written nothing when it fails. When the commit fails, everybody in the
//! group gets its error, and nothing of the group was kept. What is in memory changes after the commit ([`Tx::after_commit`]).
//! Operations run on the writer's thread, one after the other: they must not wait for anything.

mod disk;
mod tx;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use crate::StoreError;
use crate::limits::{WRITE_GROUP_MAX, WRITE_QUEUE_MAX};

pub use tx::Tx;

/// Takes writes and commits them in groups.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The answer to a write: await it, or [`Ticket::wait`] for it on a thread. It comes once the write is durable.
///
/// Dropping it does not undo the write.
#[derive(Debug)]
#[must_use = "the write is durable only when the ticket says so"]
pub struct Ticket<T>(oneshot::Receiver<Result<T, StoreError>>);

enum Message {
    Write(Box<dyn Write>),
    Stop,
}

impl Writer {
    /// Starts the writer's thread.
    pub(crate) fn start(tx: Tx) -> Result<Self, StoreError> {
        let (queue, receiver) = mpsc::channel(WRITE_QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(tx, receiver))
            .map_err(|error| StoreError::io("start", "the writer's thread".as_ref(), error))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Hands in a write at once, or says that the queue is full ([`StoreError::Busy`]).
    ///
    /// Tickets of one caller are answered in the order of their submission.
    pub fn submit<T, F>(&self, operation: F) -> Result<Ticket<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        self.try_send(job(Undo::Savepoint, operation))
    }

    /// [`Writer::submit`] for an operation that first checks everything and then only writes: it needs no savepoint, which is
    /// a third of the cost of a small write. If it fails after it has written something, the whole group fails with it.
    pub(crate) fn submit_bare<T, F>(&self, operation: F) -> Result<Ticket<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        self.try_send(job(Undo::Nothing, operation))
    }

    /// Waits for a place in the queue, then until the write is durable.
    ///
    /// A caller that gives up while waiting for its place has written nothing; later, the write happens anyway.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, ticket) = job(Undo::Savepoint, operation);
        self.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        ticket.await
    }

    /// [`Writer::write`] without a savepoint, as [`Writer::submit_bare`].
    pub(crate) async fn write_bare<T, F>(&self, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
    {
        let (job, ticket) = job(Undo::Nothing, operation);
        self.queue.send(job).await.map_err(|_| StoreError::Closed)?;
        ticket.await
    }

    fn try_send<T>(&self, (job, ticket): (Message, Ticket<T>)) -> Result<Ticket<T>, StoreError> {
        match self.queue.try_send(job) {
            Ok(()) => Ok(ticket),
            Err(mpsc::error::TrySendError::Full(_)) => Err(StoreError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::Closed),
        }
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

/// What has to be done when an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undo {
    /// Go back to where it began.
    Savepoint,
    /// Nothing: it has written nothing.
    Nothing,
}

/// A queued write whose type of result is forgotten.
trait Write: Send {
    /// How it is undone.
    fn undo(&self) -> Undo;
    /// Runs the operation; its result waits for the commit.
    fn apply(&mut self, tx: &Tx) -> Result<(), StoreError>;
    /// Tells the caller: the result, or why the group was not kept.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Job<T, F> {
    undo: Undo,
    operation: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

fn job<T, F>(undo: Undo, operation: F) -> (Message, Ticket<T>)
where
    T: Send + 'static,
    F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, receiver) = oneshot::channel();
    (Message::Write(Box::new(Job { undo, operation: Some(operation), result: None, reply })), Ticket(receiver))
}

impl<T, F> Write for Job<T, F>
where
    T: Send,
    F: FnOnce(&Tx) -> Result<T, StoreError> + Send,
{
    fn undo(&self) -> Undo {
        self.undo
    }

    fn apply(&mut self, tx: &Tx) -> Result<(), StoreError> {
        let operation = self.operation.take().expect("a write is applied once");
        let result = catch_unwind(AssertUnwindSafe(|| operation(tx))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            Err(StoreError::Panicked(text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_default()))
        });
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (self.result, committed) {
            // What failed by itself keeps its own reason.
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (None, Ok(())) => Err(StoreError::Panicked("a group was committed without this write".into())),
        };
        // A caller that went away is fine.
        let _ = self.reply.send(answer);
    }
}

fn run(mut tx: Tx, mut queue: mpsc::Receiver<Message>) {
    let mut group: Vec<Box<dyn Write>> = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Write(write) => group.push(write),
                // What is queued is still taken; nothing new is.
                Message::Stop => queue.close(),
            }
            if group.len() < WRITE_GROUP_MAX {
                next = queue.try_recv().ok();
            }
        }
        if group.is_empty() {
            continue;
        }
        let committed = commit(&mut tx, &mut group);
        for write in group.drain(..) {
            write.answer(committed.clone());
        }
        tx.checkpoint();
    }
    tx.close();
}

/// One transaction for the group. On an error nothing of it was kept.
fn commit(tx: &mut Tx, group: &mut [Box<dyn Write>]) -> Result<(), StoreError> {
    let applied = tx.begin().and_then(|()| group.iter_mut().try_for_each(|write| apply(tx, write.as_mut())));
    match applied.and_then(|()| tx.commit()) {
        Ok(()) => Ok(()),
        Err(error) => {
            tx.abort(&error);
            Err(error)
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
