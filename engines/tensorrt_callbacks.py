"""What crosses the border between TensorRT's C++ and Python: messages, progress, Ctrl-C.

No exception may leave a callback (the library's frames are `noexcept`: the process would abort),
and every error that a person sees is one sentence.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from engines.errors import CompileError, UnsupportedOperator
from engines.progress import CompileProgress

Result = TypeVar("Result")


def parser_failure(parser: Any, product: str) -> CompileError:
    """The parser's first error as one sentence."""
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        reason = _one_line(error.desc())
        if error.node() >= 0:
            return UnsupportedOperator(
                f"{product} does not take node {error.node_name() or error.node()!r} "
                f"(operator {error.node_operator()}): {reason}"
            )
        if "DESERIALIZE" in error.code().name:
            return CompileError(f"the file is not an ONNX model that {product} can read")
        return CompileError(f"{product} cannot read the graph: {reason}")
    return CompileError(f"{product} cannot read the graph and does not say why")


def _one_line(text: str) -> str:
    return " ".join(text.removeprefix("Assertion failed: ").split()).rstrip(".")


def make_log(trt: Any) -> Any:
    """A logger of that package which keeps what was said, for errors and for memory figures."""

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known only when it is imported
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.warnings: list[str] = []
            self.memory: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(_one_line(message))
            elif severity == trt.ILogger.WARNING:
                self.warnings.append(_one_line(message))
            elif " Memory: " in message:
                self.memory.append(message)

        def reason(self) -> str:
            return self.errors[-1] if self.errors else "it gave no reason"

        def largest(self, line: re.Pattern[str]) -> int | None:
            values = [int(found[1]) for text in self.memory if (found := line.search(text))]
            return max(values, default=None)

    return Log()


def make_monitor(trt: Any, progress: CompileProgress | None) -> Any:
    """`progress` as that package's IProgressMonitor.

    The library calls it from C++ code that no exception may cross: an exception of `progress` is
    kept in `failure`, and ends the compilation.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # known only when it is imported
        def __init__(self) -> None:
            super().__init__()
            self.cancelled = False
            self.failure: Exception | None = None

        def cancel(self) -> None:
            self.cancelled = True

        def _tell(self, call: Callable[[CompileProgress], bool | None]) -> None:
            if progress is None or self.failure is not None:
                return
            try:
                if call(progress) is False:
                    self.cancelled = True
            except Exception as error:
                self.failure = error

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._tell(lambda told: told.start(phase, parent, steps))

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(lambda told: told.advance(phase, step))
            return not self.cancelled and self.failure is None

        def phase_finish(self, phase: str) -> None:
            self._tell(lambda told: told.finish(phase))

    return Monitor()


def run_apart(work: Callable[[], Result], cancel: Callable[[], None]) -> Result:
    """Run `work` in a thread of its own, so that Ctrl-C reaches Python code and not a callback.

    Python raises KeyboardInterrupt in the main thread alone; raised inside a logger or a progress
    monitor it would cross the library's C++ frames and abort the process.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="compile") as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except BaseException as error:
            cancel()
            # The frames hold the builder, whose logger would serve later compilations too.
            traceback.clear_frames(error.__traceback__)
            raise
