"""Drives a VM of kvmlet's by the client of firecracker-python (PyPI), unchanged, from its description to its end.

By hand, since it takes packages from PyPI (`pip install firecracker-python==0.0.5 requests-unixsocket==0.4.1` in a venv):
firecracker_python.py KVMLET-SERVE KERNEL, where the kernel is the bare-metal guest `saved`, and `kvmlet` lies beside the first.
"""

import os
import subprocess
import sys
import tempfile
import time

from firecracker.api import Api
from firecracker.exceptions import APIError

serve, kernel = sys.argv[1:]
place = tempfile.mkdtemp()


def start(name):
    socket = os.path.join(place, name)
    process = subprocess.Popen(
        [serve, "firecracker", "--api-sock", socket, "--id", name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while not os.path.exists(socket):
        assert time.monotonic() < deadline, "nobody listens"
        time.sleep(0.001)
    return process, Api(socket)


def refused(act, part):
    try:
        act()
    except APIError as error:
        assert part in str(error), error
        return
    raise AssertionError(f"nothing was refused: {part}")


def round_of(process):
    for line in process.stdout:
        if line.startswith("round="):
            return int(line.split()[0][len("round="):])
    raise AssertionError("the guest has ended")


disk = os.path.join(place, "disk")
with open(disk, "wb") as file:
    file.truncate(8 << 20)
process, api = start("first")
assert api.version.get().json()["firecracker_version"].startswith("1.")
assert api.describe.get().json()["state"] == "Not started"
refused(lambda: api.vm.patch(state="Paused"), "before starting")
api.machine_config.put(vcpu_count=1, mem_size_mib=32)
assert api.machine_config.get().json()["mem_size_mib"] == 32
api.boot.put(kernel_image_path=kernel, boot_args="console=ttyS0")
api.drive.put(drive_id="rootfs", path_on_host=disk, is_root_device=True, is_read_only=False)
api.mmds.put(a=1)
assert api.mmds.get().json() == {"a": 1}
refused(lambda: api.vsock.put(guest_cid=3), "missing field `uds_path`")
api.actions.put(action_type="InstanceStart")
first = round_of(process)
limiter = {"ops": {"size": 100, "refill_time": 1000}}
api.drive.patch(drive_id="rootfs", rate_limiter=limiter)
assert api.vm_config.get().json()["drives"][0]["rate_limiter"]["ops"]["size"] == 100
api.vm.patch(state="Paused")
assert api.describe.get().json()["state"] == "Paused"
state, memory = os.path.join(place, "state"), os.path.join(place, "memory")
api.create_snapshot.put(snapshot_type="Full", snapshot_path=state, mem_file_path=memory)
# Its disk is one VM's at a time.
process.terminate()
assert process.wait() == 143
second, api = start("second")
backend = {"backend_type": "File", "backend_path": memory}
api.load_snapshot.put(snapshot_path=state, mem_backend=backend, resume_vm=True)
assert api.describe.get().json()["state"] == "Running"
assert round_of(second) > first
refused(lambda: api.boot.put(kernel_image_path=kernel), "after starting")
second.stdin.write("q")
second.stdin.close()
assert second.wait() == 0
print("firecracker-python: ok")
