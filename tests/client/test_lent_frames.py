"""Swapped frames that lie in shared memory: nothing is copied, and nobody's frame is written over.

Each frame has a value of its own, and the fake server answers with its negative, so that whatever
was written into memory that somebody still held would be seen.
"""

from __future__ import annotations

import ctypes
import gc
import io
import random
import re
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_server import FakeServer
from frameswap import Encoding, FaceSwapper, Placement, Source
from frameswap.allocation import zero_new_memory
from frameswap.cuda_memory import CudaDriver, CudaRegion
from frameswap.encoders import ENCODERS
from frameswap.provenance import Edit
from frameswap.shared_memory import PREFIX
from frameswap.shared_transport import MOST_LENT
from frameswap.video import VideoReader
from frameswap.video_writer import VideoWriter

SOURCE = Source(
    np.float32([1, 2, 3, 4]), "identity", "fake_identity", np.zeros((0, 15), np.float32)
)
IN_FLIGHT = 4
ROWS, WIDTH = 144, 80


def frames(count: int) -> Iterator[np.ndarray]:
    for value in range(count):
        yield np.full((ROWS, WIDTH), value % 251, np.uint8)


def connect(server: FakeServer, transport: str = "system") -> FaceSwapper:
    return FaceSwapper(server.address, transport=transport, in_flight=IN_FLIGHT, timeout_s=20)


def lies_in_a_region(frame: np.ndarray) -> bool:
    """Whether its bytes are pages of a client's region: asked of the kernel."""
    address = frame.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(bound, 16) for bound in line.split()[0].split("-"))
        if start <= address < stop:
            return PREFIX in line
    return False


def test_results_are_not_copied_while_few_are_held(server: FakeServer) -> None:
    with connect(server) as swapper:
        for swapped in swapper.stream(frames(40), SOURCE):
            assert lies_in_a_region(swapped.frame)
        # Those under way, and the one that was being looked at.
        assert len(server.regions) == IN_FLIGHT + 1


def test_who_holds_all_results_is_given_copies_and_every_one_stays_as_it_was(
    server: FakeServer,
) -> None:
    with connect(server) as swapper:
        held = [each.frame for each in swapper.stream(frames(60), SOURCE)]
        assert sum(lies_in_a_region(frame) for frame in held) == MOST_LENT
        assert len(server.regions) <= IN_FLIGHT + MOST_LENT
        for value, frame in enumerate(held):
            assert (frame == 255 - value).all()
    assert not server.regions
    for value, frame in enumerate(held):
        assert (frame == 255 - value).all()


HOLDING: dict[str, Callable[[np.ndarray], Any]] = {
    "the array": lambda frame: frame,
    "a part of it": lambda frame: frame[5:9, 3:7],
    "its memory": memoryview,
    "another array over it": lambda frame: np.asarray(memoryview(frame)),
    "another type over it": lambda frame: frame.view(np.uint16),
    "a picture of an encoder": lambda frame: av.VideoFrame.from_numpy_buffer(frame, "yuv420p"),
}


def content(held: Any) -> np.ndarray:
    if isinstance(held, av.VideoFrame):
        return held.to_ndarray()
    return np.asarray(held).view(np.uint8)


@pytest.mark.parametrize("reuse_buffers", [False, True])
@pytest.mark.parametrize("way", HOLDING)
def test_a_frame_is_written_over_by_no_other_however_it_is_held(
    server: FakeServer, way: str, reuse_buffers: bool
) -> None:
    moments = random.Random(14)
    held: deque[tuple[int, Any]] = deque()
    with connect(server) as swapper:
        stream = swapper.stream(frames(120), SOURCE, reuse_buffers=reuse_buffers)
        for index, swapped in enumerate(stream):
            held.append((255 - index % 251, HOLDING[way](swapped.frame)))
            del swapped
            for _ in range(moments.choice([0, 1, 1, 1, 2, 7])):
                if held:
                    held.rotate(moments.randrange(len(held)))
                    held.popleft()
            for value, each in held:
                assert (content(each) == value).all()


def test_frames_that_were_swapped_in_two_steps_are_lent_too(server: FakeServer) -> None:
    def plan(founds: Any) -> Iterator[Placement]:
        for each in founds:
            yield Placement(each.found.faces, SOURCE, each.found.landmarks)

    with connect(server) as swapper:
        held: deque[tuple[int, np.ndarray]] = deque(maxlen=3)
        for index, swapped in enumerate(swapper.stream_found(frames(50), plan)):
            assert lies_in_a_region(swapped.frame)
            held.append((255 - index, swapped.frame))
            for value, frame in held:
                assert (frame == value).all()


@pytest.mark.parametrize("transport", ["grpc", "system"])
def test_a_result_can_be_drawn_on_unless_that_was_given_up(
    server: FakeServer, transport: str
) -> None:
    with connect(server, transport) as swapper:
        for index, swapped in enumerate(swapper.stream(frames(20), SOURCE)):
            swapped.frame[:4] = 7
            assert (swapped.frame[:4] == 7).all()
            assert (swapped.frame[4:] == 255 - index).all()
        swapped = next(swapper.stream(frames(1), SOURCE, reuse_buffers=True))
        with pytest.raises(ValueError, match="read-only"):
            swapped.frame[:4] = 7


def test_pinned_memory_goes_with_its_last_view() -> None:
    library = FakeCuda()
    region = CudaRegion(4096, CudaDriver(library))
    address = region.host.ctypes.data
    view = region.host[100:200]
    view[:] = 5
    region.close()
    assert list(library.memory) == [address]
    assert bytes(ctypes.string_at(address + 100, 100)) == bytes([5]) * 100
    del view
    assert library.memory == {}


def moving(index: int) -> np.ndarray:
    rows, columns = np.mgrid[0:ROWS, 0:WIDTH]
    return ((rows * 3 + columns * (1 + index % 5) + index * 11) % 251).astype(np.uint8)


@pytest.mark.parametrize("name", [name for name in ENCODERS if "nvenc" not in name])
def test_an_encoder_never_reads_memory_that_was_given_back(tmp_path: Path, name: str) -> None:
    """Memory that nobody holds is scribbled over, as the next frame would; encoders have threads,
    and may keep pictures. What comes out is what comes of frames that nobody touches."""
    given = tmp_path / "in.mkv"
    with av.open(str(given), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, ROWS * 2 // 3, "yuv420p"
        picture = av.VideoFrame.from_ndarray(moving(0), format="yuv420p")
        picture.pts, picture.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    suffix = ENCODERS[name].suffixes[0]
    output = tmp_path / (f"%02d{suffix}" if suffix in (".png", ".jpg") else f"out{suffix}")

    def encode(*, scribble: bool) -> list[bytes]:
        packets = []
        with VideoReader(given) as reader:
            writer = VideoWriter(
                output, reader, shown=output, edit=Edit("none", "composite"),
                encoding=Encoding(name),
            )  # fmt: skip
            encoder = writer.new_encoder(threads=3)
            lent: list[tuple[Any, np.ndarray]] = []
            kept = []
            for index in range(24):
                memory = moving(index)
                if scribble:
                    # As a slot's: the memoryview tells whether anybody has the frame.
                    frame = np.frombuffer(memoryview(memory), np.uint8).reshape(memory.shape)
                    lent.append((weakref_of(frame), memory))
                else:
                    frame = memory
                    kept.append(memory)
                if name == "y4m":
                    # Its packets are the pictures themselves, which the file's writer reads.
                    writer.write_frame(frame, index * 40)
                else:
                    made = writer.encode_frame(frame, index * 40, encoder)
                    packets += [bytes(packet) for packet in made]
                del frame
                for loan, lying in lent:
                    if loan() is None:
                        lying[:] = 77
            if name == "y4m":
                writer.finish()
                return [output.read_bytes()]
            packets += [bytes(packet) for packet in writer.flush(encoder)]
            writer.abort()
        return packets

    # Or what x264 makes depends on memory that it never wrote.
    zero_new_memory(True)
    try:
        assert encode(scribble=True) == encode(scribble=False)
    finally:
        zero_new_memory(False)


def weakref_of(frame: np.ndarray) -> Any:
    below: Any = frame
    while isinstance(below, np.ndarray):
        below = below.base
    return weakref.ref(below)


def test_a_request_that_failed_once_holds_nobodys_frame(server: FakeServer) -> None:
    """An error's traceback leads to all callers' frames: where the error is part of a cycle, what
    they hold stays until garbage is collected, which may be never."""

    def look_at_all(swapper: FaceSwapper) -> list[bool]:
        return [lies_in_a_region(each.frame) for each in swapper.stream(frames(20), SOURCE)]

    gc.collect()
    gc.disable()
    try:
        with connect(server) as swapper:
            for _ in range(MOST_LENT + 2):
                # A neighbour had the server forget all regions: requests fail, and are sent again.
                server.regions.clear()
                assert all(look_at_all(swapper))
    finally:
        gc.enable()


def test_the_documents_source_makes_its_frames_where_they_are_sent_from(
    server: FakeServer,
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    (example,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if "class Raw" in block
    ]
    small = example.replace("(1080 * 3 // 2, 1920)", f"({ROWS}, {WIDTH})").replace("250", "30")
    assert small != example
    into: list[bool] = []

    class Pipe(io.BytesIO):
        def readinto(self, out: np.ndarray) -> int:
            into.append(lies_in_a_region(out))
            return super().readinto(out)

    shown: list[np.ndarray] = []
    with connect(server) as swapper:
        exec(
            small,
            {
                "swapper": swapper,
                "source": SOURCE,
                "pipe": Pipe(b"".join(bytes(frame) for frame in frames(30))),
                "show": shown.append,
            },
        )
    assert into == [True] * 30
    for value, frame in enumerate(shown):
        assert (frame == 255 - value).all()
    assert len(shown) == 30
