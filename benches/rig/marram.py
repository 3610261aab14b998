"""Marram under measurement: a node, and apps that are deployed to it through its admin API."""

import hashlib
import http.client
import json
import pathlib
import shutil

from rig.process import Server


class Node(Server):
    """`marram node` with its defaults: metering, logs and trace context are on. `more` are further flags."""

    def __init__(self, bench, name, keep_state=False, more=(), env=None):
        self.state = bench.out / "state" / name
        if not keep_state:
            shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(parents=True, exist_ok=True)
        command = [bench.marram, "node", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", self.state, *more]
        super().__init__(name, command, bench.out / "log" / f"{name}.log", env=env)

    def start(self):
        """Also forgets the addresses of the run before."""
        self.url, self.said = None, {}
        super().start()

    def admin(self, method, path, body=None):
        """Asks the admin API."""
        address = self.said_value("admin").removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=600)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return text

    def deploy(self, app, functions):
        """Deploys `functions`, each a (name, keys of its table as TOML, file name, bytes)."""
        manifest, digests = [f'manifest_version = 1\n[app]\nname = "{app}"\n'], {}
        for name, keys, file, content in functions:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            self.admin("PUT", f"/v1/blobs/{digest}", content)
            digests[name] = digest
            manifest.append(f'[[function]]\nname = "{name}"\ncomponent = "{file}"\n{keys}\n')
        request = {"manifest": "\n".join(manifest), "components": digests}
        return json.loads(self.admin("PUT", f"/v1/apps/{app}", json.dumps(request)))

    def deploy_one(self, path, component: pathlib.Path, keys=""):
        """Deploys an app of one function that serves `path`."""
        name = path.strip("/").replace("/", "-") or "root"
        keys = f'on = [{{ http = "{path}" }}]\n{keys}'
        return self.deploy(name, [(name, keys, component.name, component.read_bytes())])

    def declare(self, app, tables):
        """Deploys an app without functions: what is in `tables`, as TOML."""
        manifest = f'manifest_version = 1\n[app]\nname = "{app}"\n{tables}'
        return json.loads(self.admin("PUT", f"/v1/apps/{app}", json.dumps({"manifest": manifest, "components": {}})))

    def metric(self, name, label=""):
        """The sum of a metric over all that have this label, such as `status="503"`."""
        lines = self.admin("GET", "/metrics").decode().splitlines()
        mine = (line for line in lines if line.split("{")[0].split(" ")[0] == name and label in line)
        return sum(float(line.split()[-1]) for line in mine)

    def mapped(self, app):
        """How many functions of an app have their code mapped."""
        functions = json.loads(self.admin("GET", f"/v1/apps/{app}"))["functions"]
        return sum(bool(function["status"] and function["status"]["mapped"]) for function in functions)


def distinct(component, number):
    """The same component with another content: a custom section more, which changes nothing but the digest."""
    payload = b"\x05bench" + number.to_bytes(8, "little")
    return component + bytes([0, len(payload)]) + payload
