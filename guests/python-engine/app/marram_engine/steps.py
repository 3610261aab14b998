"""What waits is written once: as a generator that yields each pollable it has to wait for, and holds it until then.

A generator unwinds in order when it is closed. So whatever is given up half way, because its task was cancelled or its time
was over, drops children before their parents, as the host insists.
"""

import asyncio


def blocking(steps):
    """Runs steps to their end, and blocks where they wait. Gives what they return."""
    while True:
        try:
            pollable = next(steps)
        except StopIteration as done:
            return done.value
        pollable.block()


async def waiting(steps):
    """The same in an event loop: other tasks run meanwhile."""
    try:
        while True:
            try:
                pollable = next(steps)
            except StopIteration as done:
                return done.value
            await asyncio.get_running_loop().wait(pollable)
    finally:
        steps.close()
