//! An operation that waits for the writer: what it is to do, and who gets its result.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use super::{Ticket, Tx};
use crate::StoreError;

/// What has to be done when an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// Go back to where it began.
    Savepoint,
    /// Nothing: it has written nothing.
    Nothing,
}

/// What a write does to the room on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Adds,
    /// It takes more away than it adds.
    Frees,
    /// It takes something away from what is one thing on the disk, and writes the rest of that anew.
    Shrinks,
}

/// A queued write whose type of result is forgotten.
pub(super) trait Write: Send {
    /// How it is undone.
    fn undo(&self) -> Undo;
    /// What it does to the disk.
    fn effect(&self) -> Effect;
    /// Runs the operation; its result waits for the commit.
    fn apply(&mut self, tx: &Tx) -> Result<(), StoreError>;
    /// Tells the caller: the result, or why the group was not kept.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Job<T, F> {
    undo: Undo,
    effect: Effect,
    operation: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

pub(super) fn job<T, F>(undo: Undo, effect: Effect, operation: F) -> (Box<dyn Write>, Ticket<T>)
where
    T: Send + 'static,
    F: FnOnce(&Tx) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, receiver) = oneshot::channel();
    (Box::new(Job { undo, effect, operation: Some(operation), result: None, reply }), Ticket(receiver))
}

impl<T, F> Write for Job<T, F>
where
    T: Send,
    F: FnOnce(&Tx) -> Result<T, StoreError> + Send,
{
    fn undo(&self) -> Undo {
        self.undo
    }

    fn effect(&self) -> Effect {
        self.effect
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
