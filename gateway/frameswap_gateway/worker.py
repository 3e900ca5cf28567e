"""A process that reads other people's files: started by the gateway, one task at a time.

Lines of JSON both ways. First what to work with, then tasks:

    -> {"servers": {...}, "memory_bytes": 8589934592, "may_write": true, "niceness": 5}
    -> {"task": "video", "number": 7, ...}      <- {"number": 7, "event": {"frames": 25, ...}}
    -> {"to": 7, "frame": 3, "jpeg": "..."}     a picture for a task that takes some
    -> {"cancel": 7}                            <- {"number": 7, "done": {...}}
                                            or  <- {"number": 7, "failed": {"code": ..., ...}}

A file that makes a decoder crash, or eat memory, takes this process with it and nothing else. It
ends when its standard input does, so none is left over when the gateway is killed.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

import cv2
from frameswap import FrameswapError, JobStopped
from frameswap.allocation import keep_large_buffers

from frameswap_gateway.bench import Bench
from frameswap_gateway.problems import error_code, is_full_disk
from frameswap_gateway.tasks import TASKS

__all__ = ["main"]


class _Conversation:
    """The lines: a thread reads, the main thread works."""

    def __init__(self, lines: TextIO, answers: TextIO) -> None:
        self._lines, self._answers = lines, answers
        self._lock = threading.Lock()
        self.tasks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.bench: Bench | None = None

    def read(self) -> None:
        for line in self._lines:
            message = json.loads(line)
            if "cancel" in message:
                if self.bench is not None:
                    self.bench.cancel(message["cancel"])
            elif "to" in message:
                if self.bench is not None:
                    self.bench.bring(message["to"], message)
            else:
                self.tasks.put(message)
        # The gateway is gone. Nothing here is worth finishing: the journal has what is whole.
        os._exit(0)

    def tell(self, number: int, **what: Any) -> None:
        with self._lock:
            self._answers.write(json.dumps({"number": number, **what}) + "\n")
            self._answers.flush()


def _limit(settings: Mapping[str, Any]) -> None:
    """Bound what a hostile file can take: memory, and where it may not write, files."""
    os.nice(int(settings["niceness"]))
    memory = int(settings["memory_bytes"])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not settings["may_write"]:
        # Pipes to the gateway are no files.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _work(conversation: _Conversation, bench: Bench, message: dict[str, Any]) -> None:
    number = int(message.pop("number"))
    names = message.pop("names", {})
    bench.begin(number, lambda event: conversation.tell(number, event=event))
    try:
        done = TASKS[message.pop("task")](bench, **message)
        conversation.tell(number, done=done)
    except JobStopped:
        conversation.tell(number, failed={"code": "canceled", "text": "it was canceled"})
    except (FrameswapError, OSError) as error:
        if is_full_disk(error):
            text = "the gateway's disk is full: try again later"
            conversation.tell(number, failed={"code": "storage-full", "text": text})
            return
        if not isinstance(error, FrameswapError):
            raise
        text = str(error)
        for path, name in names.items():
            text = text.replace(path, name)
        conversation.tell(number, failed={"code": error_code(error), "text": text})
    except MemoryError:
        text = "the file needs more memory than one job is given: scale it down"
        conversation.tell(number, failed={"code": "out-of-memory", "text": text})


def main() -> int:
    """Work until standard input ends."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Ctrl-C in a terminal reaches every process there; the gateway says when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("SVT_LOG", "1")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(2)
    keep_large_buffers()
    settings = json.loads(sys.stdin.readline())
    _limit(settings)
    conversation = _Conversation(sys.stdin, answers)
    with Bench(settings["servers"]) as bench:
        conversation.bench = bench
        threading.Thread(target=conversation.read, daemon=True).start()
        conversation.tell(0, done={})
        while True:
            _work(conversation, bench, conversation.tasks.get())


if __name__ == "__main__":
    sys.exit(main())
