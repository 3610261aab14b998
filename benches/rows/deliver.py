"""From a stream to a function: how many events a second, and how long one is on its way."""

import statistics
import time

from rig import events
from rig.client import Client
from rig.disk import sync_seconds
from rig.marram import Node
from rig.report import Finding, median_and_p99

ROUNDS = 3
SINGLE, BATCHED = 50_000, 400_000
SINGLE_MIN, BATCHED_MIN = 8_000, 100_000

EVENTS, PAUSE_S = 400, 0.02
P50_MS_MAX, P99_MS_MAX = 1, 5


def throughput(bench, report):
    """A backlog is filled while the consumer is paused; then it is let go."""
    single = drained(bench, "single", "", SINGLE)
    batched = drained(bench, "batched", ', batch = { max = 64, wait = "5ms" }', BATCHED)
    report.add("deliver", [
        Finding("deliver", "stream to function, fresh instance, one by one", f"{statistics.median(single):,.0f} events/s",
                f"≥ {SINGLE_MIN:,}", statistics.median(single) >= SINGLE_MIN),
        Finding("deliver", "stream to function, batches of 64", f"{statistics.median(batched):,.0f} events/s",
                f"≥ {BATCHED_MIN:,}", statistics.median(batched) >= BATCHED_MIN),
    ], [f"Medians of {ROUNDS} backlogs of {SINGLE:,} and {BATCHED:,} events of 256 bytes, from the moment in which the "
        "consumer goes on to the moment in which the last is settled, durably. The function is `guests/hello-p2`: one "
        f"fresh instance for each request. Single: {spread(single)}; batches: {spread(batched)} events/s."],
        raw={"single": single, "batched": batched})


def spread(rates):
    """From the slowest to the fastest."""
    return f"{min(rates):,.0f}–{max(rates):,.0f}"


def drained(bench, name, batch, count):
    """Events a second of each round."""
    rates = []
    with Node(bench, f"marram-deliver-{name}") as node:
        component = bench.guests / "hello-p2.wasm"
        node.declare("streams", '[stream.in]\nretain = { bytes = "20GiB" }\ndedupe = "1s"\n')
        keys = f'on = [{{ stream = "in"{batch} }}]\ninstances = "fresh"'
        node.deploy("bench", [("quick", keys, component.name, component.read_bytes())])
        consumer = events.stream(node, "in")["consumers"][0]["id"]
        for turn in range(ROUNDS):
            events.pause(node, "in", consumer, True)
            events.fill(node, "in", count, turn * count)
            begun = time.perf_counter()
            events.pause(node, "in", consumer, False)
            rates.append(count / (events.wait_settled(node, "in", (turn + 1) * count) - begun))
    return rates


def latency(bench, report):
    """Single events on a quiet node. The function says when it began, by the same clock."""
    with Node(bench, "marram-latency") as node:
        component = bench.guests / "began.wasm"
        node.declare("streams", "[stream.in]\n[stream.out]\n")
        keys = 'on = [{ stream = "in" }]\noutput = "out"'
        node.deploy("bench", [("began", keys, component.name, component.read_bytes())])
        with Client(node.said_value("admin")) as client:
            for n in range(50):
                one(client, f"warm-{n}")
            syncs = [sync_seconds(node.state, 2, PAUSE_S)]
            sent = {}
            for n in range(EVENTS):
                sent[str(n)] = one(client, str(n))
                time.sleep(PAUSE_S)
            syncs.append(sync_seconds(node.state, 2, PAUSE_S))
        events.wait_settled(node, "in", EVENTS + 50)
        began = {event["subject"]: event["data"] for event in events.read(node, "out")}
    took = [(began[subject] - at) / 1e6 for subject, at in sent.items()]
    sync = statistics.median(syncs) * 1e3
    p50, p99 = median_and_p99(took)
    report.add("latency", [
        Finding.at_most("latency", "publish → function starts, p50, less one sync", p50 - sync, P50_MS_MAX, "ms", 2),
        Finding.at_most("latency", "publish → function starts, p99, less one sync", p99 - sync, P99_MS_MAX, "ms", 2),
        Finding("latency", "p50; p99; one sync of the disk", f"{p50:.2f}; {p99:.2f}; {sync:.2f} ms"),
    ], [f"{EVENTS} events, {PAUSE_S * 1e3:.0f} ms apart, from before the request that publishes is written, to the first "
        "line of the function (`guests/began`, one fresh instance for each event). The sync is one of the same quiet machine: "
        f"{PAUSE_S * 1e3:.0f} ms after the one before."], raw={"ms": took, "sync_ms": sync})


def one(client, subject):
    """Publishes an event. Returns when, in nanoseconds since 1970."""
    headers = [("ce-specversion", "1.0"), ("ce-id", subject), ("ce-source", "/bench"), ("ce-type", "reading"),
               ("ce-subject", subject)]
    at = time.time_ns()
    events.publish(client, "in", b"x" * 256, "application/octet-stream", headers)
    return at
