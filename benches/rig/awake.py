"""Processors that do not sleep while something is measured."""

import contextlib
import os

# Linux, Documentation/power/pm_qos_interface.rst: the bound holds for as long as whoever wrote it keeps the file open.
LATENCY = "/dev/cpu_dma_latency"


@contextlib.contextmanager
def awake():
    """Forbids idle processors to sleep, as `cyclictest` does for its own measurements and `tuned` for machines whose latency
    matters. Yields whether this machine lets itself be told."""
    try:
        file = os.open(LATENCY, os.O_WRONLY)
    except OSError:
        yield False
        return
    try:
        os.write(file, bytes(4))
        yield True
    finally:
        os.close(file)
