"""Keeps one server process from outliving its parent; run as a script, imported by nobody.

    python -I -S keeper.py SHM_PREFIX SCRATCH PATIENCE_S LOG COMMAND...

The parent holds the other end of standard input. When that end closes (or says that the server
hangs and is not worth waiting for), because the parent is done or because it was killed, the server
is asked to stop, then made to. Its whole process group goes with it, and so does every file in
/dev/shm whose name starts with SHM_PREFIX (a killed server cannot remove them), and an MPS daemon
that was started for it. Where the parent was killed, the folder SCRATCH is removed as well. The
server's process id goes to standard output; the exit status is the server's.

Imports little and holds no state, so that it starts at once and has nothing to fail on.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY = "/dev/shm"
POLL_S = 0.5
HANGS = b"h"
"""What the parent writes when the server hangs: it is killed at once."""


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the parent goes; return its exit status."""
    prefix, scratch, patience_s, log_path, *command = arguments
    libc = ctypes.CDLL(None)
    # Orphaned backend processes become children of this process, which can then reap them.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parent = os.getppid()
    stop_read, stop_write = os.pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop_write, b"x"))
    with open(log_path, "ab") as log:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
            # Should this process be killed too, the kernel stops the server.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        )
    print(server.pid, flush=True)
    ended = os.pidfd_open(server.pid)
    while True:
        readable, _, _ = select.select([0, stop_read, ended], [], [], POLL_S)
        if ended in readable:
            break
        if readable or os.getppid() != parent:
            hangs = 0 in readable and os.read(0, 1) == HANGS
            server.terminate()
            if not select.select([ended], [], [], 0.0 if hangs else float(patience_s))[0]:
                server.kill()
            break
    status = server.wait()
    _end_group(server.pid)
    _end_mps()
    _remove_shared_memory(prefix)
    if os.getppid() != parent:
        shutil.rmtree(scratch, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _end_group(group: int) -> None:
    """Kill what is left of the server's process group, and wait until it is gone."""
    for _ in range(200):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return
        try:
            os.waitpid(-group, 0)
        except ChildProcessError:
            time.sleep(0.01)


def _end_mps() -> None:
    """End the server's own MPS daemon, where it has one; its environment names it."""
    control = os.environ.get("FRAMESWAP_MPS_CONTROL")
    if control:
        try:
            subprocess.run(
                [control], input=b"quit -t 5\n", timeout=30, check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            # Nothing more can be done about it, and the server is down.
            return


def _remove_shared_memory(prefix: str) -> None:
    for name in os.listdir(SHARED_MEMORY):
        if name.startswith(prefix):
            try:
                os.unlink(os.path.join(SHARED_MEMORY, name))
            except FileNotFoundError:
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
