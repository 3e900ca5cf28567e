"""Keeps one server process from outliving its parent; run as a script, imported by nobody.

    python -I -S keeper.py SHM_PREFIX SCRATCH KEY_FILE PATIENCE_S LOG ON_GPU COMMAND...

The parent holds the other end of standard input. When that end closes (or says that the server
hangs and is not worth waiting for), because the parent is done or because it was killed, the server
is asked to stop, then made to. Its whole process group goes with it, and so does every file in
/dev/shm whose name starts with SHM_PREFIX (a killed server cannot remove them), and an MPS daemon
that was started for it, and the file KEY_FILE. Where the parent was killed, the folder SCRATCH is
removed as well. The server's process id goes to standard output, and whether its keys can be read
in the process list; the exit status is the server's.

Keys reach the server on its command line alone, which every user of the machine can read. So an
argument that reads `@NAME` stands for what the environment variable NAME holds, which no other user
can read: before the server's first instruction, its pointer to that argument is made to point at
the variable. That takes ptrace; where the system forbids it, the keys stand on the command line.

The server's files in /dev/shm are this user's alone. Its library makes them readable for all by
`fchmod` (Boost.Interprocess, shared_memory_object.hpp), so that call is made to do nothing in the
server by a filter (seccomp). For one, a user who is not root gives up the privileges of set-user-id
programs, and NVIDIA's driver needs such a program (nvidia-modprobe) to make its device files. So
with ON_GPU 1 where these are not there yet, and where filters are forbidden, the files' modes are
put right twice a second instead.

Imports little and holds no state, so that it starts at once and has nothing to fail on.
"""

import ctypes
import glob
import io
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
FCHMOD = 91  # asm/unistd_64.h
PTRACE_TRACEME, PTRACE_GETREGS, PTRACE_DETACH = 0, 12, 17
STACK_POINTER = 19  # of user_regs_struct, sys/user.h for x86-64
SHARED_MEMORY = "/dev/shm"
DEVICE_FILES = ("/dev/nvidiactl", "/dev/nvidia-uvm")
MIG_INSTANCES = "/proc/driver/nvidia/capabilities/gpu*/mig/gi*"
"""Parts of a GPU, each with device files of its own that are made when it is first used."""
POLL_S = 0.5
HANGS = b"h"
"""What the parent writes when the server hangs: it is killed at once."""
IDLE = b"i"
"""What it writes when nothing is loaded any more: Triton 24.10 now and then never ends then."""
IDLE_S = 2.0


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the parent goes; return its exit status."""
    prefix, scratch, key_file, patience_s, log_path, on_gpu, *command = arguments
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    # What the server and its models make in /dev/shm and elsewhere is this user's alone.
    os.umask(0o077)
    # Orphaned backend processes become children of this process, which can then reap them.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    parent = os.getppid()
    stop_read, stop_write = os.pipe()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop_write, b"x"))
    waives = on_gpu != "1" or has_device_files()
    server, hidden = _start(libc, command, log_path, waives_privileges=waives)
    print(server.pid, "hidden" if hidden else "shown", flush=True)
    ended = os.pidfd_open(server.pid)
    while True:
        readable, _, _ = select.select([0, stop_read, ended], [], [], POLL_S)
        _make_private(prefix)
        if ended in readable:
            break
        if readable or os.getppid() != parent:
            said = os.read(0, 1) if 0 in readable else b""
            server.terminate()
            waits_s = {HANGS: 0.0, IDLE: IDLE_S}.get(said, float(patience_s))
            if not select.select([ended], [], [], waits_s)[0]:
                server.kill()
            break
    status = server.wait()
    _end_group(server.pid)
    _end_mps()
    _remove_shared_memory(prefix)
    if key_file:
        _remove(key_file)
    if os.getppid() != parent:
        shutil.rmtree(scratch, ignore_errors=True)
    return status if status >= 0 else 128 - status


def _start(
    libc: ctypes.CDLL, command: list[str], log_path: str, *, waives_privileges: bool
) -> tuple[subprocess.Popen[bytes], bool]:
    """Start the server; whether the arguments that stand for variables are hidden."""
    names = [argument[1:] for argument in command if argument.startswith("@")]

    def start(command: list[str], *, traced: bool) -> subprocess.Popen[bytes]:
        def prepare() -> None:
            # Should this process be killed too, the kernel stops the server.
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            _ignore_fchmod(libc, waives_privileges=waives_privileges)
            if traced and libc.ptrace(PTRACE_TRACEME, 0, None, None):
                raise OSError("not allowed")

        with open(log_path, "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0,
                preexec_fn=prepare,
            )  # fmt: skip

    if names:
        try:
            server = start(command, traced=True)
        except subprocess.SubprocessError:
            pass  # not allowed here
        else:
            if _point_at_variables(libc, server.pid):
                return server, True
            server.kill()
            server.wait()
    plain = [os.environ[word[1:]] if word.startswith("@") else word for word in command]
    return start(plain, traced=False), not names


def has_device_files() -> bool:
    """Whether NVIDIA's driver needs no set-user-id program to make its device files."""
    return all(map(os.path.exists, DEVICE_FILES)) and not glob.glob(MIG_INSTANCES)


def _ignore_fchmod(libc: ctypes.CDLL, *, waives_privileges: bool) -> None:
    """Make `fchmod` do nothing and succeed, in this process and in those that it starts.

    Source: linux/filter.h, linux/seccomp.h; the filter sees `struct seccomp_data`.

    Args:
        waives_privileges: set-user-id programs may become of no use, where the system wants that.
    """
    load, equal, give_back = 0x20, 0x15, 0x06
    instructions = [
        (load, 0, 0, 4),  # the architecture
        (equal, 0, 3, 0xC000003E),  # AUDIT_ARCH_X86_64
        (load, 0, 0, 0),  # the call's number
        (equal, 0, 1, FCHMOD),
        (give_back, 0, 0, 0x00050000),  # SECCOMP_RET_ERRNO, error 0
        (give_back, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ]
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("<HxxxxxxQ", len(instructions), ctypes.addressof(buffer))
    refused = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)
    if refused and waives_privileges:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)


def _make_private(prefix: str) -> None:
    for name in os.listdir(SHARED_MEMORY):
        if name.startswith(prefix):
            path = os.path.join(SHARED_MEMORY, name)
            try:
                if os.stat(path).st_mode & 0o077:
                    os.chmod(path, 0o600)
            except FileNotFoundError:
                continue


def _point_at_variables(libc: ctypes.CDLL, pid: int) -> bool:
    """Make a traced process that stopped at its start read its `@` arguments from its variables."""
    _, status = os.waitpid(pid, 0)
    registers = (ctypes.c_uint64 * 27)()
    if not os.WIFSTOPPED(status) or libc.ptrace(
        PTRACE_GETREGS, pid, None, ctypes.addressof(registers)
    ):
        return False
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            _rewrite_arguments(memory, registers[STACK_POINTER])
    except (OSError, KeyError):
        return False
    return not libc.ptrace(PTRACE_DETACH, pid, None, None)


def _rewrite_arguments(memory: io.FileIO, stack: int) -> None:
    """The stack of a new process: argc, the arguments' addresses, 0, the variables', 0.

    Source: System V ABI, AMD64 supplement, 3.4.1, initial process stack.
    """

    def word(at: int) -> int:
        memory.seek(at)
        return int(struct.unpack("<Q", memory.read(8))[0])

    def text(at: int, size: int) -> bytes:
        memory.seek(at)
        return memory.read(size).partition(b"\0")[0]

    count = word(stack)
    arguments = [stack + 8 * (1 + position) for position in range(count)]
    wanted = {}
    for at in arguments:
        start = text(word(at), 64)
        if start.startswith(b"@"):
            wanted[start[1:]] = at
    at = arguments[-1] + 16
    while variable := word(at):
        name = text(variable, 64).partition(b"=")[0]
        if name in wanted:
            memory.seek(wanted.pop(name))
            memory.write(struct.pack("<Q", variable + len(name) + 1))
        at += 8
    if wanted:
        raise KeyError(*wanted)


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
            _remove(os.path.join(SHARED_MEMORY, name))


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # it went by itself


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
