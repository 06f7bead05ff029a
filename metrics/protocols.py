"""The protocols, by name: frozen and versioned, each fixes everything that moves a number.

`docs/protocols.md` has a section on each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from idbench.errors import UserError
from idbench.metrics.protocol_types import Detection, Picture, Protocol
from idbench.metrics.rules import SAMPLERS
from idbench.names import DEFAULT_PROTOCOL, choose, one_of
from idbench.registry import METRICS

STRICT = Protocol(
    name="strict-v1",
    version=1,
    summary="The first default: faces at borders are not read again",
    description=(
        "The default: up to 16 different frames, no clamp, frames without the person's face "
        "stay as unscored rows, one-to-one matching, whole frames never cut."
    ),
)

STRICT_2 = replace(
    STRICT,
    name="strict-v2",
    version=2,
    summary="As strict-v3, but with CLIPDist of whole frames",
    description=(
        "As strict-v1, but a face at the border of the picture is measured again with grey around "
        "it, and its crop is grey beyond the picture."
    ),
    detection=Detection(border=0.1, crop_beyond=128),
)

STRICT_3 = replace(
    STRICT_2,
    name="strict-v3",
    version=3,
    summary="The default: idbench's own rules, CLIPDist of faces",
    description=(
        "Up to 16 different frames, no clamp, frames without the person's face stay as unscored "
        "rows, one-to-one matching, faces at the border measured again with grey around them; "
        "CLIPDist of faces, and of the picture beside it."
    ),
    clip_region="both", also=("clipdist_frame",),
)

_SCRFD = Detection(detector="pack", size=320, height=0, thresholds=(0.5, 0.5, 0.5))
_FACE_NETWORKS = (
    ("detector", "SCRFD of the insightface pack buffalo_l"),
    ("arcface", "w600k_r50 of the insightface pack buffalo_l"),
    ("curricularface", "glint360k_curricular_face_r101_backbone"),
)
_CLIP = ("clip", "OpenAI CLIP ViT-B/32 (the size is not published)")
_VICLIP = ("viclip", "ViClip-InternVid-10M-FLT")
_ZERO = (
    "Where no face was found at all, ArcSim and CurSim are 0.0, as the published script writes "
    "it; that is not a measurement. The column Not measured shows its share."
)
_CROP = Picture(resize="crop")
_OPEN_CLIP = Picture(resize="crop", interpolation="open_clip")
_VBENCH = Picture(resize="crop", interpolation="bicubic-torchvision")

CONSISID = Protocol(
    name="consisid-v1",
    version=1,
    summary="An earlier version of consisid-v2",
    description=(
        "ConsisID's script: 16 frames, repeated in short videos, largest face, negatives 0, "
        "frames without a face skipped, 0.0 where there is none at all."
    ),
    sampler="linspace", detection=_SCRFD, matching="largest", clamp=True, rule="consisid",
    people="one", metrics=("arcsim", "cursim", "face_coverage", "not_measured"),
    curricular_crop=224, networks=_FACE_NETWORKS,
    source="PKU-YuanGroup/ConsisID, eval/get_facesim_fid.py; arXiv 2411.17440",
    notes=(_ZERO, "Skipping frames without a face favours a model that hides it."),
)

OPENS2V = replace(
    CONSISID,
    name="opens2v-v1",
    summary="An earlier version of opens2v-v2",
    description=(
        "OpenS2V's script: as consisid-v1 with 32 frames; CurSim's frames of 0 are dropped, "
        "ArcSim's kept; samples of several people are left out as ambiguous."
    ),
    frames=32, rule="opens2v",
    source="PKU-YuanGroup/OpenS2V-Nexus, eval/get_facesim.py; arXiv 2505.20292",
    notes=(*CONSISID.notes, "CurSim drops its frames of 0, which raises it above ArcSim's rule."),
)

INGREDIENTS = Protocol(
    name="ingredients-v1",
    version=1,
    summary="An earlier version of ingredients-v2",
    description=(
        "The maximum rule of Ingredients' script: 24 frames, and of each the best cosine of any "
        "reference with either of the two largest faces; ArcSim alone."
    ),
    frames=24, sampler="linspace", detection=replace(_SCRFD, retry_padding=0.0),
    rule="ingredients", pairs="maximum", metrics=("arcsim", "face_coverage"),
    networks=_FACE_NETWORKS[:2],
    source="feizc/Ingredients, metric/face_sim_fid.py; arXiv 2501.01790",
    notes=(
        "The maximum rule: one person who is met well hides another who is missing.",
        "A video with a frame without a face is unscored: the published script stops at it.",
    ),
)

VICLIP_VBENCH = Protocol(
    name="viclip-vbench",
    version=1,
    summary="ViCLIP as VBench computes it",
    description="ViCLIP as VBench reads it: middles of 8 intervals, centre crop, CLIP statistics.",
    video_picture=_VBENCH, metrics=("viclip",), networks=(_VICLIP,),
    source="Vchitect/VBench, overall_consistency; arXiv 2311.17982",
)

VICLIP_INTERNVIDEO = Protocol(
    name="viclip-internvideo",
    version=1,
    summary="ViCLIP as InternVideo's demo computes it",
    description=(
        "ViCLIP as InternVideo's demo reads it: frames[::n // 8][:8], squashed to a square, "
        "ImageNet statistics."
    ),
    video_sampler="first-strides",
    video_picture=Picture(normalisation="imagenet", interpolation="bilinear-cv2"),
    metrics=("viclip",), networks=(_VICLIP,),
    source="OpenGVLab/InternVideo, Data/InternVid/viclip; arXiv 2307.06942",
    notes=("The end of a video may be unread: up to half of it if n is not a multiple of 8.",),
)

CLIPDIST_FRAME = Protocol(
    name="clipdist-frame",
    version=1,
    summary="An earlier version of clipdist-frame-v2",
    description="CLIPDist of whole frames and the whole reference, CLIP's own centre crop.",
    clip_picture=_CROP, metrics=("clipdist",), networks=(_CLIP,),
    source="Concat-ID, arXiv 2503.14151, section 4; one of the two readings",
)

CLIPDIST_FACE = Protocol(
    name="clipdist-face",
    version=1,
    summary="An earlier version of clipdist-face-v2",
    description=(
        "CLIPDist of the face crops of frame and reference; several people by their places, "
        "left to right, so that no recogniser is needed."
    ),
    matching="left-to-right", clip_picture=_CROP, clip_region="face", metrics=("clipdist",),
    networks=(_CLIP,),
    source="Concat-ID, arXiv 2503.14151, section 4; one of the two readings",
)

PAPER = Protocol(
    name="paper-v3",
    version=1,
    summary="An earlier version of paper-v4",
    description=(
        "Closest to the Concat-ID paper, version 3: faces as ConsisID's script, ViCLIP as VBench, "
        "CLIPDist of whole frames; several people one to one."
    ),
    sampler="linspace", detection=_SCRFD, matching="largest-else-one-to-one", clamp=True,
    rule="consisid", clip_picture=_CROP, video_picture=_VBENCH,
    metrics=(
        "arcsim", "cursim", "viclip", "clipdist", "face_coverage", "not_measured",
        "own_minus_other", "own_minus_other_by_order", "order", "swap_rate",
    ),
    curricular_crop=224, networks=(*_FACE_NETWORKS, _VICLIP, _CLIP),
    source="Concat-ID, arXiv 2503.14151 (v3), section 4",
    notes=(
        _ZERO,
        "The paper leaves open: the rule that matches faces to several references, ViCLIP's "
        "preparation, CLIPDist's region, CLIP and number of frames, and which 97 references and "
        "prompts it drew. See docs/protocols.md for the choices made here.",
    ),
)

_AS_SCRIPTS = replace(_SCRFD, retry_crop="padded")
_READ_AS_SCRIPTS = (
    "references and the second search's crops are read as the script reads them."
)
CONSISID_2 = replace(
    CONSISID, name="consisid-v2", version=2,
    summary="ConsisID's evaluation script",
    description=f"ConsisID's script, as consisid-v1; {_READ_AS_SCRIPTS}",
    detection=_AS_SCRIPTS, reference_picture="converted", largest_faces=1,
)
OPENS2V_2 = replace(
    OPENS2V, name="opens2v-v2", version=2,
    summary="An earlier version of opens2v-v3",
    description=f"OpenS2V's script, as opens2v-v1; {_READ_AS_SCRIPTS}",
    detection=_AS_SCRIPTS, reference_picture="converted", largest_faces=1,
)
OPENS2V_3 = replace(
    OPENS2V_2, name="opens2v-v3", version=3,
    summary="OpenS2V's evaluation scripts",
    description=(
        "OpenS2V's face script, as opens2v-v2; on request its MotionAmplitude and Aesthetics, the "
        "latter on CLIP's own centre crop of the same 32 frames."
    ),
    metrics=(
        *OPENS2V_2.metrics, "motion_amplitude", "aesthetic", "motion_smoothness", "opens2v_total",
    ),
    clip_picture=_OPEN_CLIP,
    networks=(*_FACE_NETWORKS, ("clip", "OpenAI CLIP ViT-L/14"),
              ("aesthetic", "LAION's aesthetic-model.pth")),
    source="PKU-YuanGroup/OpenS2V-Nexus, eval/ of version 1.1; arXiv 2505.20292",
)
INGREDIENTS_2 = replace(
    INGREDIENTS, name="ingredients-v2", version=2,
    summary="Ingredients' evaluation script: the maximum rule",
    description="Ingredients' script, as ingredients-v1; references are read as it reads them.",
    reference_picture="converted",
)
CLIPDIST_FRAME_2 = replace(
    CLIPDIST_FRAME, name="clipdist-frame-v2", version=2, clip_picture=_OPEN_CLIP,
    summary="CLIPDist of whole frames, prepared as open_clip does",
    description="As clipdist-frame; pictures are prepared by open_clip's own transform.",
)
CLIPDIST_FACE_2 = replace(
    CLIPDIST_FACE, name="clipdist-face-v2", version=2, clip_picture=_OPEN_CLIP,
    summary="CLIPDist of faces, prepared as open_clip does",
    description="As clipdist-face; pictures are prepared by open_clip's own transform.",
)
PAPER_4 = replace(
    PAPER, name="paper-v4", version=4,
    summary="The Concat-ID paper, as closely as it can be",
    description=(
        "Closest to the Concat-ID paper (its version 3): faces as consisid-v2, ViCLIP as VBench, "
        "CLIPDist as clipdist-frame-v2; several people one to one."
    ),
    detection=_AS_SCRIPTS, reference_picture="converted", clip_picture=_OPEN_CLIP,
)

VBENCH2_IDENTITY = Protocol(
    name="vbench2-identity-v1",
    version=1,
    summary="An earlier version of vbench2-identity-v2",
    description=(
        "VBench-2.0's Human Identity: every frame with one face against the first frame's, the "
        "share with a cosine of 0.4 or more; needs no reference."
    ),
    sampler="every-frame", detection=replace(_SCRFD, retry_padding=0.0),
    metrics=("human_identity", "facesim_consistency"),
    networks=(("detector", "RetinaFace ResNet-50 of retinaface-pytorch"),),
    source="Vchitect/VBench, VBench-2.0/vbench2/human_identity.py; arXiv 2503.21755",
    notes=(
        "Human Identity: faces are found by this run's detector, where VBench-2.0 uses RetinaFace.",
    ),
)
VBENCH2_IDENTITY_2 = replace(
    VBENCH2_IDENTITY, name="vbench2-identity-v2", version=2,
    summary="VBench-2.0's Human Identity; needs no reference",
    description=(
        "VBench-2.0's Human Identity, as vbench2-identity-v1; faces are cut out with their box "
        "drawn, and later frames without a face count as alike, as in the script."
    ),
    human_identity="script",
    notes=(
        *VBENCH2_IDENTITY.notes,
        "Human Identity: a later frame without a face counts as the same person.",
    ),
)

PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        STRICT_3, STRICT_2, STRICT, PAPER_4, PAPER, CONSISID_2, CONSISID,
        OPENS2V_3, OPENS2V_2, OPENS2V,
        INGREDIENTS_2, INGREDIENTS, VICLIP_VBENCH, VICLIP_INTERNVIDEO,
        CLIPDIST_FRAME_2, CLIPDIST_FRAME, CLIPDIST_FACE_2, CLIPDIST_FACE,
        VBENCH2_IDENTITY_2, VBENCH2_IDENTITY,
    )
}
EMBEDDED_NOTE = (
    "The embedded recognisers are trained on synthetic avatars: their scores rank avatars and "
    "say little about photographs of real people."
)


def get_protocol(name: str | Protocol = DEFAULT_PROTOCOL) -> Protocol:
    """The protocol of that name.

    Raises:
        UserError: no such protocol; names the nearest.
    """
    if isinstance(name, Protocol):
        return name
    return PROTOCOLS[one_of("protocol", name, PROTOCOLS)]


def choose_metrics(protocol: Protocol, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the registered metrics to compute under `protocol`, sorted.

    Args:
        asked: of the command line: NAME, or +NAME in addition to the default metrics, which are
            all that the protocol defines except those `computed="named"`.

    Raises:
        UserError: an unknown metric (suggests the nearest), or one that the protocol does not
            define.
    """
    def defined(named: bool) -> Iterator[str]:
        for name, metric in METRICS.usable():
            if protocol.defines(metric) and (named or metric.computed != "named"):
                yield name

    for name in (text.removeprefix("+") for text in asked):
        if not protocol.defines(METRICS.load(name)):
            raise UserError(
                f"The protocol {protocol.name} does not define {name}; it defines "
                f"{', '.join(defined(named=True))}."
            )
    return tuple(sorted(choose(asked, defined(named=False))))


def sample_frames(protocol: Protocol, count: int) -> tuple[int, ...]:
    """Frame indices for faces and CLIPDist of a video of `count` frames; see `rules`."""
    return SAMPLERS[protocol.sampler](count, protocol.frames)


def sample_video_frames(protocol: Protocol, count: int) -> tuple[int, ...]:
    """The frame indices that ViCLIP reads, repeats allowed; see `rules`.

    Empty where the protocol's sampler cannot take so few.
    """
    return SAMPLERS[protocol.video_sampler](count, protocol.video_frames)


def with_embedded_networks(protocol: Protocol) -> Protocol:
    """`protocol` as it runs where no insightface pack is at hand.

    Detector and alignment become those of `strict-v1`, whose networks the embedded weights are;
    sampler, second search, matching and rule stay.
    """
    if protocol.detection.detector != "pack":
        return protocol
    asked = protocol.detection
    detection = replace(
        STRICT.detection, retry_padding=asked.retry_padding, retry_grey=asked.retry_grey,
        retry_crop=asked.retry_crop,
    )
    return replace(protocol, detection=detection, curricular_crop=STRICT.curricular_crop)


def embedded_note(protocol: Protocol, stood_in: Collection[str]) -> str | None:
    """What to say under the values of `protocol` when embedded networks made some of them.

    Args:
        stood_in: the roles (`arcface`, `detector`, ...) that embedded networks played.
    """
    asked = ", ".join(checkpoint for role, checkpoint in protocol.networks if role in stood_in)
    if not asked:
        return None
    return (
        f"{protocol.name} is defined on {asked}. The embedded networks were used instead: "
        "sampler and rules are the protocol's, but the scores are not comparable with published "
        "ones."
    )
