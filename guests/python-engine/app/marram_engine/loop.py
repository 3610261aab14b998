"""An asyncio event loop over wasi:io/poll, so that ordinary async Python (gather, sleep, wait_for, task groups) works.

Everything but the waiting is asyncio's own BaseEventLoop; the waiting is one call of `poll` with what tasks wait for.
"""

import asyncio
from asyncio import base_events, events, runners

from wit_world.imports import monotonic_clock
from wit_world.imports.poll import poll


class _Poller:
    """In the place of a selector: waits for pollables, and for at most `timeout` seconds."""

    def __init__(self):
        self.waiting = []

    def select(self, timeout):
        pollables = [pollable for pollable, _ in self.waiting]
        timer = None
        if timeout is not None and timeout <= 0:
            return self._take([n for n, pollable in enumerate(pollables) if pollable.ready()])
        if timeout is not None:
            timer = monotonic_clock.subscribe_duration(int(timeout * 1e9))
            pollables.append(timer)
        if not pollables:
            raise RuntimeError("the function waits for something that can never happen")
        ready = poll(pollables)
        if timer is not None:
            with timer:
                pass
        return self._take([n for n in ready if n < len(self.waiting)])

    def _take(self, ready):
        wakers = [self.waiting[n][1] for n in ready]
        self.waiting = [entry for n, entry in enumerate(self.waiting) if n not in ready]
        return wakers

    def close(self):
        self.waiting = []


class Loop(base_events.BaseEventLoop):
    """One for each request: what a request leaves behind must not run in the next one's time."""

    def __init__(self):
        super().__init__()
        self._selector = _Poller()

    async def wait(self, pollable):
        """Waits until `pollable` is ready; other tasks run meanwhile."""
        woken = self.create_future()
        entry = (pollable, woken)
        self._selector.waiting.append(entry)
        try:
            await woken
        finally:
            if entry in self._selector.waiting:
                self._selector.waiting.remove(entry)

    def _process_events(self, wakers):
        for woken in wakers:
            if not woken.done():
                woken.set_result(None)

    def run_in_executor(self, executor, function, *args):
        # There is one thread, so `asyncio.to_thread` calls the function right away, and others wait.
        outcome = self.create_future()
        try:
            outcome.set_result(function(*args))
        except Exception as error:
            outcome.set_exception(error)
        return outcome

    def _write_to_self(self):
        # There is one thread: nobody needs waking.
        pass


class _Policy(events._BaseDefaultEventLoopPolicy):
    """Makes `asyncio.run` and `asyncio.new_event_loop` take this loop."""

    _loop_factory = Loop


events._set_event_loop_policy(_Policy())


def run(coroutine):
    """Runs `coroutine` to its end, cancels what it left running, and gives its result."""
    # asyncio.run does the same, in more turns of the loop.
    loop = Loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(coroutine)
    finally:
        try:
            # Also after an exception: what waits holds resources that have to be dropped in order.
            runners._cancel_all_tasks(loop)
            if loop._asyncgens:
                loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
