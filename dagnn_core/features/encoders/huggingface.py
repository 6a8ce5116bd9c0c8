"""The encoders `huggingface`: any vision, text or CLIP-like model that the library transformers knows.

Images go through the model's own processor in its Pillow form, texts through its own tokenizer. Nothing that a model
brings along is run: weights are safetensors, and program code is refused.

# B batch, T tokens, D dimension of the vectors
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from dagnn_core.config.features import FeaturesConfig
from dagnn_core.data.dataset import Modality
from dagnn_core.data.images import decoded, trim
from dagnn_core.disk import writing
from dagnn_core.errors import ArtifactError, DagnnError, InputError
from dagnn_core.features.encoders.backbone import encode_images
from dagnn_core.features.encoders.checkpoint import CONFIG, SENTENCE_POOLING, Checkpoint, read_object
from dagnn_core.features.encoders.state import STATE, read_state, write_state
from dagnn_core.text import first_line

Pooling = Literal["auto", "cls", "mean", "projection", "pooler"]
POOLINGS: dict[str, Pooling] = {name: name for name in get_args(Pooling)}

MAX_TOKENS = 512  # of a model that states no maximum
BATCH_TEXTS = 256


class Tower(NamedTuple):
    """The half of a CLIP-like model that takes one modality."""

    model: str
    """Its class in transformers."""
    weights: tuple[str, ...]
    """How the names of its weights begin."""
    has_cls: bool = False
    """Whether the first token stands for the whole."""


TOWERS: dict[Modality, dict[str, Tower]] = {
    "image": {
        "clip": Tower("CLIPVisionModelWithProjection", ("vision_model.", "visual_projection."), has_cls=True),
        "siglip": Tower("SiglipVisionModel", ("vision_model.",)),
    },
    "text": {
        "clip": Tower("CLIPTextModelWithProjection", ("text_model.", "text_projection.")),
        "siglip": Tower("SiglipTextModel", ("text_model.",)),
        "siglip2": Tower("Siglip2TextModel", ("text_model.",)),
    },
}
"""Type of a model -> its tower; other CLIP-like models are kept whole."""


class NetworkOutputs(NamedTuple):
    """What a network makes of a batch."""

    hidden: Tensor
    """Tokens [B, T, D], or positions of a convolutional network [B, D, H, W]."""
    pooled: Tensor | None
    """What it pools itself by trained weights, or without any."""
    projection: Tensor | None
    """The vector in the common space of a CLIP-like model."""


class Network:
    """A pretrained network in evaluation mode, in float32.

    Raises:
        InputError: it cannot be loaded, is of another modality, or lacks weights.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        import transformers

        self._modality, folder = checkpoint.modality, checkpoint.folder
        self.type = _model_type(folder)
        self.tower = TOWERS[self._modality].get(self.type)
        model_class = getattr(transformers, self.tower.model) if self.tower else _model_class(folder, self._modality)
        checkpoint.require_preparation()
        with _quietly(), _refusing(f"{folder}: the model cannot be loaded"):
            self.module, info = model_class.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        missing = sorted(name for name in info["missing_keys"] if "pooler." not in name)
        if missing:
            raise InputError(
                f"{folder}: the weights lack {len(missing)} that the model needs, such as {missing[0]}, and would be "
                "random",
                "get the files again, or correct config.json",
            )
        self._missing = info["missing_keys"]
        self.module.eval()

    def __call__(self, **inputs: Tensor) -> NetworkOutputs:
        """Run a batch."""
        inputs = {name: value.to(self.module.device) for name, value in inputs.items()}
        project = getattr(self.module, f"get_{self._modality}_features", None)
        if project is not None:
            outputs = project(**inputs)
            return NetworkOutputs(outputs.last_hidden_state, None, outputs.pooler_output)
        outputs = self.module(**inputs)
        pooled = getattr(outputs, "pooler_output", None)
        projection = getattr(outputs, f"{self._modality}_embeds", pooled) if self.tower else None
        return NetworkOutputs(outputs.last_hidden_state, None if self._missing else pooled, projection)

    def save(self, folder: Path) -> None:
        """Write the weights as they are now, in float32, by the names that transformers finds them under."""
        weights = {name: value for name, value in self.module.state_dict().items() if name not in self._missing}
        with _quietly(), _refusing(f"{folder}: the model cannot be written"), writing(folder):
            self.module.save_pretrained(folder, state_dict=weights)


class HuggingFaceBackbone(ABC):
    """What both modalities share."""

    kind = "huggingface"
    modality: Modality
    dim: int

    def __init__(self, checkpoint: Checkpoint, pooling: Pooling, *, store: bool) -> None:
        self._checkpoint = checkpoint
        self._store = store
        self._network = Network(checkpoint)
        self._pooling = pooling

    @classmethod
    def open(cls, config: FeaturesConfig) -> Self:
        """Open a model by folder, or by hub id and commit.

        Raises:
            InputError: there is no such model, or it cannot be used.
            BackendError: the hub cannot be reached.
        """
        model, revision, pooling = (
            getattr(config, f"{cls.modality}_{key}") for key in ("model", "revision", "pooling")
        )
        return cls(Checkpoint.find(cls.modality, model, revision), pooling, store=config.store_backbone)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ArtifactError: the state is damaged, or the model that it names is no longer the same.
            InputError: the model that it names cannot be used.
            BackendError: the hub cannot be reached.
        """
        state = read_state(directory)
        keys = ("model", "revision", "digest", "pooling")
        model, revision, digest, pooling = (str(state.get(key)) for key in keys)
        if not all(isinstance(state.get(key), str) for key in keys) or pooling not in POOLINGS:
            raise ArtifactError(f"{directory / STATE} is damaged, expected `model`, `revision` ...", "rebuild it")
        if state.get("stored"):
            checkpoint = Checkpoint(
                modality=cls.modality, model=model, revision=revision, folder=directory, digest=digest
            )
        else:
            checkpoint = Checkpoint.find(cls.modality, model, revision)
            if checkpoint.digest != digest:
                raise ArtifactError(
                    f"{directory / STATE} names the model {model}, whose files in {checkpoint.folder} are no longer "
                    "the same",
                    "put the old ones back, or extract the features and train again",
                )
        return cls(checkpoint, POOLINGS[pooling], store=bool(state.get("stored")))

    @property
    def network(self) -> nn.Module:
        """The network, in evaluation mode."""
        module: nn.Module = self._network.module
        return module

    @property
    def model(self) -> str:
        """Where the model's files are, for messages."""
        return f"{self._checkpoint.folder} ({self._network.type})"

    @property
    @abstractmethod
    def example(self) -> Any:
        """What `forward` takes, of one item."""

    @abstractmethod
    def forward(self, batch: Any, /) -> Tensor:
        """Vectors of a batch of pixels or texts, with gradients where the caller wants them: B -> [B, D]."""

    def write(self, folder: Path) -> None:
        """Write the model with the weights that it has now into an empty folder, as `Checkpoint.find` finds it.

        Raises:
            InputError: transformers cannot write it.
            DiskError: the disk refuses it.
        """
        self._network.save(folder)
        self._checkpoint.copy_preparation(folder)  # config.json, too: what transformers makes of it names the tower

    def reopen(self, folder: Path, digest: str) -> Self:
        """Open what `write` wrote; it keeps the name and revision of this model.

        Raises:
            InputError: it cannot be used.
        """
        return type(self)(replace(self._checkpoint, folder=folder, digest=digest), self._pooling, store=True)

    @property
    def identity(self) -> dict[str, str]:
        """Kind, digest of the files, and pooling."""
        return {"kind": self.kind, "digest": self._checkpoint.digest, "pooling": self._pooling}

    def to(self, device: torch.device) -> None:
        """Move the network."""
        self._network.module.to(device)

    def save(self, directory: Path) -> None:
        """Write the state, and the model's files where they are to be stored."""
        checkpoint = self._checkpoint
        is_local = not checkpoint.revision and not self._store
        state = {
            "kind": self.kind,
            "dim": self.dim,
            "model": str(checkpoint.folder.resolve()) if is_local else checkpoint.model,
            "revision": checkpoint.revision,
            "pooling": self._pooling,
            "digest": checkpoint.digest,
            "stored": self._store,
        }
        write_state(directory, state)
        if self._store:
            checkpoint.copy(directory, self._network.tower.weights if self._network.tower else ())

    @contextmanager
    def _probing(self) -> Iterator[None]:
        what = (
            f"{self._checkpoint.folder}: the model ({self._network.type}) cannot embed what its own preparation makes"
        )
        # not in inference mode: what a network keeps from its first batch may have to take part in gradients later
        with torch.no_grad(), _refusing(f"{what} of {'an image' if self.modality == 'image' else 'a text'}"):
            yield

    def _choose_pooling(self, outputs: NetworkOutputs) -> None:
        """Settle what `auto` means, and check that the model has what is asked for."""
        if self._pooling == "auto":
            if outputs.projection is not None:
                self._pooling = "projection"
            else:
                self._pooling = self._sentence_pooling() or ("mean" if outputs.pooled is None else "pooler")
        tower = self._network.tower
        has = {
            "cls": outputs.hidden.ndim == 3 and (tower is None or tower.has_cls),
            "mean": True,
            "projection": outputs.projection is not None,
            "pooler": outputs.pooled is not None,
        }
        if not has[self._pooling]:
            others = ", ".join(name for name in ("cls", "mean", "projection") if has[name])
            raise InputError(
                f"features.{self.modality}_pooling is {self._pooling}, which {self._checkpoint.folder} "
                f"({self._network.type}) does not have",
                f"set it to auto or one of: {others}",
            )

    def _sentence_pooling(self) -> Pooling | None:
        """What a model of sentence-transformers says; None for all others."""
        path = self._checkpoint.folder / SENTENCE_POOLING
        if self.modality == "image" or not path.is_file():
            return None
        config = read_object(path)
        modes = [name.removeprefix("pooling_mode_") for name, value in config.items() if value is True]
        known: dict[str, Pooling] = {"cls_token": "cls", "mean_tokens": "mean", "cls": "cls", "mean": "mean"}
        modes = [mode for mode in (*modes, config.get("pooling_mode")) if mode in known]
        if len(modes) != 1:
            raise InputError(f"{path}: expected one of cls and mean as pooling", "set features.text_pooling to one")
        return known[modes[0]]

    def _pool(self, outputs: NetworkOutputs, mask: Tensor | None = None) -> Tensor:
        """One float32 vector of each image or text, [B, D]."""
        hidden = outputs.hidden.float()
        if self._pooling == "cls":
            return hidden[:, 0]
        if self._pooling == "mean":
            if mask is None:
                return hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden.mean(1)
            weights = mask.to(hidden)[..., None]
            return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)
        vectors = outputs.projection if self._pooling == "projection" else outputs.pooled
        assert vectors is not None
        return vectors.float().flatten(1)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Turns an encoded image into a network's pixels, [3, H, W] float32; it knows the processor, not the network."""

    processor: Any
    at_least: int
    """Pixels that each side keeps when a large JPEG is decoded at a fraction of its size."""

    def __call__(self, image: bytes) -> NDArray[np.float32]:
        """Decode and prepare.

        Raises:
            InputError: the image cannot be decoded.
        """
        with decoded(image, self.at_least) as whole:
            outputs = self.processor(trim(whole), return_tensors="np")
        pixels: NDArray[np.float32] = outputs["pixel_values"][0]
        return pixels


class HuggingFaceImageBackbone(HuggingFaceBackbone):
    """A vision model, or the image half of a CLIP-like model."""

    modality: Modality = "image"

    def __init__(self, checkpoint: Checkpoint, pooling: Pooling, *, store: bool) -> None:
        super().__init__(checkpoint, pooling, store=store)
        processor = _load_processor(checkpoint.folder)
        pixels = [_pixels(processor, size, checkpoint.folder) for size in ((96, 64), (64, 96))]
        if pixels[0].shape != pixels[1].shape:
            raise InputError(
                f"{checkpoint.folder}: the processor leaves images in different sizes, expected one size for all",
                "let it crop, or set `size` to height and width, in preprocessor_config.json",
            )
        # twice the side that is needed: smoothing then hides that the decoder left out pixels
        self._preprocess = Preprocess(processor, 2 * max(pixels[0].shape[-2:]))
        self._example = torch.from_numpy(pixels[0])
        self.dim = self._probe(self._example)

    @property
    def preprocess(self) -> Callable[[bytes], NDArray[np.float32]]:
        """Turns an encoded image into pixels."""
        return self._preprocess

    @property
    def example(self) -> Tensor:
        """Pixels of one image, [1, 3, H, W]."""
        return self._example

    def forward(self, pixels: Tensor, /) -> Tensor:
        """As `embed`, with gradients where the caller wants them."""
        return self._pool(self._network(pixel_values=pixels))

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Embed a batch of what `preprocess` makes: [B, 3, H, W] -> [B, D]."""
        return self.forward(pixels)

    def encode(self, images: Sequence[bytes], /) -> NDArray[np.float32]:
        """Encode images (JPEG, PNG ...): B images -> [B, D].

        Raises:
            InputError: an image cannot be decoded; the message has its number, from 1.
        """
        return encode_images(self, images)

    def _probe(self, pixels: Tensor) -> int:
        """Try one image twice; return the dimension of its vector."""
        with self._probing():
            outputs = self._network(pixel_values=pixels)
            self._choose_pooling(outputs)
            first, second = self._pool(outputs), self.forward(pixels)
        if not torch.allclose(first, second):
            raise InputError(
                f"{self._checkpoint.folder}: the model ({self._network.type}) gives the same image another vector "
                "each time",
                "choose another model",
            )
        return first.shape[1]


class HuggingFaceTextBackbone(HuggingFaceBackbone):
    """A text model, or the text half of a CLIP-like model."""

    modality: Modality = "text"

    def __init__(self, checkpoint: Checkpoint, pooling: Pooling, *, store: bool) -> None:
        super().__init__(checkpoint, pooling, store=store)
        self._tokenizer = _load_tokenizer(checkpoint.folder)
        self._max_tokens = _max_tokens(self._tokenizer, self._network.module)
        # SigLIP was trained on texts filled up to the maximum, without a mask, and takes the vector of the last token
        self._is_filled = self._network.type.startswith("siglip")
        num_words, num_rows = len(self._tokenizer), self._network.module.config.get_text_config().vocab_size
        if num_words > num_rows:
            raise InputError(
                f"{checkpoint.folder}: the tokenizer has {num_words} words, the model vectors for {num_rows}",
                "they do not belong together, get the files again",
            )
        with self._probing():
            outputs, mask = self._run(self.example)
            self._choose_pooling(outputs)
            self.dim = self._pool(outputs, mask).shape[1]

    @property
    def example(self) -> list[str]:
        """One text."""
        return ["a"]

    def forward(self, texts: Sequence[str], /) -> Tensor:
        """Vectors of a batch of texts, with gradients where the caller wants them: B texts -> [B, D]."""
        return self._pool(*self._run(texts))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Encode texts: B texts -> [B, D]. What is longer than the model takes is cut off."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), BATCH_TEXTS):
            rows = slice(start, start + BATCH_TEXTS)
            vectors[rows] = self.forward(texts[rows]).cpu().numpy()
        return vectors

    def _run(self, texts: Sequence[str]) -> tuple[NetworkOutputs, Tensor]:
        inputs = self._tokenizer(
            list(texts),
            padding="max_length" if self._is_filled else True,
            truncation=True,
            max_length=self._max_tokens,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = inputs["attention_mask"]
        if self._is_filled:
            del inputs["attention_mask"]
        return self._network(**inputs), mask


def _model_type(folder: Path) -> str:
    path = folder / CONFIG
    config = read_object(path)
    if "AutoModel" in config.get("auto_map", {}):
        raise InputError(
            f"{path}: this model brings program code of its own (auto_map), which is never run",
            "choose a model that transformers has itself",
        )
    return str(config.get("model_type", ""))


def _model_class(folder: Path, modality: Modality) -> Any:
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING, AutoConfig

    with _refusing(f"{folder / CONFIG} names no model that transformers knows"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    mappings = (MODEL_MAPPING,) if modality == "image" else (MODEL_FOR_TEXT_ENCODING_MAPPING, MODEL_MAPPING)
    model_class = next((mapping[type(config)] for mapping in mappings if type(config) in mapping), None)
    main_input = {"image": "pixel_values", "text": "input_ids"}[modality]
    if hasattr(model_class, f"get_{modality}_features") or getattr(model_class, "main_input_name", "") == main_input:
        return model_class
    raise InputError(
        f"{folder}: {config.model_type} is not {'a vision' if modality == 'image' else 'a text'} or CLIP-like model",
        f"correct features.{modality}_model",
    )


def _load_processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    with _quietly(), _refusing(f"{folder}: the image processor cannot be loaded"):
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)


def _pixels(processor: Any, size: tuple[int, int], folder: Path) -> NDArray[np.float32]:
    """What a processor makes of an image, in which no two places look the same."""
    down = Image.linear_gradient("L")
    image = Image.merge("RGB", (down, down.rotate(90), Image.radial_gradient("L"))).resize(size)
    with _refusing(f"{folder}: the image processor fails on an image"):
        outputs = processor(image, return_tensors="np")
    pixels: NDArray[np.float32] = outputs["pixel_values"]
    if set(outputs) != {"pixel_values"} or pixels.ndim != 4:
        raise InputError(
            f"{folder}: the image processor makes {', '.join(outputs)} of shape {list(pixels.shape)}, expected one "
            "grid of pixels for each image",
            "choose a model that takes images of one size",
        )
    return pixels


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with _quietly(), _refusing(f"{folder}: the tokenizer cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.pad_token is None:
        raise InputError(f"{folder}: the tokenizer has no padding token", "name a pad_token in tokenizer_config.json")
    return tokenizer


def _max_tokens(tokenizer: Any, module: nn.Module) -> int:
    """The least of what the tokenizer states, and of the positions that the network has."""
    limits = [tokenizer.model_max_length]
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding) and name.endswith(("position_embedding", "position_embeddings", "wpe")):
            # RoBERTa and its kin begin to count behind the padding's position
            limits.append(part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1))
    least = min(limits)
    return int(least) if least < 1 << 20 else MAX_TOKENS


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and reports of transformers: what is wrong becomes an error here."""
    from transformers.utils import logging

    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Make one line of what transformers raises, which is nearly anything, where a model is not as it expects."""
    try:
        yield
    except DagnnError:
        raise
    except Exception as error:
        raise InputError(f"{what} ({first_line(error)})", "choose another model, or get its files again") from error
