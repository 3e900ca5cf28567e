"""Ctrl-C and SIGTERM, kept out of gRPC's locks.

Python runs a signal's handler between any two bytecodes of the main thread. gRPC's Python layer
guards its calls with `threading.Condition`, whose `__enter__` is Python too: a KeyboardInterrupt
raised as it returns leaves the lock taken, gRPC's own thread waits for it for ever, and whoever
asks for an answer after that waits for gRPC's thread.
"""

from __future__ import annotations

import signal
import threading
from _signal import getsignal as get_handler  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

__all__ = ["signals_held_back"]

_SIGNALS: Final = (int(signal.SIGINT), int(signal.SIGTERM))


class _HoldBack:
    """Keep handlers written in Python from running inside the block; they run when it ends.

    It may be nested, and does nothing outside the main thread, where no handler runs. Blocks must
    be short: what waits for somebody else belongs outside.

    A block costs 3 us, three of them a frame; with the functions of `signal`, which look handlers
    up in an enumeration, it was 16.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._arrived: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        self._depth += 1
        if self._depth > 1:
            return
        try:
            for number in _SIGNALS:
                handler = get_handler(number)
                # SIG_DFL and SIG_IGN run no Python.
                if callable(handler) and handler != self._note:
                    self._handlers[number] = handler
                    set_handler(number, self._note)
        except ValueError:
            pass  # The interpreter's main thread is another than the one `threading` knows.
        except BaseException:
            # A signal came first. Where ours is in place already it passes signals on.
            self._depth -= 1
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        if self._depth > 1:
            self._depth -= 1
            return
        try:
            for number, handler in self._handlers.items():
                if get_handler(number) == self._note:
                    set_handler(number, handler)
        finally:
            # Not before: what comes while handlers are put back is noted, too.
            self._depth = 0
            self._deliver()

    def _deliver(self) -> None:
        if not self._arrived:
            return
        number, frame = self._arrived.pop(0)
        try:
            self._handlers[number](number, frame)
        finally:
            self._deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._depth:
            self._arrived.append((number, frame))
        else:
            self._handlers[number](number, frame)


signals_held_back: Final = _HoldBack()
"""`with signals_held_back:` around anything that takes gRPC's locks."""
