"""Exact greedy suppression and the order of faces, against boxes suppressed one by one."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.authoring import GraphAuthor
from graphs.contract import FaceOrder
from graphs.suppression import order_faces, suppress
from tests.graphs.evaluation import evaluate, open_session
from tests.reference import detection as reference

COUNT = 24


@pytest.fixture(scope="module", params=["unrolled", "loop"])
def suppress_few(request):
    """Suppression over 24 candidates, one compiled graph for many cases."""
    return make_suppression(COUNT, loop=request.param == "loop")


def make_suppression(count, *, loop=False):
    author = GraphAuthor("suppression")
    scores = author.builder.input("scores", ir.DataType.FLOAT, ["B", count])
    boxes = author.builder.input("boxes", ir.DataType.FLOAT, ["B", 4, count])
    limits = [author.builder.input(f"limit_{i}", ir.DataType.FLOAT, ["B", 1]) for i in range(2)]
    kept = suppress(
        author.op,
        scores,
        boxes,
        anchor_count=count,
        score_threshold=limits[0],
        nms_threshold=limits[1],
        loop=loop,
    )
    for name in ("index", "scores", "found"):
        author.builder.add_output(getattr(kept, name), f"kept_{name}")
    session = open_session(author.finish())

    def run(scores, boxes, score_threshold=0.5, nms_threshold=0.4):
        """Indices kept, for scores (n,) and boxes (n, 4) with n <= count."""
        padded_scores = np.zeros((1, count), dtype=np.float32)
        padded_boxes = np.zeros((1, 4, count), dtype=np.float32)
        padded_scores[0, : len(scores)] = scores
        padded_boxes[0, :, : len(boxes)] = np.asarray(boxes, dtype=np.float32).T
        feeds = {"scores": padded_scores, "boxes": padded_boxes}
        for i, limit in enumerate((score_threshold, nms_threshold)):
            feeds[f"limit_{i}"] = np.full((1, 1), limit, dtype=np.float32)
        index, top, found = session.run(None, feeds)
        assert not found[0, found[0].argmin() :].any() or found.all()
        chosen = index[0][found[0]].tolist()
        np.testing.assert_array_equal(top[0][found[0]], padded_scores[0, chosen])
        return chosen

    return run


def squares(*lefts, side=20.0):
    """Boxes in a row: x1 as given, all of one size."""
    return np.array([[left, 0.0, left + side, side] for left in lefts])


def test_a_suppressed_box_suppresses_nothing_in_a_chain(suppress_few):
    # each overlaps its neighbours by more than 0.4 and the next but one by less
    boxes = squares(*np.arange(10) * 7.0)
    scores = np.linspace(0.95, 0.6, 10)
    assert reference.overlap(boxes[0], boxes[1]) > 0.4 > reference.overlap(boxes[0], boxes[2])
    assert suppress_few(scores, boxes) == [0, 2, 4, 6, 8]


def test_a_chain_whose_best_is_in_the_middle_is_cut_from_there(suppress_few):
    boxes = squares(*np.arange(9) * 7.0)
    scores = [0.6, 0.7, 0.8, 0.9, 0.99, 0.91, 0.81, 0.71, 0.61]
    assert suppress_few(scores, boxes) == [4, 6, 2, 8, 0]


def test_of_equal_scores_the_lowest_index_is_taken(suppress_few):
    boxes = squares(0, 1, 2, 100, 101, 102)
    assert suppress_few([0.8] * 6, boxes) == [0, 3]
    assert suppress_few([0.8] * 24, np.repeat(squares(5), 24, axis=0)) == [0]


def test_the_first_sixteen_are_kept(suppress_few):
    scores = np.linspace(0.6, 0.99, 24)
    assert suppress_few(scores, squares(*np.arange(24) * 50.0)) == list(range(23, 7, -1))


def test_nothing_is_kept_when_nothing_reaches_the_threshold(suppress_few):
    assert suppress_few([0.499999, 0.1, 0.0, -1.0], squares(0, 50, 100, 150)) == []
    assert suppress_few([0.5], squares(0)) == [0]


def test_an_overlap_equal_to_the_threshold_is_not_suppressed(suppress_few):
    # inclusive widths 10 and 10, 5 shared: 50 / 150 = 1/3 exactly in both directions
    boxes = np.array([[0, 0, 9, 9], [5, 0, 14, 9]], dtype=float)
    third = float(np.float32(50.0) / np.float32(150.0))
    assert suppress_few([0.9, 0.8], boxes, nms_threshold=third) == [0, 1]
    below = float(np.nextafter(np.float32(third), np.float32(0.0)))
    assert suppress_few([0.9, 0.8], boxes, nms_threshold=below) == [0]


def test_identical_boxes_are_both_kept_when_everything_may_overlap(suppress_few):
    assert suppress_few([0.9, 0.9, 0.7], squares(3, 3, 3), nms_threshold=1.0) == [0, 1, 2]


def test_boxes_turned_inside_out_neither_hang_nor_repeat(suppress_few):
    boxes = np.array([[10, 10, 5, 5], [10, 10, 9, 9], [0, 0, 40, 40]], dtype=float)
    assert sorted(suppress_few([0.9, 0.8, 0.7], boxes)) == [0, 1, 2]


def test_scores_that_are_not_numbers_are_never_candidates(suppress_few):
    assert suppress_few([np.nan, 0.7, np.nan], squares(0, 50, 100)) == [1]


def test_a_box_that_is_not_a_number_spoils_no_other(suppress_few):
    boxes = squares(0, 50, 51)
    boxes[0] = np.nan
    assert suppress_few([0.9, 0.8, 0.7], boxes) == [0, 1]


grid_box = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(4, 30), st.integers(4, 30))


@given(
    candidates=st.lists(
        # few distinct scores, so that ties are common
        st.tuples(st.sampled_from([0.3, 0.5, 0.625, 0.75, 0.875]), grid_box),
        max_size=COUNT,
    ),
    # in single precision 0.1 and 0.4 are rounded up and 0.75 is exact: an overlap that equals one
    # of them is not above it, in either precision
    nms_threshold=st.sampled_from([0.1, 0.4, 0.75]),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_what_is_kept_is_what_suppressing_one_by_one_keeps(suppress_few, candidates, nms_threshold):
    scores = [score for score, _ in candidates]
    boxes = np.array([[x, y, x + w, y + h] for _, (x, y, w, h) in candidates], dtype=float)
    limit = float(np.float32(nms_threshold))
    kept = suppress_few(scores, boxes, nms_threshold=nms_threshold)
    assert kept == reference.suppress(scores, boxes, 0.5, limit)


@pytest.mark.parametrize("loop", [False, True])
def test_every_anchor_of_the_largest_detector_takes_part(loop):
    count = 16800
    random = np.random.default_rng(5)
    scores = random.random(count).astype(np.float32)
    corners = random.uniform(0, 600, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 200, (count, 2))], axis=1)
    boxes = boxes.astype(np.float32)
    kept = make_suppression(count, loop=loop)(scores, boxes, 0.9, 0.3)
    assert len(kept) == 16
    assert kept == reference.suppress(scores, boxes.astype(float), 0.9, 0.3)


def faces(*rows):
    """(1, 16, 15) with x1 y1 x2 y2 score given and a mark in the last column."""
    table = np.zeros((1, 16, 15), dtype=np.float32)
    for index, row in enumerate(rows):
        table[0, index, :5] = row
        table[0, index, 14] = index + 1
    return table


def sort(table, order):
    codes = np.full((len(table), 1), order, dtype=np.float32)
    return evaluate(order_faces, table, codes)[0]


@pytest.mark.parametrize("order", FaceOrder)
def test_faces_come_in_the_order_asked_for_and_empty_rows_last(order):
    random = np.random.default_rng(int(order))
    rows = np.zeros((11, 15))
    rows[:, :2] = random.integers(0, 6, (11, 2))
    rows[:, 2:4] = rows[:, :2] + random.integers(3, 6, (11, 2))
    rows[:, 4] = np.linspace(0.99, 0.6, 11)
    rows[:, 5:] = random.random((11, 10))
    table = np.zeros((1, 16, 15), dtype=np.float32)
    table[0, :11] = rows
    expected = reference.sort_faces(table[0, :11], int(order))
    # small whole numbers: many keys are equal, and equal keys keep the given order
    result = sort(table, order)
    np.testing.assert_array_equal(result[0, :11], expected)
    assert not result[0, 11:].any()


def test_a_face_at_negative_coordinates_still_goes_before_empty_rows():
    table = faces([-50, -40, -10, -5, 0.9], [10, 10, 5, 5, 0.8])
    for order in FaceOrder:
        assert sorted(sort(table, order)[0, :2, 14]) == [1, 2]


def test_rows_of_a_batch_are_sorted_each_in_its_own_order():
    one = faces([0, 0, 10, 10, 0.9], [50, 5, 90, 45, 0.8], [20, 70, 25, 75, 0.7])
    codes = np.array([[code] for code in range(8)], dtype=np.float32)
    result = evaluate(order_faces, np.repeat(one, 8, axis=0), codes)[0]
    marks = result[:, :3, 14].astype(int).tolist()
    assert marks == [
        [2, 1, 3],
        [3, 1, 2],
        [1, 3, 2],
        [2, 3, 1],
        [1, 2, 3],
        [3, 2, 1],
        [1, 2, 3],
        [3, 2, 1],
    ]


def test_sixteen_faces_fill_every_row():
    rows = [[i * 3.0, 0, i * 3.0 + 2 + i, 9, 0.9 - i * 0.01] for i in range(16)]
    result = sort(faces(*rows), FaceOrder.LARGEST_FIRST)
    assert result[0, :, 14].tolist() == list(range(16, 0, -1))
