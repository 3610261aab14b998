#!/usr/bin/env python3
"""Load for the profile that `make dist` optimizes with: a little of everything that a node does often.

    benches/train.py MARRAM GUESTS MQTT_LOAD OUT

MARRAM is a binary that counts what runs in it, and writes that down when it ends. OUT is a folder for its state.
"""

import pathlib
import sys

from rig import events
from rig.client import Client
from rig.load import wrk
from rig.marram import Node
from rows import keys
from rows import events as publishing
from rows import mqtt

SECONDS = 4
EVENTS = 20_000
# Functions of every kind, in the ways in which instances are used.
SERVED = [
    ("fresh", "hello-p2.wasm", 'instances = "fresh"'), ("reused", "hello-p2.wasm", "instances = { reuse = 128 }"),
    ("concurrent", "hello-p3.wasm", ""), ("script", "hello.js", ""), ("script-fresh", "hello.js", 'instances = "fresh"'),
]
STREAMS = """
[stream.in]
ingest = true
retain = { bytes = "2GiB" }
[stream.captured]
mqtt = ["captured/#"]
retain = { bytes = "2GiB" }
"""


class Place:
    """What the rows of the benchmark ask of a bench."""

    def __init__(self, marram, guests, mqtt_load, out):
        self.marram, self.guests, self.mqtt_load, self.out = marram, guests, mqtt_load, out
        self.root = pathlib.Path(__file__).resolve().parent.parent
        self.workers = self.root / "benches/workers"


def main():
    """Ends with the node's own end, because that is when the counts are written."""
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    place = Place(*map(pathlib.Path, sys.argv[1:]))
    with Node(place, "train", more=["--mqtt", "127.0.0.1:0"]) as node:
        requests(place, node)
        state(place, node)
        streams(place, node)
        mqtt.load(place, node.said_value("mqtt").removeprefix("mqtt://"), mqtt.CLIENTS, SECONDS)


def requests(place, node):
    """Web requests, kept alive, to each kind of function, and to nobody."""
    for name, component, how in SERVED:
        folder = place.workers if component.endswith(".js") else place.guests
        node.deploy(name, [(name, f'on = [{{ http = "/{name}" }}]\n{how}', component, (folder / component).read_bytes())])
        wrk(f"{node.url}/{name}", node, 16, SECONDS)
    wrk(f"{node.url}/nobody", node, 16, 1, may_refuse=True)


def state(place, node):
    """Keys, from a function."""
    component = place.guests / "state.wasm"
    node.deploy("keys", [("keys", keys.KEYS.replace("/...", "/bench/..."), component.name, component.read_bytes())])
    with Client(node.url, timeout_s=120) as client:
        keys.ask(client, "/bench/fill/0/1000", 1_000)
    for path, count in (("/bench/get/20000/1000", 20_000), ("/bench/set/1000/1000", 1_000)):
        keys.at_once(node, path, count)


def streams(place, node):
    """Events in over HTTP, one by one and in batches, and to functions."""
    node.declare("streams", STREAMS)
    node.admin("PUT", "/v1/apps/streams/secrets/ingest_token", publishing.TOKEN)
    for connections in (publishing.CONNECTIONS, 1):
        publishing.load(place, node, connections, SECONDS)
    kept = events.stream(node, "in")["events"]
    component = place.guests / "hello-p2.wasm"
    node.deploy("late", [("late", 'on = [{ stream = "in" }]\ninstances = "fresh"', component.name, component.read_bytes())])
    events.fill(node, "in", EVENTS)
    events.wait_settled(node, "in", min(kept, EVENTS))


if __name__ == "__main__":
    main()
