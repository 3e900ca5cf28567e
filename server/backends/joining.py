"""Joining the requests of one Triton batch into one run of a network, and splitting it again.

Triton hands a Python-based backend a list of requests. Requests of equal shapes are joined on the
batch axis; a model whose inputs are ragged in K is joined along its face rows, and rows without a
face are left out. Arrays are anything with NumPy's indexing, where a `common.Memory` keeps them.

Axis letters: B batch, K face slots of a request (F of a landmark network), M rows of `faces`, N
joined face rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from graphs.contract import SCORE_COLUMN
from server.backends.common import Memory, RowRule


def group_by_shape(
    requests: Sequence[Mapping[str, Any]], most_rows: int, *, most_bytes: int | None = None
) -> list[list[int]]:
    """Return groups of request positions that can be joined on the batch axis.

    Requests of a group agree in every axis but the first, and together they have at most
    `most_rows` rows (or are one request).

    Args:
        most_bytes: of the largest joined input, padded to a power of two of rows.
    """
    groups: dict[tuple[Any, ...], list[list[int]]] = {}
    rows: dict[tuple[Any, ...], int] = {}
    for position, arrays in enumerate(requests):
        key = tuple(tuple(arrays[name].shape[1:]) for name in arrays)
        count = batch_rows(arrays)
        limit = most_rows
        if most_bytes is not None:
            limit = min(limit, _padded_rows_within(most_bytes, arrays))
        if key not in groups or rows[key] + count > limit:
            groups.setdefault(key, []).append([])
            rows[key] = 0
        groups[key][-1].append(position)
        rows[key] += count
    return [group for parts in groups.values() for group in parts]


def _padded_rows_within(most_bytes: int, arrays: Mapping[str, Any]) -> int:
    """The largest power of two of a request's rows that stays within a number of bytes."""
    row = max(int(array.nbytes) // max(1, int(array.shape[0])) for array in arrays.values())
    fitting = max(1, most_bytes // max(1, row))
    return 1 << (fitting.bit_length() - 1)


def batch_rows(arrays: Mapping[str, Any]) -> int:
    """Return B of one request's arrays [B, ...]."""
    return int(next(iter(arrays.values())).shape[0])


Run = Callable[[dict[str, Any], int], dict[str, Any]]
"""Runs a network: joined inputs [N, ...] and how many of the rows count, to outputs [N, ...]."""


def run_joined(
    requests: Sequence[Mapping[str, Any]],
    run: Run,
    memory: Memory,
    *,
    padded_rows: Callable[[int], int] = lambda rows: rows,
) -> list[dict[str, Any]]:
    """Run requests of equal shapes as one batch and split the outputs again.

    Args:
        requests: input name to array [b_i, ...], all of one group of `group_by_shape`.
        run: the network.
        memory: joins the arrays.
        padded_rows: the batch size to run for a number of rows, at least that number.

    Returns:
        For each request its outputs [b_i, ...], views of the joined output.
    """
    counts = [batch_rows(arrays) for arrays in requests]
    rows = padded_rows(sum(counts))
    joined = {
        name: memory.join([arrays[name] for arrays in requests], rows) for name in requests[0]
    }
    outputs = run(joined, sum(counts))
    split: list[dict[str, Any]] = []
    first = 0
    for count in counts:
        split.append({name: array[first : first + count] for name, array in outputs.items()})
        first += count
    return split


@dataclass(frozen=True)
class _Slots:
    """Face slots of one request: K, the M of its mask, and the flat positions b * K + k that hold
    a face."""

    batch: int
    count: int
    reported: int
    kept: tuple[int, ...]


def run_rows(
    requests: Sequence[Mapping[str, Any]],
    rule: RowRule,
    run: Run,
    memory: Memory,
    *,
    padded_rows: Callable[[int], int] = lambda rows: rows,
    output_shape: Callable[[str, Mapping[str, Any]], tuple[int, ...]],
    masks: Sequence[Any] | None = None,
) -> list[dict[str, Any]]:
    """Run the face rows of all requests as one batch, rows without a face left out.

    The network is called with N kept rows as B = N, K = 1: row inputs become [N, 1, ...], and the
    mask (`faces`) becomes [N, M, 15], zeros but for row 0, which is that row's face; what the rows
    of a frame share becomes [N, ...], once for each. Requests may differ in K. Empty slots of an
    output are 0. An output that updates the mask is the mask, and row 0 of what the network made of
    a slot's in that slot. With no face at all the network is not called.

    Args:
        requests: row inputs [b_i, K_i, ...], shared inputs [b_i, ...] and the mask [b_i, M, 15].
        rule: names of the row tensors, and the most rows of one call.
        run: the network.
        memory: where the arrays are.
        padded_rows: the batch size to run for a number of rows.
        output_shape: shape of one slot of an output, for requests without any face.
        masks: each request's mask as a NumPy array, where it is known; else it is asked for, and a
            device waited for.

    Returns:
        For each request its row outputs [b_i, K_i, ...] and updated masks [b_i, M, 15].
    """
    if masks is None:
        masks = memory.to_host([arrays[rule.mask] for arrays in requests])
    slots = _find_slots(requests, rule, masks)
    pieces = [(position, flat) for position, request in enumerate(slots) for flat in request.kept]
    chunks: list[dict[str, Any]] = []
    for first in range(0, len(pieces), rule.max_rows):
        part = pieces[first : first + rule.max_rows]
        rows = padded_rows(len(part))
        joined = {name: memory.join(_row_parts(requests, name, part), rows) for name in rule.inputs}
        frames = [(at, flat // slots[at].count) for at, flat in part]
        for name in rule.shared:
            joined[name] = memory.join(_shared_parts(requests, name, frames), rows)
        joined[rule.mask] = _join_masks(requests, rule, _in_masks(slots, part), rows, memory)
        chunks.append(run(joined, len(part)))
    scattered = _scatter_rows(requests, rule, slots, chunks, memory, output_shape)
    for name in rule.updated:
        if not chunks or name in chunks[0]:
            _update_masks(scattered, name, requests, rule, slots, chunks, memory)
    return scattered


def _find_slots(
    requests: Sequence[Mapping[str, Any]], rule: RowRule, masks: Sequence[Any]
) -> list[_Slots]:
    slots = []
    for arrays, mask in zip(requests, masks, strict=True):
        score = mask[:, :, SCORE_COLUMN]
        batch, count = (int(size) for size in arrays[rule.inputs[0]].shape[:2])
        reported = int(score.shape[1])
        # `!= 0` keeps a NaN row: the network turns it into NaN, which cannot be missed.
        kept = tuple(
            b * count + k
            for b in range(batch)
            for k in range(min(count, reported))
            if score[b, k] != 0
        )
        slots.append(_Slots(batch, count, reported, kept))
    return slots


def _in_masks(slots: Sequence[_Slots], pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Slots b * K + k as rows b * M + k of their requests' masks."""
    return [
        (at, flat // slots[at].count * slots[at].reported + flat % slots[at].count)
        for at, flat in pieces
    ]


def _row_parts(
    requests: Sequence[Mapping[str, Any]], name: str, pieces: Sequence[tuple[int, int]]
) -> list[Any]:
    """Slices [n, 1, ...] of the kept rows, as few as there can be."""
    return [_flat_rows(requests[at][name])[rows][:, None] for at, rows in _split_by_request(pieces)]


def _shared_parts(
    requests: Sequence[Mapping[str, Any]], name: str, pieces: Sequence[tuple[int, int]]
) -> list[Any]:
    """The same of what the rows of a frame share, [n, ...]. pieces: which frame's."""
    return [requests[at][name][frames] for at, frames in _split_by_request(pieces)]


def _flat_rows(array: Any) -> Any:
    """[b, k, ...] as [b * k, ...]."""
    return array.reshape((array.shape[0] * array.shape[1], *array.shape[2:]))


def _split_by_request(pieces: Sequence[tuple[int, int]]) -> list[tuple[int, slice]]:
    """Pieces of requests, in order, as slices of each: a copy on a device is one call a slice."""
    return [
        (at, rows)
        for at, members in groupby(pieces, key=itemgetter(0))
        for rows in even_slices([position for _, position in members])
    ]


def even_slices(positions: Sequence[int]) -> list[slice]:
    """Slices that together, in order, are `positions`, which never fall.

    The first slot of each of 16 frames is one slice of step K, not 16 rows.
    """
    slices: list[slice] = []
    first = 0
    while first < len(positions):
        last, step = first, 1
        if first + 1 < len(positions) and positions[first + 1] > positions[first]:
            step = positions[first + 1] - positions[first]
            while last + 1 < len(positions) and positions[last + 1] - positions[last] == step:
                last += 1
        slices.append(slice(positions[first], positions[last] + 1, step))
        first = last + 1
    return slices


def _join_masks(
    requests: Sequence[Mapping[str, Any]],
    rule: RowRule,
    pieces: Sequence[tuple[int, int]],
    rows: int,
    memory: Memory,
) -> Any:
    """The mask [rows, M, 15] of a run. pieces: rows of the requests' masks, b * M + k."""
    first_mask = requests[pieces[0][0]][rule.mask]
    joined = memory.zeros((rows, *first_mask.shape[1:]), first_mask)
    row = 0
    for at, kept in _split_by_request(pieces):
        faces = _flat_rows(requests[at][rule.mask])[kept]
        memory.put(joined[row : row + len(faces), 0], faces)
        row += len(faces)
    return joined


def _scatter_rows(
    requests: Sequence[Mapping[str, Any]],
    rule: RowRule,
    slots: Sequence[_Slots],
    chunks: Sequence[Mapping[str, Any]],
    memory: Memory,
    output_shape: Callable[[str, Mapping[str, Any]], tuple[int, ...]],
) -> list[dict[str, Any]]:
    split: list[dict[str, Any]] = []
    first = 0
    for arrays, request in zip(requests, slots, strict=True):
        last = first + len(request.kept)
        outputs = {}
        for name in rule.outputs:
            if chunks and name not in chunks[0]:
                continue
            whole = len(request.kept) == request.batch * request.count
            if whole and first // rule.max_rows == (last - 1) // rule.max_rows:
                start = first % rule.max_rows
                block = chunks[first // rule.max_rows][name][start : start + len(request.kept)]
                outputs[name] = block.reshape((request.batch, request.count, *block.shape[2:]))
                continue
            slot_shape = tuple(chunks[0][name].shape[2:]) if chunks else output_shape(name, arrays)
            like = chunks[0][name] if chunks else arrays[rule.inputs[0]]
            flat = memory.zeros((request.batch * request.count, *slot_shape), like)
            _put_made(flat, request.kept, chunks, name, first, rule.max_rows, memory)
            outputs[name] = flat.reshape((request.batch, request.count, *slot_shape))
        split.append(outputs)
        first = last
    return split


def _update_masks(
    scattered: Sequence[dict[str, Any]],
    name: str,
    requests: Sequence[Mapping[str, Any]],
    rule: RowRule,
    slots: Sequence[_Slots],
    chunks: Sequence[Mapping[str, Any]],
    memory: Memory,
) -> None:
    """Give every request its mask with the rows that were run as the network made them."""
    row = 0
    for at, (outputs, arrays) in enumerate(zip(scattered, requests, strict=True)):
        request = slots[at]
        mask = arrays[rule.mask]
        # A copy in any case: the request's own memory goes back when it is answered.
        updated = memory.zeros(tuple(mask.shape), mask)
        memory.put(updated, mask)
        places = [place for _, place in _in_masks(slots, [(at, flat) for flat in request.kept])]
        _put_made(_flat_rows(updated), places, chunks, name, row, rule.max_rows, memory)
        row += len(request.kept)
        outputs[name] = updated


def _put_made(
    target: Any,
    places: Sequence[int],
    chunks: Sequence[Mapping[str, Any]],
    name: str,
    first: int,
    most: int,
    memory: Memory,
) -> None:
    """Copy what was made of rows `first`, `first` + 1, ... of all runs to `places` of `target`.

    Args:
        most: rows of a run; each but the last has as many.
    """
    done = 0
    while done < len(places):
        run, start = divmod(first + done, most)
        part = places[done : done + most - start]
        made = chunks[run][name][start : start + len(part), 0]
        copied = 0
        for rows in even_slices(part):
            place = target[rows]
            memory.put(place, made[copied : copied + len(place)])
            copied += len(place)
        done += len(part)
