"""The image encoder `vgg19_bn`: fc7 of VGG-19 with batch normalisation, as in the papers, from torchvision's weights.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, configuration
E. The vector is the output of the second fully connected layer after its ReLU, as in the authors' code.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from dagnn_core.artifacts import sha256_of
from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.images import decoded, trim
from dagnn_core.errors import ArtifactError, InputError
from dagnn_core.features.encoders.backbone import encode_images
from dagnn_core.features.encoders.state import STATE, read_state, write_state
from dagnn_core.tensors import save_tensors
from dagnn_core.text import first_line

CHANNELS = (64, 64, "pool", 128, 128, "pool", *(256,) * 4, "pool", *(512,) * 4, "pool", *(512,) * 4, "pool")
DIM = 4096
RESIZE, CROP = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
FILE = "model.safetensors"
ORIGIN = "torchvision's weights of vgg19_bn (vgg19_bn-c79401a0.pth)"


class Vgg19(nn.Module):
    """VGG-19 with batch normalisation up to fc7; its parts have torchvision's names.

    Shape:
        [B, 3, 224, 224] -> [B, DIM].
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for entry in CHANNELS:
            if isinstance(entry, int):
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.BatchNorm2d(entry), nn.ReLU(inplace=True)]
                width = entry
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        # the dropouts are there for the numbers in the names: 0, 3
        fc6, fc7 = nn.Linear(width * (CROP // 32) ** 2, DIM), nn.Linear(DIM, DIM)
        self.classifier = nn.Sequential(fc6, nn.ReLU(inplace=True), nn.Dropout(), fc7, nn.ReLU(inplace=True))

    def forward(self, pixels: Tensor) -> Tensor:
        """Apply the network."""
        fc7: Tensor = self.classifier(self.features(pixels).flatten(1))
        return fc7


class VggBackbone:
    """VGG-19 with its preprocessing.

    Args:
        weights: file with torchvision's weights, or what `save` wrote.
        digest: sha256 of the file that was configured.
        store: whether `save` writes the weights.

    Raises:
        InputError: the file is missing or damaged, or holds other weights.
    """

    kind = "vgg19_bn"
    dim = DIM

    def __init__(self, weights: Path, digest: str, *, store: bool) -> None:
        self._weights, self._digest, self._store = weights, digest, store
        with torch.device("meta"):
            self._network = Vgg19()
        self._network.load_state_dict(_fitting(_read(weights), self._network.state_dict(), weights), assign=True)
        self._network.eval()
        self._mean, self._deviation = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, DEVIATION))

    @classmethod
    def open(cls, config: FeaturesConfig) -> "VggBackbone":
        """Open torchvision's weights.

        Raises:
            InputError: the file is missing or damaged, or holds other weights.
        """
        return cls._open(Path(config.image_model), store=config.store_backbone)

    @classmethod
    def _open(cls, weights: Path, *, store: bool) -> "VggBackbone":
        if not weights.is_file():
            raise InputError(
                f"features.image_model is {str(weights)!r}, but there is no such file, expected {ORIGIN}",
                "correct the path",
            )
        return cls(weights, sha256_of(weights), store=store)

    @classmethod
    def load(cls, directory: Path) -> "VggBackbone":
        """Read what `save` wrote.

        Raises:
            ArtifactError: the state is damaged, or the weights that it names are no longer the same.
        """
        state = read_state(directory)
        weights, digest = state.get("weights"), state.get("digest")
        if not isinstance(weights, str) or not isinstance(digest, str):
            raise ArtifactError(f"{directory / STATE} is damaged, expected `weights` and `digest`", "rebuild it")
        if weights == FILE:
            return cls(directory / FILE, digest, store=True)
        encoder = cls._open(Path(weights), store=False)
        if encoder._digest != digest:
            raise ArtifactError(
                f"{directory / STATE} names the weights {weights}, which are no longer the same",
                "put the old file back, or extract the features and train again",
            )
        return encoder

    @property
    def identity(self) -> Mapping[str, str]:
        """Kind, and digest of the weights."""
        return {"kind": self.kind, "digest": self._digest}

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self._network.to(device)
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)

    def save(self, directory: Path) -> None:
        """Write the state, and the weights where they are to be stored."""
        weights = FILE if self._store else str(self._weights.resolve())
        write_state(directory, {"kind": self.kind, "dim": self.dim, "weights": weights, "digest": self._digest})
        if self._store:
            save_tensors(directory / FILE, {name: value.cpu() for name, value in self._network.state_dict().items()})

    @property
    def preprocess(self) -> Callable[[bytes], NDArray[np.uint8]]:
        """Turns an encoded image into pixels."""
        return crop

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Embed a batch of what `preprocess` makes: [B, 3, 224, 224] -> [B, D]."""
        scaled = pixels.to(self._mean.device).float() / 255
        vectors: Tensor = self._network((scaled - self._mean) / self._deviation)
        return vectors.float()

    def encode(self, images: Sequence[bytes], /) -> NDArray[np.float32]:
        """Encode images (JPEG, PNG ...): B images -> [B, D].

        Raises:
            InputError: an image cannot be decoded; the message has its number, from 1.
        """
        return encode_images(self, images)


def crop(encoded: bytes) -> NDArray[np.uint8]:
    """Decode an image, resize its shorter side to 256 and cut out the middle, as torchvision's transform does.

    Shape:
        [3, 224, 224].

    Raises:
        InputError: Pillow cannot decode it.
    """
    with decoded(encoded, 2 * RESIZE) as image:
        shown = trim(image)
        short = min(shown.size)
        size = (RESIZE * shown.width // short, RESIZE * shown.height // short)
        resized = shown.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((side - CROP) / 2) for side in resized.size)
    pixels = np.asarray(resized.crop((left, top, left + CROP, top + CROP)))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): torch.as_tensor(value) for name, value in state.items()}
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        reason = first_line(error)
        raise InputError(f"{path} cannot be read as weights ({reason}), expected {ORIGIN}", "get it again") from error


def _fitting(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights that the network has; those of the last layer and the counters of batches are left out."""
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.6.")}
    shapes, wanted = (
        {name: list(value.shape) for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
        for tensors in (kept, expected)
    )
    for name in sorted(shapes.keys() | wanted.keys()):
        if shapes.get(name) != wanted.get(name):
            raise InputError(
                f"{path}: {name} is {shapes.get(name, 'missing')}, expected {wanted.get(name, 'no such weight')} as in "
                f"{ORIGIN}",
                "get that file",
            )
    return {name: kept[name].float() for name in wanted}
