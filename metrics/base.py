"""What a metric is: a pure function on embeddings, plus a description of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from idbench.types import Sample, Score

if TYPE_CHECKING:
    from idbench.metrics.faces.detect import Faces
    from idbench.metrics.faces.match import FrameMatch
    from idbench.metrics.protocols import Protocol


@dataclass(frozen=True)
class Embeddings:
    """Everything that was read from one video, its references and its prompt.

    Vectors have length 1 (cosine = dot product). K sampled frames, R face references.

    Attributes:
        sample: the sample; `sample.identities` names the R references, left to right.
        protocol: the protocol under which everything was computed.
        frames: the K frame indices, ascending, each once.
        repeats: K counts: how often the protocol's sampler took each frame (empty: once each);
            means over frames weigh with them.
        faces: K entries, the faces of each frame (boxes in pixels of the frame).
        matches: K entries, which face stands for which reference.
        face_vectors: network name -> K arrays (faces, d).
        reference_vectors: network name -> R arrays (d,), or None for a reference that has none.
        reference_reasons: R entries, why a reference has no face vector (None: it has one).
        frame_vectors: network name -> (K, d), whole frames. Of a protocol whose CLIPDist looks at
            faces there are none, and `face_vectors` has `clip`.
        image_vectors: network name -> R arrays (d,) or None, whole reference images or their
            faces, as the protocol's CLIPDist looks at.
        image_reasons: R entries, why a reference has no image vector.
        video_vector, text_vector: network name -> (d,).
        share_read: network name -> share of the prompt's tokens that its text tower reads, 0..1.
    """

    sample: Sample
    protocol: Protocol
    frames: tuple[int, ...]
    faces: tuple[Faces, ...] = ()
    matches: tuple[FrameMatch, ...] = ()
    face_vectors: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    reference_vectors: Mapping[str, Sequence[np.ndarray | None]] = field(default_factory=dict)
    reference_reasons: tuple[str | None, ...] = ()
    frame_vectors: Mapping[str, np.ndarray] = field(default_factory=dict)
    image_vectors: Mapping[str, Sequence[np.ndarray | None]] = field(default_factory=dict)
    image_reasons: tuple[str | None, ...] = ()
    video_vector: Mapping[str, np.ndarray] = field(default_factory=dict)
    text_vector: Mapping[str, np.ndarray] = field(default_factory=dict)
    share_read: Mapping[str, float] = field(default_factory=dict)
    repeats: tuple[int, ...] = ()

    @property
    def left_out(self) -> str | None:
        """Why the protocol gives this sample no identity scores (None: it does)."""
        if self.protocol.people == "one" and len(self.sample.identities) > 1:
            return f"{self.protocol.name} leaves out samples of several people"
        return None

    def sampled(self, rows: Sequence[Score]) -> list[Score]:
        """K rows, one a frame, as often as the sampler took each frame."""
        counts = self.repeats or (1,) * len(self.frames)
        return [row for row, n in zip(rows, counts, strict=True) for _ in range(n)]


@dataclass(frozen=True)
class Metric:
    """A metric: its description, and the function that turns embeddings into scores.

    Attributes:
        name: short lower-case name, as in the tables of scores.
        title: the name as papers print it.
        higher_is_better: whether a larger value is the better one.
        range: smallest and largest possible value.
        formula: one line.
        source: where the formula comes from.
        scores: pure function; per-frame rows, per-identity rows, and one row for the video.
        networks: what it reads: `arcface`, `curricularface`, `clip`, `viclip`. Only networks that
            some metric of a run reads are loaded. Faces are matched by `arcface`.
        weights: sha256 by file name of weight files that it reads besides those: they are kept
            with the scores, and scores of other files are not compared.
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


def cosine(vectors: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Cosine of each row of `vectors` (n, d) with `vector` (d,): float64 (n,), in -1..1.

    A row of zeros, or one with a NaN, gives NaN: not measurable, never 0. A row's value does not
    depend on the other rows.
    """
    a = np.asarray(vectors, np.float64)
    b = np.asarray(vector, np.float64)
    # One product a row: those of a whole matrix round otherwise for other numbers of rows.
    dot = np.matmul(a[..., None, :], b[:, None])[..., 0, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = dot / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b))
    return np.clip(value, -1.0, 1.0)


def make_score(
    sample: Sample, metric: str, identity: str | None, frame: int | None,
    value: float | None, reason: str | None = None,
) -> Score:
    """A `Score`; a value that is no finite number becomes unscored, with that reason."""
    if reason is not None:
        return Score(sample.id, metric, identity, frame, None, reason)
    if value is None or not isfinite(value):
        return Score(sample.id, metric, identity, frame, None, "the embedding is not finite")
    return Score(sample.id, metric, identity, frame, float(value))


def summarise(
    sample: Sample, metric: str, identity: str | None, rows: Sequence[Score], nothing: str
) -> Score:
    """The mean over the scored `rows` (one each frame, or one each identity).

    Unscored rows stay in the table and leave the mean; when none is scored the summary is
    unscored, with the reason all rows share or else `nothing`.
    """
    values = [row.value for row in rows if row.value is not None]
    if values:
        return make_score(sample, metric, identity, None, float(np.mean(values)))
    reasons = {row.reason for row in rows}
    reason = reasons.pop() if len(reasons) == 1 else nothing
    return make_score(sample, metric, identity, None, None, reason or nothing)


def over_identities(sample: Sample, metric: str, rows: Sequence[Score]) -> Score:
    """The video's value: the mean over its identities, unscored when one of them is unscored.

    A model that leaves one of two people out must not be scored by the other alone.
    """
    missing = [row for row in rows if row.value is None]
    if missing:
        return make_score(
            sample, metric, None, None, None, f"{missing[0].identity}: {missing[0].reason}"
        )
    return summarise(sample, metric, None, rows, "the sample has no face reference")


def described_faces(embeddings: Embeddings) -> list[dict[str, Any]]:
    """Each frame's faces and who they are, as JSON values; see `Scorer.faces`."""
    described: list[dict[str, Any]] = []
    if not embeddings.faces:
        return described
    names = embeddings.sample.identities
    for frame, faces, match in zip(
        embeddings.frames, embeddings.faces, embeddings.matches, strict=True
    ):
        assigned = zip(names, match.face_of_reference, strict=True)
        described.append(
            {
                "frame": frame,
                "boxes": faces.boxes.round(2).tolist(),
                "landmarks": faces.landmarks.round(2).tolist(),
                "assignment": {name: face for name, face in assigned if face is not None},
                "retried": faces.retried,
            }
        )
    return described
