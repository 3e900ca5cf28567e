"""Keeps one server process from outliving its parent; run as a script, imported by nobody.

    python -I -S keeper.py SHM_PREFIX PATIENCE_S LOG COMMAND...

The parent holds the other end of standard input and writes nothing to it. When that end closes,
because the parent is done or because it was killed, the server is asked to stop, then made to; its
whole process group goes with it, and so does every file in /dev/shm whose name starts with
SHM_PREFIX (a killed server cannot remove them). The server's process id goes to standard output;
the exit status is the server's.

Imports little and holds no state, so that it starts at once and has nothing to fail on.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SHARED_MEMORY = "/dev/shm"
POLL_S = 0.5


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the parent goes; return its exit status."""
    prefix, patience_s, log_path, *command = arguments
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
            server.terminate()
            _wait_for_models(server.pid, ended, float(patience_s))
            server.kill()
            break
    status = server.wait()
    _end_group(server.pid)
    _remove_shared_memory(prefix)
    return status if status >= 0 else 128 - status


def _wait_for_models(server: int, ended: int, patience_s: float) -> None:
    """Wait until a server that was asked to stop has ended, or has no model process any more.

    Triton finishes its requests, then unloads its models, then looks once a second whether it is
    done: without model processes there is nothing left to wait for.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if select.select([ended], [], [], 0.05)[0] or not _children(server):
            return


def _children(process: int) -> list[str]:
    """Return the living children of a process: proc(5), /proc/PID/task/TID/children."""
    children = []
    for task in _listing(f"/proc/{process}/task"):
        children += _read(f"/proc/{process}/task/{task}/children").split()
    # Triton does not collect a model process that was killed: it stays as a zombie, state Z.
    return [child for child in children if _read(f"/proc/{child}/stat").split(") ")[-1][:1] != "Z"]


def _listing(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


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


def _remove_shared_memory(prefix: str) -> None:
    for name in os.listdir(SHARED_MEMORY):
        if name.startswith(prefix):
            try:
                os.unlink(os.path.join(SHARED_MEMORY, name))
            except FileNotFoundError:
                continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
