"""Tries Firecracker's surface by requests that are made of the tests' table of operations, and by such as are not: schemathesis (PyPI), unchanged.

By hand, since it takes packages from PyPI (`pip install schemathesis==4.32.5` in a venv), as root:
schemathesis_firecracker.py KVMLET-SERVE KERNEL DESCRIPTION REQUESTS, where the kernel is the bare-metal guest `saved`, the description what
`cargo test -p kvmlet-serve --test firecracker -- --openapi` prints, and `kvmlet` lies beside the first. Half of the requests go to VMs that have not
started (one that has is ended for the next), the others to one VM that runs and has to be there in the end. What a request names is written into a
place of their own: all other file systems can only be read.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

if "OWN_NETWORK" not in os.environ:
    # Its tap is to be in nobody's way.
    os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.argv], {**os.environ, "OWN_NETWORK": "1"})
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
serve, kernel, description, requests = sys.argv[1:]
requests = int(requests)
place = tempfile.mkdtemp()
path = os.path.join(place, "api")
disk = os.path.join(place, "disk")
with open(disk, "wb") as file:
    file.truncate(1 << 20)
subprocess.run(["ip", "tuntap", "add", "tap0", "mode", "tap"], check=True)

NAMES = {
    "kernel_image_path": [kernel, "/dev/null", "nowhere/kernel"],
    "initrd_path": ["/dev/null", "nowhere/initrd"],
    "boot_args": ["", "quiet", "console=ttyS0"],
    "path_on_host": [disk, "nowhere/disk"],
    "host_dev_name": ["tap0", "tap7"],
    "uds_path": [os.path.join(place, "v"), "nowhere/v"],
    "serial_out_path": [os.path.join(place, "serial"), "/dev/null"],
    "log_path": [os.path.join(place, "log"), "/dev/null"],
    "metrics_path": [os.path.join(place, "metrics"), "/dev/null"],
    "snapshot_path": [os.path.join(place, "state"), "nowhere/state"],
    "mem_file_path": [os.path.join(place, "memory"), "nowhere/memory"],
    "backend_path": [os.path.join(place, "memory"), "nowhere/memory"],
    "drive_id": ["root_1", "other"],
    "iface_id": ["eth0", "other"],
}


def named(schema):
    """The description with names of what there is here, beside any words."""
    if isinstance(schema, list):
        return [named(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: named(value) for key, value in schema.items()}
    for name, value in told.get("properties", {}).items():
        if name in NAMES:
            told["properties"][name] = {"anyOf": [{"type": "string", "enum": NAMES[name]}, value]}
    return told


document = os.path.join(place, "openapi.json")
with open(description) as file, open(document, "w") as out:
    json.dump(named(json.load(file)), out)


def status(pid, key):
    with open(f"/proc/{pid}/status") as file:
        return next(line.split(":", 1)[1].split() for line in file if line.startswith(key + ":"))


def below(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        direct = [int(word) for word in file.read().split()]
    return direct + [deeper for child in direct for deeper in below(child)]


def whole(answer):
    assert answer[0] == 204, answer
    return answer


class Vm:
    """A process that serves, and what it has held at most."""

    held = {}

    def __init__(self, described=False):
        # Whatever a request names: nothing but this place can be written to.
        script = (f'mount --bind "{place}" "{place}" && mkdir -p "{place}/run" && mount --bind "{place}/run" /run '
                  f'&& mount -o remount,bind,ro / && cd "{place}" && rm -f api '
                  f'&& exec "{serve}" firecracker --api-sock "{path}" --level Off')
        self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(path)
                break
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "nobody listens"
                time.sleep(0.001)
        if described:
            whole(self.ask("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 32}))
            whole(self.ask("PUT", "/boot-source", {"kernel_image_path": kernel, "boot_args": ""}))

    def ask(self, method, what, body=None):
        words = ["curl", "--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}", "--unix-socket", path]
        words += ["-X", method, f"http://localhost{what}"]
        if body is not None:
            words += ["-d", json.dumps(body)]
        text, code = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout.rsplit("\n", 1)
        return int(code), text

    def measure(self):
        pid = self.process.pid
        try:
            # The first below is the supervisor, and below that is the VM's own process.
            for name, one in [("serve", pid)] + list(zip(["supervisor"], below(pid))):
                most = int(status(one, "VmHWM")[0])
                Vm.held[name] = max(most, Vm.held.get(name, 0))
        except (OSError, StopIteration):
            pass

    def end(self):
        self.measure()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(60) == 143, self.process.returncode
        # 152: a snapshot that was none. 0: a guest that has ended.
        assert self.process.returncode in (0, 143, 152), self.process.returncode


class Front:
    """A port in front of the socket: schemathesis knows no Unix sockets. It counts requests, and gives each VM a while."""

    def __init__(self, lasting):
        self.lasting, self.vm, self.lock = lasting, lasting or Vm(), threading.Lock()
        self.requests, self.vms, self.started, self.turns = 0, 0, 0, 0
        self.statuses = {}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self.accept, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            while True:
                request = self.message(client)
                if request is None:
                    return
                with self.lock:
                    answer = self.answer(request)
                if answer is None:
                    return
                client.sendall(answer)

    def answer(self, request):
        if self.lasting is None:
            self.turns += 1
            ended = self.vm.process.poll() is not None
            if ended or self.turns > 200 or (self.turns % 10 == 0 and b'"Not started"' not in self.exchange(b"GET / HTTP/1.1\r\n\r\n")):
                self.vms += 1
                self.started += not ended and self.turns <= 200
                self.vm.end()
                # Every other one needs no more than to be started.
                self.vm, self.turns = Vm(described=self.vms % 2 == 1), 0
        self.requests += 1
        if self.requests % 50 == 0:
            self.vm.measure()
        answer = self.exchange(request)
        code = answer[9:12].decode()
        self.statuses[code] = self.statuses.get(code, 0) + 1
        return answer

    def exchange(self, request):
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(120)
            server.connect(path)
            server.sendall(request)
            answer = self.message(server)
            assert answer, f"no answer: {request}"
            return answer

    @staticmethod
    def message(stream):
        """A whole request or answer: by its length."""
        text = b""
        while b"\r\n\r\n" not in text:
            more = stream.recv(65536)
            if not more:
                return None
            text += more
        head, body = text.split(b"\r\n\r\n", 1)
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        missing = int(length[1]) - len(body) if length else 0
        while missing > 0:
            more = stream.recv(65536)
            if not more:
                return None
            text, missing = text + more, missing - len(more)
        return text


def run(front, most):
    """Runs of schemathesis with seeds of their own, until there are as many requests."""
    seed = 1
    while front.requests < most:
        before = front.requests
        ended = subprocess.run([
            os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", document, "--url", front.url,
            "--max-examples", "100", "--seed", str(seed), "--request-timeout", "120", "--continue-on-failure", "--checks", "all",
            # What is well-formed may be asked at another time; and Firecracker says 400 to a method that a path has not.
            "--exclude-checks", "positive_data_acceptance,unsupported_method,ensure_resource_availability,use_after_free"],
            cwd=place).returncode
        assert ended == 0, f"schemathesis: {ended}"
        assert front.requests > before, "nothing was asked"
        seed += 1


def rounds():
    with open(os.path.join(place, "console"), "rb") as file:
        return file.read().count(b"round=")


try:
    first = Front(None)
    run(first, requests // 2)
    first.vm.end()
    print(f"VMs that have not started: {first.requests} requests to {first.vms + 1}, {first.started} of which were started, answers {first.statuses}")

    vm = Vm(described=True)
    whole(vm.ask("PUT", "/serial", {"serial_out_path": os.path.join(place, "console")}))
    whole(vm.ask("PUT", "/drives/root_1", {"drive_id": "root_1", "path_on_host": disk, "is_root_device": True, "is_read_only": True}))
    whole(vm.ask("PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": "tap0"}))
    whole(vm.ask("PUT", "/vsock", {"guest_cid": 3, "uds_path": os.path.join(place, "running")}))
    whole(vm.ask("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 1}))
    whole(vm.ask("PUT", "/metrics", {"metrics_path": "/dev/null"}))
    whole(vm.ask("PUT", "/actions", {"action_type": "InstanceStart"}))
    second = Front(vm)
    run(second, requests - requests // 2)
    assert vm.process.poll() is None, "the VM is lost"
    whole(vm.ask("PATCH", "/vm", {"state": "Resumed"}))
    had, deadline = rounds(), time.monotonic() + 60
    while rounds() <= had:
        assert time.monotonic() < deadline, "its guest does nothing"
        time.sleep(0.01)
    vm.end()
    print(f"a VM that runs: {second.requests} requests, answers {second.statuses}; it is there, and its guest goes on")
    for name, most in Vm.held.items():
        print(f"{name}: {most} KiB at most (VmHWM)")
    codes = set(first.statuses) | set(second.statuses)
    assert not any(code.startswith("5") for code in codes), codes
finally:
    for front in (globals().get("first"), globals().get("second")):
        if front and front.vm.process.poll() is None:
            front.vm.process.kill()
