"""What a metric is: a function from the embeddings of a video to scores, and its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from idbench.metrics.metric_checks import check_metric, checked_weights
from idbench.types import Sample, Score, Video

if TYPE_CHECKING:
    from idbench.metrics.faces.detect import Faces
    from idbench.metrics.faces.match import FrameMatch
    from idbench.metrics.networks.weight_sources import Network, Source
    from idbench.metrics.protocols import Protocol


def _not_loaded(name: str) -> Any:
    raise ValueError(f"the metric runs the network {name!r}: name it in Metric.runs")


NEVER_FOUND = "the person was found in no frame"
WHOLE = "clip whole"
"""Name of CLIP's embedding of a whole reference under protocols whose CLIPDist is of faces."""


@dataclass(frozen=True)
class Embeddings:
    """Everything that was read from one video, its references and its prompt.

    Vectors have length 1 (cosine = dot product). K sampled frames, R face references.

    Attributes:
        sample: the sample; `sample.identities` names the R references, left to right.
        protocol: the protocol under which everything was computed.
        frames: the K frame indices, ascending, without repeats.
        repeats: K counts: how often the protocol's sampler took each frame (empty: once each).
            They are the weights of a mean over frames.
        faces: K entries, the faces of each frame (boxes in pixels of the frame).
        matches: K entries, which face is matched to which reference.
        face_vectors: network name -> K arrays (faces, d).
        reference_vectors: network name -> R arrays (d,), or None for a reference without one.
        photograph_vectors: R tuples, the ArcFace vectors (d,) of a person's photographs, or None.
        reference_reasons: R entries, why a reference has no face vector (None: it has one).
        frame_vectors: network name -> (K, d), whole frames. Empty under a protocol whose CLIPDist
            compares faces alone; then `face_vectors` has `clip`.
        image_vectors: network name -> R arrays (d,) or None: the whole reference images, or
            their faces under a protocol whose CLIPDist compares faces; then `WHOLE` -> the whole
            images, where the protocol compares those too.
        image_reasons: R entries, why a reference has no image vector.
        video_vector, text_vector: network name -> (d,).
        share_read: network name -> share of the prompt's tokens that its text tower reads, 0..1.
        video: all frames, uint8 RGB (t, h, w, 3), and their rate; None unless a metric of the
            run `needs_pixels`.
        sampled_frames: index -> the frame, uint8 RGB (h, w, 3), for each of `frames`; empty
            unless a metric of the run `needs_frames` or `needs_pixels`.
        network: name -> the loaded network, of those that the metric names in `Metric.runs`.
    """

    sample: Sample
    protocol: Protocol
    frames: tuple[int, ...]
    faces: tuple[Faces, ...] = ()
    matches: tuple[FrameMatch, ...] = ()
    face_vectors: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    reference_vectors: Mapping[str, Sequence[np.ndarray | None]] = field(default_factory=dict)
    photograph_vectors: tuple[tuple[np.ndarray | None, ...], ...] = ()
    reference_reasons: tuple[str | None, ...] = ()
    frame_vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    image_vectors: Mapping[str, Sequence[np.ndarray | None]] = field(default_factory=dict)
    image_reasons: tuple[str | None, ...] = ()
    video_vector: Mapping[str, np.ndarray] = field(default_factory=dict)
    text_vector: Mapping[str, np.ndarray] = field(default_factory=dict)
    share_read: Mapping[str, float] = field(default_factory=dict)
    repeats: tuple[int, ...] = ()
    video: Video | None = None
    sampled_frames: Mapping[int, np.ndarray] = field(default_factory=dict)
    network: Callable[[str], Any] = _not_loaded

    @property
    def left_out(self) -> str | None:
        """Why the protocol gives this sample no identity scores (None: it does)."""
        if self.protocol.people == "one" and len(self.sample.identities) > 1:
            return f"{self.protocol.name} leaves out samples of several people"
        return None

    @property
    def pixels(self) -> np.ndarray:
        """All frames of the video, uint8 RGB (t, h, w, 3).

        Raises:
            ValueError: no metric of the run has `needs_pixels`.
        """
        if self.video is None:
            raise ValueError("the frames were not decoded: set Metric.needs_pixels")
        return self.video.frames

    def sampled(self, rows: Sequence[Score]) -> list[Score]:
        """K rows, one a frame, as often as the sampler took each frame."""
        counts = self.repeats or (1,) * len(self.frames)
        return [row for row, n in zip(rows, counts, strict=True) for _ in range(n)]


def every_sample(sample: Sample) -> bool:
    """True: the metric applies to every sample."""
    return True


def several_people(sample: Sample) -> bool:
    """Whether a sample has at least two face references."""
    return len(sample.identities) > 1


@dataclass(frozen=True)
class Metric:
    """Everything about a metric: what it is, when it is computed, and how it is shown.

    Attributes:
        name, title: as in tables of scores; as papers print it, and the heading of its column.
        range: smallest and largest possible value.
        formula, source: in one line; where it comes from.
        scores: a pure function: rows of frames, of identities, and one of the whole video.
        networks: whose embeddings it reads: `arcface`, `curricularface`, `clip`, `viclip`. Only
            networks that some metric of a run needs are loaded. Faces are matched by `arcface`.
        weights: sha256 by file name of further weight files that it reads; scores made with other
            files are not compared.
        runs: networks that it runs itself, through `Embeddings.network`: one of those named above,
            or a `Network` of its own. `--weights` replaces the weights of both.
        needs_pixels, needs_frames: whether it reads `Embeddings.video`, or only `sampled_frames`.
        matches_itself: whether it finds out itself which face is whose, so that no embedding of
            `networks` enters its values; the report still draws who ArcFace says it is.
        revision: change it when the metric's values change: older scores are computed again.
        computed: `always`; `named`: only when named by `--metric`; or `listed`: only under
            protocols that list it.
        applies_to: whether a sample has this metric at all; if not, it gets no rows and does not
            count in its coverage.
        shown: `headline`, the paper's tables; `table`, a column in every table; or `long`, only in
            csv and json.
        note: printed under every table that has it.
        about: `identity` (reports draw it along the frames), `person` (reports list its value of
            each person), or `video`.
    """

    name: str
    title: str
    higher_is_better: bool
    range: tuple[float, float]
    formula: str
    source: str
    scores: Callable[[Embeddings], list[Score]]
    networks: tuple[str, ...] = ("arcface",)
    weights: Callable[[], Mapping[str, str]] = dict
    runs: tuple[str | Network, ...] = ()
    needs_pixels: bool = False
    needs_frames: bool = False
    matches_itself: bool = False
    revision: str = "1"
    computed: Literal["always", "named", "listed"] = "always"
    applies_to: Callable[[Sample], bool] = every_sample
    shown: Literal["headline", "table", "long"] = "table"
    about: Literal["identity", "person", "video"] = "video"
    note: str = ""

    def __post_init__(self) -> None:
        check_metric(self)

    def rows(self, embeddings: Embeddings) -> list[Score]:
        """The scores of one video; none where the metric does not apply to its sample."""
        return self.scores(embeddings) if self.applies_to(embeddings.sample) else []

    def unscored(self, sample: Sample, reason: str) -> list[Score]:
        """The row of a video that could not be scored; none where the metric does not apply."""
        if not self.applies_to(sample):
            return []
        return [Score(sample.id, self.name, None, None, None, reason)]

    def weight_hashes(self, sources: Mapping[str, Source]) -> dict[str, str]:
        """sha256 of the weights that it reads besides the embeddings, by file or network name."""
        from idbench.metrics.networks.weight_sources import find

        found = checked_weights(self.weights())
        for network in self.runs:
            source = find(sources, network)
            found |= source.hashes() if source.embedded else {source.name: source.identity()}
        return found


def cosine(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Cosine of each row of `vectors` (n, d) with `vector` (d,): float64 (n,), in -1..1, whatever
    the other rows are. A row of zeros, or with a NaN, gives NaN: not measurable, never 0."""
    a = np.asarray(vectors, np.float64)
    b = np.asarray(vector, np.float64)
    # One product a row: those of a whole matrix round otherwise for other numbers of rows.
    dot = np.matmul(a[..., None, :], b[:, None])[..., 0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = dot / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b))
    return np.clip(value, -1.0, 1.0)


def make_score(
    sample: Sample, metric: str, identity: str | None, frame: int | None,
    value: float | str | None, reason: str | None = None,
) -> Score:
    """A `Score` of a value, or of the reason why there is none, which may stand in its place. A
    value that is no finite number becomes unscored."""
    if isinstance(value, str):
        value, reason = None, value
    if reason is None and value is not None and isfinite(value):
        return Score(sample.id, metric, identity, frame, float(value))
    return Score(sample.id, metric, identity, frame, None, reason or "the embedding is not finite")


def summarise(
    sample: Sample, metric: str, identity: str | None, rows: Sequence[Score], nothing: str,
    together: Callable[[list[float]], Any] = np.mean,
) -> Score:
    """The mean (or `together`) of the scored `rows` (one per frame, or per identity). Without a
    scored row it is unscored, with the reason that all rows share, or else `nothing`."""
    values = [row.value for row in rows if row.value is not None]
    if values:
        return make_score(sample, metric, identity, None, float(together(values)))
    reasons = {row.reason for row in rows}
    reason = reasons.pop() if len(reasons) == 1 else nothing
    return make_score(sample, metric, identity, None, reason or nothing)


def over_identities(
    sample: Sample, metric: str, rows: Sequence[Score],
    together: Callable[[list[float]], Any] = np.mean,
) -> Score:
    """The video's value: the mean (or `together`) of its identities, unscored if one of them is, so
    that a model that leaves out one of two people is not scored by the other alone."""
    for row in rows:
        if row.value is None:
            return make_score(sample, metric, None, None, f"{row.identity}: {row.reason}")
    return summarise(sample, metric, None, rows, "the sample has no face reference", together)


def each_identity(
    embeddings: Embeddings, metric: str, of_person: Callable[[int], float | str],
    together: Callable[[list[float]], Any] = np.mean,
) -> list[Score]:
    """A row per identity, with the value of reference `r` or the reason why there is none, and one
    of the video; see `over_identities`."""
    sample, left_out = embeddings.sample, embeddings.left_out
    rows = [
        make_score(sample, metric, name, None, reason or left_out or of_person(r))
        for r, (name, reason) in enumerate(
            zip(sample.identities, embeddings.reference_reasons, strict=True))
    ]
    return [*rows, over_identities(sample, metric, rows, together)]


def each_frame(
    embeddings: Embeddings, metric: str, of_frame: Callable[[int, int], float | str | None],
    nothing: str = NEVER_FOUND, repeated: bool = True,
) -> list[Score]:
    """Rows of frames, of identities, and one of the video.

    Args:
        of_frame: the value of sampled frame k for reference r, or why there is none.
        nothing: why an identity has no value, if its frames have different reasons.
        repeated: whether a frame that the sampler took twice counts twice in the mean.
    """
    sample, rows, means = embeddings.sample, [], []
    for r, name in enumerate(sample.identities):
        frame_rows = [
            make_score(sample, metric, name, frame, of_frame(k, r))
            for k, frame in enumerate(embeddings.frames)
        ]
        taken = embeddings.sampled(frame_rows) if repeated else frame_rows
        means.append(summarise(sample, metric, name, taken, nothing))
        rows += frame_rows
    return [*rows, *means, over_identities(sample, metric, means)]
