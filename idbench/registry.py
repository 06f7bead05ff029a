"""Models and metrics by name: lazy "module:attribute" targets, own and of other packages.

A third-party package adds its models and metrics through the entry-point groups
`idbench.models` and `idbench.metrics`; nothing of it is imported before it is used.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from idbench import __version__
from idbench.errors import UserError, explained
from idbench.files import sha256_json, sha256_once
from idbench.names import one_of, unknown
from idbench.output import note
from idbench.types import Abilities, Model


@dataclass(frozen=True)
class Target:
    """Where a registered object is: "module:attribute", and the distribution that offers it."""

    address: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@contextmanager
def _directory_kept() -> Iterator[None]:
    """The working directory is the same afterwards, which an imported package may change."""
    try:
        start = os.getcwd()
    except FileNotFoundError:  # it was removed
        start = ""
    yield
    if start:
        os.chdir(start)


class Registry:
    """Names of one kind, to lazily loaded objects.

    Args:
        kind: the word for an entry in messages, such as "model".
        group: the entry-point group that other packages use.
        builtin: name -> "module:attribute" of idbench's own, in order; the attribute has their
            targets.
        problem: what keeps a loaded object from being the entry of that name (None: nothing).
    """

    def __init__(
        self, kind: str, group: str, builtin: Mapping[str, str],
        problem: Callable[[str, Any], str | None] = lambda name, found: None,
    ) -> None:
        self._problem = problem
        self._told: set[str] = set()
        self.kind = kind
        self.group = group
        self._known: tuple[Any, dict[str, Target]] | None = None
        self.builtin = {
            name: Target(address, "idbench", __version__) for name, address in builtin.items()
        }

    def targets(self) -> dict[str, Target]:
        """All names with their targets, sorted. Raises UserError: two packages offer the same
        name."""
        state = (entry_points, _places())
        if self._known is not None and self._known[0] == state:
            return dict(self._known[1])
        found = dict(self.builtin)
        for point in entry_points(group=self.group):
            new = _target(point)
            old = found.get(point.name)
            if old is not None and old.address != new.address:
                raise UserError(
                    f"Two packages offer a {self.kind} named {point.name!r}: {old.distribution} "
                    f"({old.address}) and {new.distribution} ({new.address}); uninstall one or "
                    "rename its entry point."
                )
            found[point.name] = new
        self._known = state, dict(sorted(found.items()))
        return dict(self._known[1])

    def target(self, name: str) -> Target:
        """The target of `name`. Raises UserError: unknown name; says the nearest."""
        targets = self.targets()
        return targets[one_of(self.kind, name, targets)]

    def load(self, name: str) -> Any:
        """Import and return the object registered as `name`. Raises UserError: unknown name, a
        module or attribute that cannot be imported, or an object of another kind; names the
        package."""
        target = self.target(name)
        what = f"The {self.kind} {name!r} ({target.address} of {target})"
        with explained(f"{what} cannot be loaded", f"reinstall {target.distribution}"):
            with _directory_kept():
                found = resolve_name(target.address)
            problem = self._problem(name, found)
        if problem:
            raise UserError(
                f"{what} {problem}; correct the entry point of {target.distribution}, or uninstall "
                "it."
            )
        return found

    def usable(self) -> Iterator[tuple[str, Any]]:
        """Names and objects of all that can be loaded; those of other packages that cannot are left
        out with a note."""
        for name in self.targets():
            try:
                yield name, self.load(name)
            except UserError as error:
                if name in self.builtin:
                    raise
                if str(error) not in self._told:
                    note(f"Left out: {error}")
                self._told.add(str(error))


def _no_model(name: str, found: Any) -> str | None:
    return None if callable(found) else f"is a {type(found).__name__} and no model"


def _no_metric(name: str, found: Any) -> str | None:
    # By name: `metrics.base`, which reads the registry, cannot be imported here.
    classes = {f"{c.__module__}.{c.__qualname__}" for c in type(found).__mro__}
    if "idbench.metrics.base.Metric" not in classes:
        return f"is a {type(found).__name__} and no metric"
    return None if found.name == name else f"calls itself {found.name!r}"


MODELS = Registry(
    "model",
    "idbench.models",
    {
        "concat_id": "idbench.models.concat_id.model:ConcatID",
        "consisid": "idbench.baselines.consisid:MODEL",
        "id_animator": "idbench.baselines.id_animator:MODEL",
        "ingredients": "idbench.baselines.ingredients:MODEL",
        "vace": "idbench.baselines.vace:Vace",
        "phantom": "idbench.baselines.phantom:Phantom",
        "stand_in": "idbench.baselines.stand_in:StandIn",
        "avatars_truth": "idbench.baselines.avatars_truth:AvatarsTruth",
        "folder": "idbench.baselines.folder:Folder",
    },
    problem=_no_model,
)
METRICS = Registry(
    "metric",
    "idbench.metrics",
    {
        "arcsim": "idbench.metrics.identity_similarity:ARCSIM",
        "cursim": "idbench.metrics.identity_similarity:CURSIM",
        "viclip": "idbench.metrics.viclip:METRIC",
        "clipdist": "idbench.metrics.clipdist:METRIC",
        "dlibsim": "idbench.metrics.dlibsim:METRIC",
        "clipdist_frame": "idbench.metrics.clipdist:FRAME",
        "own_minus_other_by_order": "idbench.metrics.several_people:OWN_MINUS_OTHER_BY_ORDER",
        "order": "idbench.metrics.several_people:ORDER",
        "face_coverage": "idbench.metrics.several_people:FACE_COVERAGE",
        "not_measured": "idbench.metrics.several_people:NOT_MEASURED",
        "own_minus_other": "idbench.metrics.several_people:OWN_MINUS_OTHER",
        "swap_rate": "idbench.metrics.several_people:SWAP_RATE",
        "identity_slope": "idbench.metrics.drift:SLOPE",
        "identity_worst": "idbench.metrics.drift:WORST",
        "attribute_accuracy": "idbench.metrics.attributes:ACCURACY",
        "background_accuracy": "idbench.metrics.attributes:BACKGROUND",
        "background_similarity": "idbench.metrics.region_similarity:BACKGROUND",
        "expression_accuracy": "idbench.metrics.attributes:EXPRESSION",
        "garment_accuracy": "idbench.metrics.attributes:GARMENT",
        "garment_similarity": "idbench.metrics.region_similarity:GARMENT",
        "head_motion_accuracy": "idbench.metrics.attributes:MOTION",
        "motion": "idbench.metrics.motion:METRIC",
        "aesthetic": "idbench.metrics.opens2v:AESTHETIC",
        "arcsim_clear": "idbench.metrics.pose_bins:CLEAR",
        "arcsim_occluded": "idbench.metrics.pose_bins:OCCLUDED_FACE",
        "arcsim_yaw_high": "idbench.metrics.pose_bins:YAW_HIGH",
        "arcsim_yaw_low": "idbench.metrics.pose_bins:YAW_LOW",
        "arcsim_yaw_middle": "idbench.metrics.pose_bins:YAW_MIDDLE",
        "copy_paste": "idbench.metrics.copy_paste:METRIC",
        "facesim_consistency": "idbench.metrics.temporal:FACE_CONSISTENCY",
        "human_identity": "idbench.metrics.human_identity:METRIC",
        "motion_amplitude": "idbench.metrics.opens2v:MOTION_AMPLITUDE",
        "motion_smoothness": "idbench.metrics.opens2v:MOTION_SMOOTHNESS",
        "opens2v_total": "idbench.metrics.opens2v:TOTAL",
        "share_read": "idbench.metrics.viclip:SHARE_READ",
        "temporal_consistency": "idbench.metrics.temporal:CONSISTENCY",
        "viclip_sentences": "idbench.metrics.viclip:SENTENCES",
    },
    problem=_no_metric,
)
"""Columns of tables stand in this order; metrics of other packages follow."""


PARTS = ("generate", "settings", "weight_hashes")
"""Methods that every model has."""


def metric_version(name: str) -> str:
    """What computes a metric: package and version, revision, and a plugin's source code.

    The revision is left out while it is "1", so that scores of earlier versions stay valid. The
    source is the sha256 of the modules of the metric and of its function."""
    target, metric = METRICS.target(name), METRICS.load(name)
    text = f"{target.distribution} {target.version}"
    if metric.revision != "1":
        text += f" revision {metric.revision}"
    if target.distribution != "idbench":
        function = getattr(metric.scores, "func", metric.scores)  # of a functools.partial
        modules = {target.address.partition(":")[0], getattr(function, "__module__", "")}
        files = sorted(str(getattr(sys.modules.get(m), "__file__", None)) for m in modules)
        digests = [sha256_once(Path(file)) for file in files if Path(file).is_file()]
        text += f" source {sha256_json(digests)}"
    return text


def split_variant(name: str) -> tuple[str, str | None]:
    """`concat_id@multi` -> ("concat_id", "multi"); without `@` the variant is None."""
    base, at, variant = name.partition("@")
    if at and not variant:
        raise UserError(f"The model {name!r} names no variant after @; write {base!r} alone.")
    return base, variant or None


def abilities_of(name: str) -> Abilities | None:
    """What the model can generate; None where it does not say. Raises UserError: unknown name, or
    it cannot be imported."""
    return getattr(MODELS.load(name), "abilities", None)


def make_model(name: str, settings: Mapping[str, Any] | None = None) -> Model:
    """The model `NAME[@VARIANT]`, built with the keyword `settings`. Raises UserError: unknown
    model, or a setting that the model does not have."""
    base, variant = split_variant(name)
    factory, package = MODELS.load(base), MODELS.target(base)
    with explained(
        f"The model {name!r} of {package} cannot be made",
        "correct its settings, or report this to its authors",
    ):
        made = _make(base, factory, variant, dict(settings or {}))
    most = getattr(made, "maximum_references", None)
    if not isinstance(most, int) or not all(callable(getattr(made, p, None)) for p in PARTS):
        raise UserError(
            f"The model {name!r} of {package} lacks one of {', '.join(PARTS)} or a number "
            "`maximum_references`; report this to its authors."
        )
    return made


def _make(base: str, factory: Any, variant: str | None, settings: dict[str, Any]) -> Any:
    """Build a model; a setting that it does not have is named."""
    known = settings_of(factory)
    for reserved in {"self", "variant"} & settings.keys():
        raise unknown(f"setting of {base}", reserved, known)
    try:
        return factory(variant=variant, **settings)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        for setting in settings:
            one_of(f"setting of {base}", setting, known)
        raise


def settings_of(factory: Any) -> dict[str, Any]:
    """The keyword settings of a model's class with their defaults, its base classes' too."""
    makers: list[Any] = [factory]
    if parts := getattr(factory, "parts", None):  # one of several classes, by the settings
        return {name: value for part in parts for name, value in settings_of(part).items()}
    if inspect.isclass(factory):
        makers = [vars(c)["__init__"] for c in factory.__mro__[:-1] if "__init__" in vars(c)]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found: dict[str, Any] = {}
    for maker in makers:
        for p in inspect.signature(maker).parameters.values():
            if p.name not in ("self", "variant") and p.kind not in kinds:
                found.setdefault(p.name, None if p.default is p.empty else p.default)
    return found


def _places() -> tuple[tuple[str, int], ...]:
    """Where packages are installed, and when something there was: to search it once only."""
    found = []
    for place in sys.path:
        try:
            found.append((place, os.stat(place or ".").st_mtime_ns))
        except OSError:
            found.append((place, 0))
    return tuple(found)


def _target(point: EntryPoint) -> Target:
    distribution = point.dist
    name = distribution.name if distribution else "an unnamed package"
    return Target(point.value.replace(" ", ""), name, distribution.version if distribution else "")
