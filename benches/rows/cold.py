"""Scale to zero: the first request to a function whose code was unmapped, beside the next one."""

import time

from rig.client import Client
from rig.report import Finding, median_and_p99
from rows import thousand

APP = 0
PASSES = 2
MEDIAN_MS_MAX, P99_MS_MAX = 1, 5
# The code goes ten seconds after the last use.
UNMAPPED_S_MAX = 40


def run(bench, report):
    """One pass uses every function of an app; after the wait that unmaps them, the next pass finds them cold."""
    cold, warm, waits = [], [], []
    with thousand.prepared(bench) as node, Client(node.url) as client:
        one_pass(client, [], [])
        for _ in range(PASSES):
            waits.append(wait_unmapped(node))
            before = node.metric("faas_coldstarts_total")
            one_pass(client, cold, warm)
            counted = node.metric("faas_coldstarts_total") - before
            if counted != thousand.EACH:
                raise RuntimeError(f"{thousand.EACH} functions were unmapped, and {counted:.0f} cold starts counted")
    (cold_median, cold_p99), (warm_median, warm_p99) = median_and_p99(cold), median_and_p99(warm)
    report.add("cold", [
        Finding.at_most("cold", "scaled to zero, median over a warm one's", cold_median - warm_median, MEDIAN_MS_MAX,
                        "ms", 2),
        Finding.at_most("cold", "scaled to zero, p99 over a warm one's median", cold_p99 - warm_median, P99_MS_MAX,
                        "ms", 2),
        Finding("cold", "cold: median, p99; warm: median, p99",
                f"{cold_median:.2f}, {cold_p99:.2f}; {warm_median:.2f}, {warm_p99:.2f} ms"),
    ], [f"{len(cold)} cold samples, as many as the node's metrics counted, of functions with a component each; unmapped "
        f"{' and '.join(f'{wait:.0f} s' for wait in waits)} after their last use. One connection, one request at a time."],
        raw={"cold_ms": cold, "warm_ms": warm})


def one_pass(client, cold, warm):
    """Asks each function twice."""
    for function in range(thousand.EACH):
        for samples in (cold, warm):
            status, _, took = client.get(thousand.path(APP, function))
            if status != 200:
                raise RuntimeError(f"a function answered {status}")
            samples.append(took * 1e3)


def wait_unmapped(node):
    """Waits until the node says that no function of the app has its code mapped."""
    begun = time.perf_counter()
    while node.mapped(f"a{APP}"):
        if time.perf_counter() - begun > UNMAPPED_S_MAX:
            raise RuntimeError(f"code was still mapped after {UNMAPPED_S_MAX} s")
        time.sleep(0.5)
    return time.perf_counter() - begun
