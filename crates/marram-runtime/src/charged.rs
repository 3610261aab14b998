//! A guest's future whose CPU time is charged to an account.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cpu::{Account, SharedPollClock, poll_charged};

/// Charges every poll of `guest`.
pub(crate) async fn charged<F: Future>(
    guest: F,
    clock: SharedPollClock,
    account: &(impl Account + ?Sized),
) -> F::Output {
    let mut guest = std::pin::pin!(guest);
    std::future::poll_fn(move |cx: &mut Context<'_>| -> Poll<F::Output> {
        let guest: Pin<&mut F> = guest.as_mut();
        poll_charged(guest, &clock, account, cx)
    })
    .await
}
