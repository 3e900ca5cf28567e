"""The landmark graph on the sample photos: detections, views and what the graph says of them."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime

from demo.photos import read_photo
from fetching import weights
from graphs import face_detector, face_landmarker
from graphs.face_views import sample_views
from graphs.shapes import constant, to_float
from networks.detectors import DETECTORS
from networks.landmarkers import LANDMARKERS, Landmarker
from tests.graphs.evaluation import evaluate, open_session

PORTRAITS = ("newton", "gauss", "collins", "obama", "ardern")
PHOTOS = (*PORTRAITS, "solvay")
NETWORKS = ("face_landmarker_v2", "face_mesh_attention")


@functools.cache
def graph_of(name: str, passes: tuple[str, ...] = ()) -> onnx.ModelProto:
    """The served graph of landmarker `name`, with its own weights."""
    weights.fetch(name)
    return face_landmarker.build(LANDMARKERS[name], weights.load_network(name), passes=passes)


@functools.cache
def detect(detector: str, photo: str) -> np.ndarray:
    """`detections` [1, M, 15] of a photo."""
    weights.fetch(detector, accept_licence=True)
    network = weights.load_network(detector)
    session = open_session(face_detector.build("bgr", DETECTORS[detector], network))
    feeds = {"frame": read_photo(photo)[None], "options": np.zeros((1, 8), np.float32)}
    (found,) = session.run(["faces"], feeds)
    return np.asarray(found)


def look(photo: str, detections: np.ndarray, row: Landmarker) -> dict[str, np.ndarray]:
    """Feeds of the graph for all faces of a photo."""
    slots = max(1, int((detections[0, :, 4] > 0).sum()))

    def piece(op, frame, faces):
        options = constant(op, np.zeros((1, 8), np.float32))
        count = constant(op, np.array([slots]))
        return list(sample_views(op, to_float(op, frame), "bgr", options, faces, count, row))

    views, warps = evaluate(piece, read_photo(photo)[None], detections)
    return {"views": views, "view_warps": warps, "detections": detections}


@functools.cache
def session_of(name: str, passes: tuple[str, ...] = ()) -> onnxruntime.InferenceSession:
    """`graph_of`, ready to run."""
    return open_session(graph_of(name, passes))


def run(
    session: onnxruntime.InferenceSession, feeds: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    names = ["faces", "landmarks", "pose"]
    return dict(zip(names, session.run(names, feeds), strict=True))


def view_scale(feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Pixels of the view a pixel of the frame is long, [F]."""
    scale: np.ndarray = np.linalg.norm(feeds["view_warps"][0, :, 0, :2], axis=1)
    return scale


