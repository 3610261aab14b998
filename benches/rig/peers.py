"""The peers that Marram is measured beside: where `benches/peers.sh` put them, and how each is started."""

from rig.process import Server, free_port

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


class Peers:
    """Starts peers. `folder` is where they are installed."""

    def __init__(self, bench, folder):
        self.bench = bench
        self.wasmtime = folder / "wasmtime/bin/wasmtime"
        self.workerd = folder / "workerd/node_modules/workerd/bin/workerd"

    def versions(self, version_of):
        """What each of them calls itself."""
        return {"wasmtime": version_of(self.wasmtime, "--version"), "workerd": version_of(self.workerd, "--version"),
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

    def _log(self, name):
        return self.bench.out / "log" / f"{name.replace(' ', '-')}.log"
