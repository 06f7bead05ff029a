"""Clips of avatars with ground truth: the scene of `scene.py` as frames.

Rays are marched through the signed distance functions of `shape.py` from a pinhole camera ten
head units before the faces; pixels at edges are sampled four times. One frame of 64x96 takes
about 10 to 20 ms on one core. The same scene gives the same bytes on one machine; across
machines the last bit of a colour may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from . import march
from .backgrounds import background_image
from .identity import Identity, sample_identity
from .movement import expression_values, face_record, head_pose
from .scene import Garment, Person, Scene

CAMERA_DISTANCE = 10.0
PIVOT = np.array([0.0, -0.80, -0.20])
"""Where the head turns on the neck, in head units."""

_LIGHTS = {  # direction to the key light, key RGB, ambient RGB
    "soft": ((-0.30, 0.55, 0.80), (0.72, 0.71, 0.70), (0.42, 0.42, 0.44)),
    "left": ((-0.70, 0.40, 0.65), (0.78, 0.77, 0.75), (0.36, 0.36, 0.38)),
    "right": ((0.70, 0.40, 0.65), (0.78, 0.77, 0.75), (0.36, 0.36, 0.38)),
    "warm": ((0.35, 0.45, 0.80), (0.88, 0.72, 0.52), (0.40, 0.35, 0.31)),
}
_compiled: set[str] = set()
"""Folders of compiled code that this process has read or written."""


@dataclass(frozen=True)
class Clip:
    """Frames of a scene and the truth about each. P people from left to right.

    Attributes:
        frames: uint8 (T, H, W, 3) RGB.
        boxes: float32 (T, P, 4), the face from hairline to chin: x0, y0, x1, y1 in pixels.
        landmarks: float32 (T, P, 5, 2): the viewer's left eye, right eye, nose tip, left and
            right corner of the mouth, in pixels.
        parts: uint8 (T, H, W), indices into `march.PARTS`.
        person_mask: uint8 (T, H, W): 0, or 1 + index of the person.
        yaw, pitch, roll: float32 (T, P) radians; yaw + is to the viewer's right.
    """

    scene: Scene
    fps: float
    frames: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    parts: np.ndarray
    person_mask: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray

    @property
    def face_mask(self) -> np.ndarray:
        """uint8 (T, H, W): 1 + person where head, hair or neck is seen; what a portrait keeps."""
        kept = (self.parts > 0) & (self.parts != march.PARTS.index("garment"))
        return self.person_mask * kept

    @property
    def garment_mask(self) -> np.ndarray:
        """uint8 (T, H, W): 1 + person where the garment is seen."""
        return self.person_mask * (self.parts == march.PARTS.index("garment"))


def render_frame(*arguments: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `march.render_frame`, which one process compiles while others wait for what it leaves on
    the disk: it takes ten seconds of a core, which processes that begin together, such as workers
    that render the same data, would each spend."""
    folder = march.render_frame.stats.cache_path
    if folder is None or folder in _compiled:
        return march.render_frame(*arguments)
    with FileLock(Path(folder) / "render_frame.lock"):
        made = march.render_frame(*arguments)
    _compiled.add(folder)
    return made


def to_pixels(colour: np.ndarray) -> np.ndarray:
    """Colours of 0 to 1 as uint8."""
    return np.clip(colour * 255.0 + 0.5, 0, 255).astype(np.uint8)


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """3x3 matrix from the head's frame to the torso's."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def render_clip(
    scene: Scene, frames: int = 9, height: int = 64, width: int = 96, fps: float = 8.0,
    looks: Sequence[Identity] | None = None, face_size: float | None = None,
) -> Clip:
    """Render a scene. Motions last the clip's whole length, whatever `frames` is.

    Args:
        looks: shows each person as another identity than that of their seed.
        face_size: of the resting faces in pixels, as `framing` measures it. Each face is then in
            the middle of the frame, or near the middle of its part of it. None: sizes and places
            vary with the scene's seed.
    """
    identities = looks or [sample_identity(person.identity) for person in scene.people]
    rng = np.random.default_rng([104729, scene.seed])
    count = len(scene.people)
    scale = {1: 20.0, 2: 18.4, 3: 13.8}[count] * min(height / 64, width / 96)
    scale *= rng.uniform(0.95, 1.05)
    across = (np.arange(count) + 0.5) * (width / count) - width / 2
    jitter = rng.uniform(-1, 1, (count, 2))
    # The outer slots move a little inwards: shoulders may overlap, faces do not.
    spread, sway = (1.0, 0.25) if count == 1 else (0.94, 0.06)
    centres = np.stack([across * spread / scale + jitter[:, 0] * sway, 0.06 * jitter[:, 1]], 1)
    eye_line = {1: 0.40, 2: 0.41, 3: 0.44}[count] * height  # row of the eyes in the image
    if face_size is not None:
        sizes, middles = np.transpose([framing(identity) for identity in identities])
        scale = face_size / sizes.mean()
        eye_line = height / 2 - scale * middles.mean()
        centres = np.stack([across / scale, middles - middles.mean()], 1)
    poses_rng = rng.uniform(0, 1, (count, 4))
    phases, strengths = rng.uniform(0, 1, count), rng.uniform(0.85, 1.1, count)
    gazes = rng.normal(0, 0.008, (count, 2))
    direction, key, ambient = _LIGHTS[scene.light]
    light = np.array(direction) + rng.uniform(-0.08, 0.08, 3)
    light /= np.linalg.norm(light)
    level = rng.uniform(0.94, 1.06)
    backdrop = background_image(scene.background, scene.seed, 2 * height, 2 * width)

    shape = (frames, height, width)
    out = np.empty((*shape, 3), np.uint8)
    parts, owners = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    boxes = np.empty((frames, count, 4), np.float32)
    landmarks = np.empty((frames, count, 5, 2), np.float32)
    angles = np.empty((frames, count, 3), np.float32)
    for t in range(frames):
        time = t / max(frames - 1, 1)
        records, turns = [], np.empty((count, 3, 3))
        for i, person in enumerate(scene.people):
            controls = expression_values(person.expression, time, phases[i], strengths[i])
            records.append(face_record(identities[i], person.garment, controls, tuple(gazes[i])))
            pose = head_pose(person.motion, time, poses_rng[i])
            angles[t, i], turns[i] = pose, rotation(*pose)
        people = np.concatenate(records)
        camera = np.array([scale * CAMERA_DISTANCE, width / 2, eye_line, CAMERA_DISTANCE])
        colour, parts[t], owners[t] = render_frame(
            people, turns, centres, PIVOT, camera, light, np.array(key) * level,
            np.array(ambient) * level, backdrop, height, width,
        )
        out[t] = to_pixels(colour)
        for i in range(count):
            boxes[t, i], landmarks[t, i] = _truth(people[i], turns[i], centres[i], camera)
    return Clip(scene, fps, out, boxes, landmarks, parts, owners, *np.moveaxis(angles, -1, 0))


def framing(identity: Identity) -> tuple[float, float]:
    """Size of a resting face, and how far its middle is below the eye line, in head units.

    The size is the root mean square of the distance between the eyes and of that from the eyes to
    the mouth; the middle lies 30 % of the way from the eyes to the mouth.
    """
    face = face_record(identity, Garment(), expression_values("neutral", 0.0, 0.0, 1.0))
    camera = np.array([CAMERA_DISTANCE, 0.0, 0.0, CAMERA_DISTANCE])
    _, marks = _truth(face[0], np.eye(3), np.zeros(2), camera)
    eyes, mouth, across = marks[:2].mean(0), marks[3:].mean(0), marks[1] - marks[0]
    size = np.sqrt((across @ across + (mouth - eyes) @ (mouth - eyes)) / 2)
    return float(size), float((eyes + 0.30 * (mouth - eyes))[1])


def _truth(
    p: np.void, turn: np.ndarray, centre: np.ndarray, camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Box (4,) and landmarks (5, 2) in pixels of one face."""
    tip_z = p["nose_z1"] + p["nose_out"]
    # The corner as one sees it lies just inside the tip of the lips.
    corner_x, corner_y = 0.93 * p["mouth_w"], p["mouth_y"] + 0.8 * p["smile"]
    points = np.array([
        [-p["eye_x"], p["eye_y"], p["eye_z"]], [p["eye_x"], p["eye_y"], p["eye_z"]],
        [0.0, p["eye_y"] - p["nose_len"] + p["nose_up"], tip_z],
        [-corner_x, corner_y, p["corner_z"] + 0.02], [corner_x, corner_y, p["corner_z"] + 0.02],
    ])
    bottom = -0.96 * p["fl"] - p["chin_y"] - p["jaw_open"] - 0.14
    rim = np.array([
        [-0.66 * p["hw"], p["eye_y"], 0.25], [0.66 * p["hw"], p["eye_y"], 0.25],
        [-0.52 * p["hw"], p["mouth_y"], 0.35], [0.52 * p["hw"], p["mouth_y"], 0.35],
        [0.0, 0.62, 0.62], [0.0, bottom, 0.5], [0.0, p["eye_y"] - p["nose_len"], tip_z],
    ])
    box = _project(rim, turn, centre, camera)
    marks = _project(points, turn, centre, camera)
    return np.concatenate([box.min(0), box.max(0)]).astype(np.float32), marks.astype(np.float32)


def _project(
    points: np.ndarray, turn: np.ndarray, centre: np.ndarray, camera: np.ndarray
) -> np.ndarray:
    """(N, 3) points of a head to (N, 2) pixels."""
    focal, cx, cy, distance = camera
    world = (points - PIVOT) @ turn.T + PIVOT
    depth = distance - world[:, 2]
    x = cx + focal * (world[:, 0] + centre[0]) / depth
    y = cy - focal * (world[:, 1] + centre[1]) / depth
    return np.stack([x, y], 1)


def render_portrait(identity: int, seed: int = 0, size: int = 192) -> Clip:
    """A reference photograph of one frame, size x size: near frontal, plain clothes, studio."""
    rng = np.random.default_rng([15485863, identity, seed])
    colour = str(rng.choice(["white", "grey", "black", "blue"]))
    expression = str(rng.choice(["neutral", "smile"]))
    scene = Scene(
        (Person(identity, expression, "still", Garment(colour)),), "studio", "soft",
        seed=int(rng.integers(2**31)),
    )
    return render_clip(scene, frames=1, height=size, width=size)


def render_garment(garment: Garment, size: int = 192) -> np.ndarray:
    """The garment's front alone on white, uint8 (size, size, 3)."""
    scene = Scene((Person(0, garment=garment),), "studio", "soft", seed=1)
    clip = render_clip(scene, frames=1, height=4 * size, width=6 * size)
    mask = clip.garment_mask[0] > 0
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    frame = np.where(mask[..., None], clip.frames[0], 255).astype(np.uint8)
    side, middle = (rows[-1] + 1 - rows[0]) * 3 // 2, (columns[0] + columns[-1]) // 2
    bottom, left = rows[-1] + 1, middle - side // 2
    chest = np.ascontiguousarray(frame[bottom - side : bottom, left : left + side])
    return np.asarray(Image.fromarray(chest).resize((size, size), Image.Resampling.LANCZOS))


def render_background(name: str, seed: int, height: int = 64, width: int = 96) -> np.ndarray:
    """The scene without people, uint8 (height, width, 3)."""
    image = background_image(name, seed, 2 * height, 2 * width)
    return to_pixels(image.reshape(height, 2, width, 2, 3).mean((1, 3)))
