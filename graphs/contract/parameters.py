"""Keys of a config's parameters."""

from __future__ import annotations

from typing import Final

# What a repository was built for; clients read it of the ensembles. Extras are left out where there
# are none:
PARAMETER_CONTRACT_VERSION: Final = "contract_version"
PARAMETER_SWAPPER: Final = "swapper"
PARAMETER_SOURCE_KIND: Final = "source_kind"
PARAMETER_SOURCE_LENGTH: Final = "source_length"
PARAMETER_PROVENANCE: Final = "provenance"
PARAMETER_DETECTOR: Final = "detector"
PARAMETER_LANDMARKER: Final = "landmarker"
PARAMETER_RECOGNIZER: Final = "recognizer"
PARAMETER_PIXEL_BOOST: Final = "pixel_boost"
PARAMETER_GIVES_MASK: Final = "gives_mask"
PARAMETER_OCCLUDER: Final = "occluder"
PARAMETER_PARSER: Final = "parser"
PARAMETER_ENHANCER: Final = "enhancer"
PARAMETER_ENHANCER_WEIGHT: Final = "enhancer_weight"
# What the Python-based backends check of a request:
PARAMETER_MAX_FACES: Final = "max_faces"
PARAMETER_FRAME_FORMAT: Final = "frame_format"
PARAMETER_MIN_HEIGHT: Final = "min_height"
PARAMETER_MIN_WIDTH: Final = "min_width"
PARAMETER_MAX_HEIGHT: Final = "max_height"
PARAMETER_MAX_WIDTH: Final = "max_width"
PARAMETER_FACE_INPUTS: Final = "face_inputs"
PARAMETER_FINITE_INPUTS: Final = "finite_inputs"
PARAMETER_OPTION_RANGES: Final = "option_ranges"
# How they run the network:
PARAMETER_PASSTHROUGH: Final = "passthrough"
PARAMETER_ROW_INPUTS: Final = "row_inputs"
PARAMETER_ROW_MASK: Final = "row_mask"
PARAMETER_ROW_OUTPUTS: Final = "row_outputs"
PARAMETER_ROW_SHARED: Final = "row_shared"
PARAMETER_ROW_UPDATED: Final = "row_updated"
PARAMETER_MAX_ROWS: Final = "max_rows"
PARAMETER_SESSION_PER_SIZE: Final = "session_per_size"
PARAMETER_LOW_PRIORITY: Final = "low_priority"
PARAMETER_RECORD_RUNS: Final = "record_runs"
PARAMETER_ENGINE_FLAVOUR: Final = "engine_flavour"
PARAMETER_ONNX_UNTIL_PLAN: Final = "onnx_until_plan"

CHECKED_INPUT_LISTS: Final = (PARAMETER_FACE_INPUTS, PARAMETER_FINITE_INPUTS)
"""Parameters that name the inputs that they check."""
