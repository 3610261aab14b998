"""Starting: from the start of the process to the first answer; and what a node without work holds."""

import time

from rig import events
from rig.client import Client
from rig.marram import Node
from rig.report import Finding, median_and_p99

STARTS = 25
START_MS_MAX = 100
IDLE_MB_MAX = 20
IDLE_ALL_MB_MAX = 30
# What a node allocates late shows within this time: it flushes once a second, and unmaps code after ten.
SETTLE_S = 4
CODE_IDLE_S = 12


def run(bench, report):
    """A node with one function deployed and compiled."""
    node = Node(bench, "marram-start")
    with node:
        node.deploy_one("/hello", bench.guests / "hello-p2.wasm")
    ready, answered = [], []
    for _ in range(STARTS):
        node.start()
        try:
            node.url = node.said_value("http")
            ready.append((time.perf_counter() - node.started) * 1e3)
            with Client(node.url) as client:
                status, body, _ = client.get("/hello")
            answered.append((time.perf_counter() - node.started) * 1e3)
        finally:
            node.stop()
        if (status, body) != (200, b"Hello from Marram"):
            raise RuntimeError(f"the first answer is {status} {body!r}")
    median, worst = median_and_p99(answered)
    report.add("start", [
        Finding.at_most("start", "process start to first answer, median", median, START_MS_MAX, "ms"),
        Finding.at_most("start", "process start to first answer, worst", worst, START_MS_MAX, "ms"),
    ], [f"{STARTS} starts; it says where it serves after {median_and_p99(ready)[0]:.1f} ms (median)."],
        raw={"ready_ms": ready, "answered_ms": answered})


def idle(bench, report):
    """A node without apps."""
    with Node(bench, "marram-idle") as node:
        resident, private = settled(node)
    report.add("idle", [Finding.at_most("idle", "idle node, resident", resident / 1e6, IDLE_MB_MAX, "MB")],
               [f"The largest of {SETTLE_S} seconds; of it {private / 1e6:.1f} MB is not mapped from files."])


def idle_all(bench, report):
    """A node whose every part is in use: functions on HTTP, streams, keys, objects, schedules and MQTT, all idle."""
    component = bench.guests / "hello-p2.wasm"
    on = ('on = [{ http = "/hello" }, { stream = "in", batch = { max = 64, wait = "5ms" } }, { key = "bench/*" }, '
          '{ object = "bench/*" }, { mqtt = "bench/#" }, { schedule = "0 0 1 1 *" }]\noutput = "out"\n'
          'allow = { kv = ["bench"], blob = ["bench"], publish = ["out"] }')
    with Node(bench, "marram-idle-all", more=["--mqtt", "127.0.0.1:0", "--s3", "127.0.0.1:0"]) as node:
        node.deploy("bench", [("all", on, component.name, component.read_bytes())])
        node.stop()
        node.start()
        node.wait_ready()
        events.fill(node, "in", 1_000)
        events.wait_settled(node, "in", 1_000)
        time.sleep(CODE_IDLE_S)
        resident, private = settled(node)
    report.add("idle-all", [
        Finding.at_most("idle-all", "node with streams, keys, objects, MQTT, S3; idle", resident / 1e6, IDLE_ALL_MB_MAX,
                        "MB"),
    ], [f"One function with a trigger of each kind, started with its code in the cache; it has consumed a thousand events, "
        f"and then had {CODE_IDLE_S} s to unmap its code. {private / 1e6:.1f} MB is not mapped from files."])


def settled(node, seconds=SETTLE_S):
    """The largest resident size over some seconds without requests, and its private part at their end."""
    end, largest = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        largest = max(largest, node.resident_bytes())
        time.sleep(0.1)
    return largest, node.private_bytes()
