"""Events for a node under measurement, and what its streams say of themselves."""

import base64
import json
import time

from rig.client import Client

DATA = base64.b64encode(b"x" * 256).decode()
BATCH = 1_000


def batch(first, count=BATCH):
    """A batch of CloudEvents with 256 bytes of data each, as JSON. `first` is the number that the ids go on from."""
    event = ('{{"specversion":"1.0","id":"{0}","source":"/bench","type":"reading","subject":"plant/{1}",'
             '"datacontenttype":"application/octet-stream","data_base64":"{2}"}}').format
    return ("[" + ",".join(event(n, n % 1000, DATA) for n in range(first, first + count)) + "]").encode()


def fill(node, stream, count, first=0):
    """Publishes so many events, a thousand at once."""
    with Client(node.said_value("admin"), timeout_s=120) as client:
        for at in range(first, first + count, BATCH):
            publish(client, stream, batch(at, min(BATCH, first + count - at)), "application/cloudevents-batch+json")


def publish(client, stream, body, content_type, headers=()):
    """One request on an open connection. Returns the seconds that it took."""
    status, answer, took = client.ask(
        "POST", f"/v1/streams/{stream}/events", body, [("content-type", content_type), *headers])
    if status != 200:
        raise RuntimeError(f"publishing to {stream}: {status} {answer.decode(errors='replace')[:300]}")
    return took


def stream(node, name):
    """What the admin API says of a stream."""
    streams = json.loads(node.admin("GET", "/v1/streams"))["streams"]
    return next(each for each in streams if each["name"] == name)


def read(node, name):
    """All events that a stream keeps."""
    lines = node.admin("GET", f"/v1/streams/{name}/events").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def pause(node, name, consumer, paused):
    """Stops or resumes a consumer."""
    node.admin("POST", f"/v1/streams/{name}/pause", json.dumps({"consumer": consumer, "paused": paused}))


def wait_settled(node, name, acked, deadline_s=120):
    """Waits until the only consumer of a stream has acknowledged so many events; returns when that was."""
    end = time.perf_counter() + deadline_s
    while True:
        consumer = stream(node, name)["consumers"][0]
        now = time.perf_counter()
        if consumer["acked"] >= acked:
            return now
        if now > end or consumer["dead_lettered"]:
            raise RuntimeError(f"{name}: {consumer}")
        time.sleep(0.01)
