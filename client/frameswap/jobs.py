"""Video jobs for programs: start one, follow it, pause it, end it, go on with it.

>>> job = VideoJob(swapper, "in.mp4", "out.mp4", [source]).start()        # doctest: +SKIP
>>> for event in job.events():                                            # doctest: +SKIP
...     print(event)
>>> job.result().faces                                                    # doctest: +SKIP
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from frameswap.addresses import Target, Url
from frameswap.encoders import Encoding
from frameswap.job_control import JobControl, JobStopped
from frameswap.options import SwapOptions
from frameswap.persons.casting import Casting
from frameswap.persons.steadiness import Steadiness
from frameswap.preview import Preview
from frameswap.read_options import ReadOptions
from frameswap.report import Tally
from frameswap.segmented_job import Journaling
from frameswap.sources import Source
from frameswap.swap_job import swap_video
from frameswap.swapper import FaceSwapper
from frameswap.video import VideoReader
from frameswap.video_writer import AudioMode

__all__ = ["JobEvent", "JobState", "VideoJob"]

JobState = Literal["new", "running", "paused", "done", "ended early", "stopped", "failed"]
FINAL_STATES: Final[tuple[JobState, ...]] = ("done", "ended early", "stopped", "failed")
EVENT_INTERVAL_S: Final = 0.25
_STEADY: Final = Steadiness()


@dataclass(frozen=True)
class JobEvent:
    """Something that happened.

    frames: finished so far. total: expected, None where the file does not say.
    note: a sentence about what is not kept as it was; "" mostly. error: of a job that failed.
    """

    state: JobState
    frames: int
    total: int | None
    elapsed_s: float
    note: str = ""
    error: str = ""


class VideoJob:
    """One video, swapped in a thread of its own; every method may be called from any thread.

    Args:
        swapper: for this job alone as long as it runs; it is not closed with it.
        target, output: the files; a target may be a `Url`, which is read as it comes.
        casting: who becomes whom; or sources, one a face slot.
        options: of each frame; the colours are the file's own.
        steady: how faces are followed; None: each frame by itself.
        force: overwrite an output that exists.
        audio: "auto", "copy", "transcode" or "drop".
        encoding: codec, quality and preset; None takes what the output usually holds.
        reading: which part of the target, and what becomes of HDR and of damaged frames.
        journaling: segments, and whether an earlier run is gone on with.
        report: gets a line of JSON for each frame, and a summary.
        preview: a `.jpg` or `.png` that shows the newest frame.
    """

    def __init__(
        self,
        swapper: FaceSwapper,
        target: str | os.PathLike[str] | Url,
        output: str | os.PathLike[str],
        casting: Casting | Sequence[Source],
        *,
        options: SwapOptions | None = None,
        steady: Steadiness | None = _STEADY,
        force: bool = False,
        audio: AudioMode = "auto",
        encoding: Encoding | None = None,
        reading: ReadOptions | None = None,
        journaling: Journaling | None = None,
        report: str | os.PathLike[str] | None = None,
        preview: str | os.PathLike[str] | None = None,
    ) -> None:
        self._swapper = swapper
        self._target: Target = target if isinstance(target, Url) else Path(target)
        self._output = Path(output)
        self._casting = casting if isinstance(casting, Casting) else list(casting)
        self._steady = steady
        self._options = options or SwapOptions()
        self._force, self._audio = force, audio
        self._encoding = encoding or Encoding()
        self._reading = reading or ReadOptions()
        self._journaling = journaling or Journaling()
        self._report = None if report is None else Path(report)
        self._preview = None if preview is None else Preview(Path(preview))
        self._control = JobControl()
        self._events: queue.SimpleQueue[JobEvent] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"frameswap {self._output.name}")
        self._state: JobState = "new"
        self._frames = 0
        self._total: int | None = None
        self._started_s = self._told_s = time.monotonic()
        self._tally: Tally | None = None
        self._error: Exception | None = None

    @property
    def state(self) -> JobState:
        if self._state == "running" and self._control.is_paused:
            return "paused"
        return self._state

    def start(self) -> VideoJob:
        """Begin; returns the job itself."""
        self._started_s = time.monotonic()
        self._state = "running"
        self._thread.start()
        return self

    def events(self) -> Iterator[JobEvent]:
        """What happens, as it does; ends with the event of a final state. For one reader."""
        while True:
            event = self._events.get()
            yield event
            if event.state in FINAL_STATES:
                return

    def pause(self) -> None:
        """Take no further frames; those under way are finished."""
        self._control.pause()
        self._tell()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._control.go_on()
        self._tell()

    def end_early(self) -> None:
        """Finish the output with the frames that are done; another job of it goes on from there."""
        self._control.end_early()

    def cancel(self) -> None:
        """Stop without an output; whole segments stay, and another job of it goes on from there."""
        self._control.stop()

    def result(self, timeout_s: float | None = None) -> Tally:
        """Wait for the end.

        Raises:
            JobStopped: the job was cancelled.
            FrameswapError: it failed.
            TimeoutError: it is still running.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"the job of {self._output} is still running after {timeout_s} s")
        if self._error is not None:
            raise self._error
        assert self._tally is not None  # the other way to end
        return self._tally

    def _run(self) -> None:
        try:
            with VideoReader(self._target, self._reading) as reader:
                self._total = reader.frame_count
                self._tally = swap_video(
                    self._swapper, reader, self._casting, self._of(reader), self._output,
                    steady=self._steady, force=self._force, encoding=self._encoding,
                    audio=self._audio, on_notes=self._note, on_frame=self._count,
                    journaling=self._journaling, control=self._control, report=self._report,
                    preview=self._preview,
                )  # fmt: skip
            self._state = "ended early" if self._control.ends_early else "done"
        except JobStopped as stop:
            self._state, self._error = "stopped", stop
        except Exception as error:  # raised by `result`, where somebody waits for it
            self._state, self._error = "failed", error
        finally:
            self._tell(error="" if self._state != "failed" else str(self._error))

    def _of(self, reader: VideoReader) -> SwapOptions:
        return replace(
            self._options,
            color_matrix=reader.tags.color_matrix,
            color_range=reader.tags.color_range,
            chroma_location=reader.chroma_location,
        )

    def _count(self, done: int) -> None:
        self._frames = done
        if time.monotonic() - self._told_s >= EVENT_INTERVAL_S:
            self._tell()

    def _note(self, notes: Sequence[str]) -> None:
        for note in notes:
            self._tell(note=note)

    def _tell(self, *, note: str = "", error: str = "") -> None:
        self._told_s = time.monotonic()
        elapsed_s = self._told_s - self._started_s
        self._events.put(
            JobEvent(self.state, self._frames, self._total, elapsed_s, note=note, error=error)
        )
