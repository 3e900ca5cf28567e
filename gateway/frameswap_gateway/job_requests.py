"""What clients send and are sent, as JSON: the OpenAPI description is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "AssetView",
    "FacesRequest",
    "JobRequest",
    "JobView",
    "Name",
    "PreviewRequest",
    "ProblemView",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What a client calls an upload or a job; nothing on the disk is called so."""
FaceOrderName = Literal[
    "largest-first", "smallest-first", "left-to-right", "right-to-left", "top-to-bottom",
    "bottom-to-top", "best-first", "worst-first",
]  # fmt: skip
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PersonReference(_Strict):
    """Somebody whom `POST /v1/faces` has found."""

    faces: Name = Field(description="The job that looked for faces.")
    person: int = Field(ge=1, le=10_000, description="The person's number in its result.")


class Swap(_Strict):
    """One face that is put in, and whom it replaces."""

    source: list[Name] = Field(
        min_length=1, max_length=16, description="Uploaded photos of one person."
    )
    source_face: FaceOrderName | None = Field(
        default=None, description="Which face, where a photo has several; null wants exactly one."
    )
    replaces: PersonReference | None = Field(
        default=None, description="Whom; null is the next face as `options.face_order` has them."
    )


class Options(_Strict):
    """What of the swap is shown; what is left out is as the deployment does it."""

    face_order: FaceOrderName = "largest-first"
    score_threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    masks: list[Literal["box", "hull", "own", "none"]] = Field(default=[], max_length=4)
    keep: list[Literal["mouth", "lips", "eyes", "brows"]] = Field(default=[], max_length=4)
    areas: list[Literal["upper-face", "lower-face", "mouth"]] = Field(default=[], max_length=3)
    weight: Share | None = None
    pose_limit: Annotated[float, Field(gt=0, le=180, allow_inf_nan=False)] | None = None
    steady: bool = Field(
        default=True, description="Follow faces from frame to frame; false: each by itself."
    )


class Output(_Strict):
    """The file that comes out. Without `format`: `.jpg`, `.png` or `.mp4`, as fits the target."""

    format: Literal["jpg", "png", "webp", "mp4", "mov", "mkv", "webm", "gif"] | None = None
    codec: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,32}$")
    quality: Annotated[int, Field(ge=0, le=100)] | None = None
    preset: str | None = Field(default=None, pattern=r"^[a-z0-9]{1,32}$")
    audio: Literal["auto", "copy", "transcode", "drop"] = "auto"


class Part(_Strict):
    """The part of a video that is taken, seconds."""

    start_s: Seconds | None = None
    end_s: Seconds | None = None

    @model_validator(mode="after")
    def _has_a_length(self) -> Part:
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise ValueError("a part ends after its beginning")
        return self


class Webhook(_Strict):
    """Who is told when the job has ended: a signed POST of the job object."""

    url: str = Field(max_length=2000, pattern=r"^https?://[!-~]+$")


class SwapWishes(_Strict):
    target: Name = Field(description="An uploaded photo or video.")
    swaps: list[Swap] = Field(min_length=1, max_length=16)
    options: Options = Options()

    @model_validator(mode="after")
    def _persons_or_places(self) -> SwapWishes:
        if len({each.replaces is None for each in self.swaps}) > 1:
            raise ValueError("either every swap says whom it replaces, or none does")
        return self


class JobRequest(SwapWishes):
    """A photo or video to be swapped."""

    output: Output = Output()
    part: Part = Part()
    require_face: bool = Field(default=True, description="Fail where no face was found at all.")
    webhook: Webhook | None = None


class PreviewRequest(SwapWishes):
    """One frame, swapped as a job would."""

    at_s: Seconds = 0.0
    longest_px: Annotated[int, Field(ge=64, le=4096)] = 1280


class FacesRequest(_Strict):
    """Look for the persons of a file."""

    target: Name
    every_s: Annotated[float, Field(ge=0.04, le=60, allow_inf_nan=False)] = 0.2


class AssetView(BaseModel):
    """An upload. `state` is `uploading` until all of it has come."""

    id: str
    name: str
    state: Literal["uploading", "ready"]
    received: int
    size: int
    kind: Literal["", "photo", "video"]
    media_type: str
    width: int
    height: int
    frames: int
    rate: float
    duration_s: float
    created: str
    links: dict[str, str]


class ErrorView(BaseModel):
    code: str
    message: str


class OutputView(BaseModel):
    name: str
    media_type: str
    href: str


class JobView(BaseModel):
    """A job, from the first moment to the last."""

    id: str
    kind: Literal["photo", "video", "faces"]
    state: Literal["queued", "processing", "succeeded", "failed", "canceled"]
    revision: int
    canceling: bool
    progress: float
    frames: int
    total: int | None
    rate: float
    left_s: float | None
    error: ErrorView | None
    notes: list[str]
    outputs: list[OutputView]
    result: dict[str, Any]
    request: dict[str, Any]
    created: str
    started: str | None
    completed: str | None
    links: dict[str, str]


class JobList(BaseModel):
    jobs: list[JobView]
    next: str | None


class AssetList(BaseModel):
    assets: list[AssetView]


class ProblemView(BaseModel):
    """RFC 9457. `code` is one of a fixed list; `detail` is a sentence for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
