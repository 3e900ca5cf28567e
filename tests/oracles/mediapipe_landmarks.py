"""MediaPipe's own landmarks for views that we choose; run by an interpreter that has mediapipe.

    python mediapipe_landmarks.py REQUEST.npz ANSWER.npz

The request holds, for each picture NAME, `NAME/image` (H, W, 3) uint8 RGB and `NAME/views` (n, 4):
centre x, y, side (pixels) and rotation (radians, clockwise as seen) of each view, and
`model/face_landmarker_v2`, the bytes of the file in the .task. The answer holds, for each picture
and each network N, `NAME/N/points` (n, 478, 3), x and y in units of the picture's width and height,
z in units of its width, and `NAME/N/found` (n,) bool. MediaPipe's graphs are given the views as
rectangles, so nothing of its detector stands between them and ours. `NAME/N/views` (n, V, V, 3)
uint8 RGB is what its ImageToTensorCalculator makes of them, by the same OpenCV calls.

This file imports nothing of the project: the two environments have nothing in common.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import cv2
import mediapipe
import numpy as np
from google.protobuf import text_format
from mediapipe.framework import calculator_pb2
from mediapipe.framework.formats import landmark_pb2, rect_pb2
from mediapipe.python import packet_creator, packet_getter
from mediapipe.python._framework_bindings import (
    calculator_graph,
    image_frame,
    resource_util,
)
from mediapipe.python._framework_bindings import image as image_module

ATTENTION_GRAPH = """
input_stream: "image"
input_stream: "view"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:view"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""

TASK_GRAPH = """
input_stream: "image"
input_stream: "view"
output_stream: "landmarks"
output_stream: "score"
node {
  calculator: "mediapipe.tasks.vision.face_landmarker.SingleFaceLandmarksDetectorGraph"
  input_stream: "IMAGE:image"
  input_stream: "NORM_RECT:view"
  output_stream: "NORM_LANDMARKS:landmarks"
  output_stream: "PRESENCE_SCORE:score"
  options {
    [mediapipe.tasks.vision.face_landmarker.proto.FaceLandmarksDetectorGraphOptions.ext] {
      base_options { model_asset { file_name: "%s" } }
      min_detection_confidence: 0.5
    }
  }
}
"""


VIEW_SIZES = {"face_landmarker_v2": 256, "face_mesh_attention": 192}


def render(pixels: np.ndarray, view: np.ndarray, size: int) -> np.ndarray:
    """As image_to_tensor_converter_opencv.cc renders a view; a rectangle's numbers are float32."""
    height, width = pixels.shape[:2]
    rect, one = rectangle(view, width, height), np.float32(1)
    centre = (float(one * rect.x_center * width), float(one * rect.y_center * height))
    sides = (float(one * rect.width * width), float(one * rect.height * height))
    degrees = float(one * rect.rotation * np.float32(180) / np.float32(np.pi))
    corners = cv2.boxPoints((centre, sides, degrees)).astype(np.float32)
    wanted = np.float32([[0, size], [0, 0], [size, 0], [size, size]])
    matrix = cv2.getPerspectiveTransform(corners, wanted)
    return cv2.warpPerspective(
        pixels, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def rectangle(view: np.ndarray, width: int, height: int) -> rect_pb2.NormalizedRect:
    x, y, side, rotation = (float(value) for value in view)
    return rect_pb2.NormalizedRect(
        x_center=x / width,
        y_center=y / height,
        width=side / width,
        height=side / height,
        rotation=rotation,
    )


def run(config: str, images: list, views: np.ndarray, size: tuple[int, int], side: dict) -> list:
    """Landmarks (478, 3) or None for each view."""
    parsed = text_format.Parse(config, calculator_pb2.CalculatorGraphConfig())
    answers: dict[int, np.ndarray] = {}
    graph = calculator_graph.CalculatorGraph(graph_config=parsed)

    def keep(name: str, packet: object) -> None:
        found = packet_getter.get_proto(packet)
        assert isinstance(found, landmark_pb2.NormalizedLandmarkList)
        answers[packet.timestamp.value] = np.array([(p.x, p.y, p.z) for p in found.landmark])

    graph.observe_output_stream("landmarks", keep)
    graph.start_run(side)
    for index, (image, view) in enumerate(zip(images, views, strict=True)):
        graph.add_packet_to_input_stream("image", image.at(index))
        packet = packet_creator.create_proto(rectangle(view, *size))
        graph.add_packet_to_input_stream("view", packet.at(index))
    graph.close_all_packet_sources()
    graph.wait_until_done()
    return [answers.get(index) for index in range(len(views))]


def main() -> int:
    """Answer one request."""
    request, answer = np.load(sys.argv[1]), {}
    package = Path(mediapipe.__file__).parent
    resource_util.set_resource_dir(str(package.parent))
    from mediapipe.tasks.cc.vision.face_landmarker.proto import (  # noqa: F401 (registers it)
        face_landmarks_detector_graph_options_pb2,
    )

    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "face_landmarks_detector.tflite"
        model.write_bytes(request["model/face_landmarker_v2"].tobytes())
        for key in [name for name in request.files if name.endswith("/image")]:
            name, pixels = key.removesuffix("/image"), np.ascontiguousarray(request[key])
            views, size = request[f"{name}/views"], (pixels.shape[1], pixels.shape[0])
            frame = packet_creator.create_image_frame(
                pixels, image_format=image_frame.ImageFormat.SRGB, copy=True
            )
            picture = packet_creator.create_image(
                image_module.Image(image_format=image_frame.ImageFormat.SRGB, data=pixels)
            )
            attention = {"with_attention": packet_creator.create_bool(True)}
            found = {
                "face_mesh_attention": run(
                    ATTENTION_GRAPH, [frame] * len(views), views, size, attention
                ),
                "face_landmarker_v2": run(
                    TASK_GRAPH % model, [picture] * len(views), views, size, {}
                ),
            }
            for network, points in found.items():
                missing = np.full((478, 3), np.nan)
                answer[f"{name}/{network}/points"] = np.array(
                    [missing if p is None else p for p in points]
                )
                answer[f"{name}/{network}/views"] = np.array(
                    [render(pixels, view, VIEW_SIZES[network]) for view in views]
                )
                answer[f"{name}/{network}/found"] = np.array([p is not None for p in points])
    np.savez(sys.argv[2], **answer)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    sys.exit(main())
