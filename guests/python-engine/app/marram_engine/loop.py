"""An asyncio event loop over wasi:io/poll, so that ordinary async Python (gather, sleep, wait_for, task groups) works.

Everything but the waiting is asyncio's own BaseEventLoop; the waiting is one call of `poll` with what tasks wait for.
"""

import asyncio
from asyncio import base_events

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

    def _write_to_self(self):
        # There is one thread: nobody needs waking.
        pass


def run(coroutine):
    """Runs `coroutine` to its end, cancels what it left running, and gives its result."""
    loop = Loop()
    try:
        asyncio.set_event_loop(loop)
        result = loop.run_until_complete(coroutine)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        return result
    finally:
        asyncio.set_event_loop(None)
        loop.close()
