"""Tries kvmlet's own API by what its document says, and by what it does not: schemathesis and openapi-spec-validator (PyPI), unchanged.

By hand, since it takes packages from PyPI (`pip install schemathesis==4.32.5 openapi-spec-validator==0.9.0` in a venv), as root:
schemathesis_v1.py KVMLET-SERVE SECONDS [SCHEMATHESIS-ARGUMENTS], where `kvmlet` lies beside the first. The book is one of its own, and there is no
kernel, so that VMs are made and end without one. Events that are followed never end, and are for tests/v1.
There is no network either: no name that is tried is asked of a registry.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

from openapi_spec_validator import validate

serve, seconds, *more = sys.argv[1:]
place = tempfile.mkdtemp()
path = os.path.join(place, "api")
os.mkdir(os.path.join(place, "lib"))


# An archive is any bytes, here: what is none is for the guest's side to say.
with open(os.path.join(place, "archives.py"), "w") as hooks:
    hooks.write("""
import schemathesis

@schemathesis.serializer("application/x-tar")
def archive(_, value):
    return value if isinstance(value, bytes) else str(value).encode()
""")


def pass_on(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def forward(client):
    try:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(path)
            thread = threading.Thread(target=pass_on, args=(client, server), daemon=True)
            thread.start()
            pass_on(server, client)
    except OSError:
        pass


def accept(listener):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=forward, args=(client,), daemon=True).start()


script = f'mount --bind "{place}/lib" /var/lib && exec "{serve}" serve --socket "{path}"'
server = subprocess.Popen(["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script],
                          env={**os.environ, "XDG_CACHE_HOME": place})
try:
    while not os.path.exists(path):
        assert server.poll() is None, "it has ended"
        time.sleep(0.01)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def ask(what):
        text = subprocess.run(["curl", "--silent", "--fail", "--max-time", "30", url + what], stdout=subprocess.PIPE, check=True).stdout
        return json.loads(text)

    document = ask("/v1/openapi.json")
    validate(document)
    ended = subprocess.run([
        os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", f"{url}/v1/openapi.json",
        "--exclude-operation-id", "streamEvents", "--max-time", seconds, "--request-timeout", "330",
        "--continue-on-failure", "--checks", "all",
        # What is well-formed may still name a file that there is not.
        "--exclude-checks", "positive_data_acceptance",
        *more], cwd=place, env={**os.environ, "PYTHONPATH": place, "SCHEMATHESIS_HOOKS": "archives"}).returncode
    assert server.poll() is None, "it has ended"
    memory = next(line for line in open(f"/proc/{server.pid}/status") if line.startswith("VmRSS"))
    print(f"the server is there: {len(ask('/v1/vms')['vms'])} VMs, {memory.split()[1]} KiB")
finally:
    server.kill()
sys.exit(ended)
