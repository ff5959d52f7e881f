"""A network that `rhythmwatch train --images` made: it judges single spectral images, by classes of its own."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsp.layout import FS
from inference import features_image
from inference.contract import ContractError, check
from inference.explain import heat, occlusion, pack
from inference.features import NAMES
from inference.runtime import Model
from rhythmwatch.models import ModelError, Models, load_models
from rhythmwatch.pictures import Picture, grey, opened, read_picture

FILE: Final = "image.onnx"
OURS: Final = "image-ours"
STUDY: Final = "image-study"
SIDE: Final = 64
"""Pixels of a side of the study's picture."""


@dataclass(frozen=True, slots=True)
class PictureModel:
    """A loaded network for images.

    Attributes
    ----------
    model : Model
        Its contract's ``model`` is `OURS` (features and channels of our images) or `STUDY` (grey pixels).
    """

    model: Model

    @classmethod
    def load(cls, folder: Path) -> PictureModel | None:
        """Read ``image.onnx`` of a folder of models.

        Returns
        -------
        PictureModel or None
            None where there is none.

        Raises
        ------
        ModelError
            It is damaged, or made for other images than this version's.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            model = Model(path)
            contract = model.contract
            if contract.model == OURS:
                image = features_image.CONTRACT
                check(contract, model=OURS, rate=FS, classes=contract.classes, features=NAMES, image=image)
            else:
                check(contract, model=STUDY, rate=FS, classes=contract.classes, features=())
        except ContractError as error:
            raise ModelError(f"{path} can't be used: {error}") from error
        return cls(model)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the folders that it learnt from."""
        return self.model.contract.classes

    def classify(self, data: bytes) -> dict[str, Any]:
        """Judge an image, with a map by occlusion.

        Parameters
        ----------
        data : bytes
            PNG or JPEG.

        Returns
        -------
        dict
            As `rhythmwatch.classify.classify_picture`; ``network`` ours or study.

        Raises
        ------
        rhythmwatch.pictures.PictureError
            It is no such picture.
        """
        picture = read_picture(data, np.array(self.model.contract.mean or np.zeros(len(NAMES)), np.float32))
        if self.model.contract.model == OURS:
            shown, features = picture.image, picture.features
            p, cells = occlusion(
                lambda stack: self._probabilities(np.repeat(features[None], len(stack), 0), stack), shown
            )
            warnings = list(picture.warnings)
        else:
            pixels = study_pixels(data)
            p, cells = occlusion(
                lambda stack: self._probabilities(stack[:, 0].transpose(0, 2, 1)[:, ::-1].astype(np.float32)),
                pixels[::-1].T[None].astype(np.float32),
            )
            warnings = []
        return self._answer(p, cells, picture, warnings)

    def _probabilities(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = self.model.run(*inputs)[0].astype(np.float64)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)

    def _answer(
        self, p: NDArray[np.float32], cells: NDArray[np.float32], picture: Picture, warnings: list[str]
    ) -> dict[str, Any]:
        packed = pack(cells[None], np.zeros(1, np.float32))[0]
        best, second = np.argsort(-p, kind="stable")[:2].tolist()
        return {
            "kind": "image", "network": self.model.contract.model.removeprefix("image-"), "class": self.classes[best],
            "study": None, "p": round(float(p[best]), 4), "second": self.classes[second],
            "second_p": round(float(p[second]), 4),
            "probabilities": {name: round(float(v), 4) for name, v in zip(self.classes, p, strict=True)},
            "about": picture.about, "rr_known": picture.exact and self.model.contract.model == OURS,
            "warnings": warnings, "image_share": 100, "map": base64.b64encode(packed).decode(),
            "heat": np.round(heat(packed).astype(float), 3).tolist(),
            "picture": grey(picture.image[0])[::-1].tolist(),
        }  # fmt: skip


def load_both(folder: Path | None) -> tuple[Models, PictureModel | None]:
    """Load the models of a folder and its network for images, if it has one.

    A folder with ``image.onnx`` alone, as `rhythmwatch train --images` leaves it, judges images; recordings go to the
    shipped models.

    Raises
    ------
    ModelError
        One that is there can't be used.
    """
    images = None if folder is None else PictureModel.load(folder)
    alone = images is not None and folder is not None and [item.name for item in folder.glob("*.onnx")] == [FILE]
    return load_models(None if alone else folder), images


def study_pixels(data: bytes) -> NDArray[np.uint8]:
    """Give any picture as the study's network reads it: grey, shape (SIDE, SIDE), low frequencies at the bottom."""
    with opened(data) as image:
        return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.uint8)
