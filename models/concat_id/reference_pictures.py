"""A model's reference pictures: read, prepared and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from idbench.models.concat_id.about import alignment_of, check_preparation
from idbench.pictures import read_converted, read_reference, read_rgb
from idbench.types import Reference

if TYPE_CHECKING:
    from idbench.models.concat_id.face_tools import FaceTools


class ReferencePictures:
    """References for videos of (height, width).

    `faces`, `parser`, `alignment` and `preparation`: see `face_tools`. `problems`: by reference
    image, what its preparation could not do. Raises UserError: unknown names, or choices that
    exclude each other."""

    def __init__(
        self, height: int, width: int, faces: str, parser: str, alignment: str | None,
        preparation: str = "default", device: str = "cpu",
    ) -> None:
        check_preparation(preparation, faces, parser, alignment)
        self.height, self.width, self.device = height, width, device
        self.faces, self.parser, self.preparation = faces, parser, preparation
        self.alignment = alignment_of(faces, alignment)
        self.problems: dict[str, str] = {}
        self._prepared: dict[tuple[str, Path, float], np.ndarray] = {}

    def settings(self) -> Mapping[str, Any]:
        """What changes the pixels and is not the embedded models' own. The files of faces and
        parser are in `hashes`."""
        chosen: dict[str, Any] = {}
        if (self.faces, self.parser, self.alignment) != ("embedded", "embedded", "upright"):
            chosen.update(
                faces=self.faces.partition(":")[0], alignment=self.alignment,
                parser=self.parser if self.parser in ("embedded", "none") else "segformer",
            )
        if self.preparation != "default":
            chosen.update(preparation=self.preparation)
        return chosen

    def hashes(self) -> Mapping[str, str]:
        """sha256 of the user's own weight files by name."""
        return {} if self.faces == self.parser == "embedded" else self.tools.hashes

    def prepare(self, reference: Reference, fill: float = 1.0) -> np.ndarray:
        """A reference as uint8 RGB (height, width, 3) for the VAE; remembered by path. `fill`: of
        faces, see `references.prepare`.
        Raises UserError: the picture cannot be read."""
        # Imported late: a finished run only asks for the settings.
        from idbench.models.concat_id.references import Prepared, fit_and_pad

        key = (reference.kind, reference.image, fill)
        if key not in self._prepared:
            read = read_rgb if self.preparation == "default" else read_converted
            image = read_reference(reference.image, read)
            if reference.kind != "face":  # nothing is removed
                result = Prepared(fit_and_pad(image, self.height, self.width))
            else:
                result = self.tools.prepare(image, self.height, self.width, fill)
            if result.problem:
                self.problems[str(reference.image)] = result.problem
            self._prepared[key] = result.image
        return self._prepared[key]

    @cached_property
    def tools(self) -> FaceTools:
        """What finds and cuts out faces. Raises UserError: see `face_tools.load_tools`."""
        from idbench.models.concat_id.face_tools import load_tools

        return load_tools(self.faces, self.parser, self.alignment, self.device, self.preparation)
