"""The peers that Marram is measured beside: where `benches/peers.sh` put them, and how each is started."""

import shutil

from rig.process import Server, accepts, free_port

WORKERD_CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:{port}", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "{script}")],
  compatibilityDate = "2026-01-01",
);
"""


# Every message is on the disk before it is acknowledged, as in Marram; by default NATS syncs every two minutes.
NATS_CONFIG = """listen: "127.0.0.1:{client}"
server_name: bench
jetstream {{ store_dir: "{store}", sync_interval: always, max_file_store: 20GB }}
mqtt {{ listen: "127.0.0.1:{port}" }}
"""
MOSQUITTO_CONFIG = """listener {port} 127.0.0.1
allow_anonymous true
user root
persistence true
persistence_location {store}/
"""


class Peers:
    """Starts peers. `folder` is where they are installed."""

    def __init__(self, bench, folder):
        self.bench = bench
        self.wasmtime = folder / "wasmtime/bin/wasmtime"
        self.workerd = folder / "workerd/node_modules/workerd/bin/workerd"
        self.nats = folder / "nats/bin/nats-server"
        self.mosquitto = folder / "mosquitto/usr/sbin/mosquitto"

    def versions(self, version_of):
        """What each of them calls itself."""
        return {"wasmtime": version_of(self.wasmtime, "--version"), "workerd": version_of(self.workerd, "--version"),
                "nats-server": version_of(self.nats, "--version"), "mosquitto": version_of(self.mosquitto, "-h"),
                "wrk": version_of("wrk", "-v")}

    def wasmtime_serve(self, name, component, *options):
        """`wasmtime serve` with its defaults, and what the component needs."""
        port = free_port()
        command = [self.wasmtime, "serve", "--addr", f"127.0.0.1:{port}", *options, component]
        return Server(name, command, self._log(name), f"http://127.0.0.1:{port}")

    def workerd_serve(self, name, script):
        """`workerd` with one worker: one isolate, which stays warm, on one thread."""
        port = free_port()
        config = self.bench.out / "workerd" / f"{name}.capnp"
        config.parent.mkdir(parents=True, exist_ok=True)
        copy = config.with_suffix(".js")
        copy.write_bytes(script.read_bytes())
        config.write_text(WORKERD_CONFIG.format(port=port, script=copy.name))
        return Server(name, [self.workerd, "serve", config], self._log(name), f"http://127.0.0.1:{port}")

    def bare_hyper(self, name="bare hyper"):
        """The same answer from hyper alone, with a thread a core: what HTTP costs by itself."""
        return Server(name, [self.bench.bare_hyper], self._log("bare-hyper"))

    def syncing_hyper(self, name="bare hyper that syncs"):
        """The same, but each request is written to a file and synced first: what a durable publish costs at least."""
        return Server(name, [self.bench.bare_hyper, self._folder("hyper") / "log"], self._log("syncing-hyper"))

    def nats_mqtt(self, name="NATS, sync always"):
        """JetStream's MQTT, each message synced; `url` is its MQTT listener."""
        port = free_port()
        text = NATS_CONFIG.format(client=free_port(), port=port, store=self._folder("nats"))
        return self._broker(name, [self.nats, "-c", self._config("nats.conf", text)], port)

    def mosquitto_mqtt(self, name="mosquitto, no sync"):
        """mosquitto with persistence as it is by default: written every half hour, and at its end."""
        port = free_port()
        text = MOSQUITTO_CONFIG.format(port=port, store=self._folder("mosquitto"))
        return self._broker(name, [self.mosquitto, "-c", self._config("mosquitto.conf", text)], port)

    def _broker(self, name, command, port):
        return Server(name, command, self._log(name), f"127.0.0.1:{port}", probe=accepts)

    def _folder(self, name):
        folder = self.bench.out / "state" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _config(self, name, text):
        path = self.bench.out / "state" / name
        path.write_text(text)
        return path

    def _log(self, name):
        return self.bench.out / "log" / f"{name.replace(' ', '-')}.log"
