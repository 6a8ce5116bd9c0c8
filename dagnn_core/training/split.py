"""One split of the data: features on the device that trains or on the disk, batches, reconstructed modalities."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dagnn_core.losses.batch import Batch
from dagnn_core.nn.dagnn import DAGNN
from dagnn_core.nn.lifted import Modality
from dagnn_core.training.disk_matrix import DiskMatrix

MIN_ITEMS_PER_BATCH = 2  # of each modality in a batch: batch norm and pairwise losses need two
BATCHES_AHEAD = 2  # read from the disk while one is trained on


class Split(NamedTuple):
    """Features and labels of one split; rows of a missing modality are never read."""

    image: Tensor | DiskMatrix
    """[N, d_I]."""
    text: Tensor | DiskMatrix
    """[N, d_T]."""
    labels: Tensor
    """[N, C], 0 or 1, on the device that trains."""
    has_image: Tensor
    """bool [N], on the CPU."""
    has_text: Tensor
    """bool [N], on the CPU."""
    is_labelled: Tensor | None = None
    """bool [N], on the CPU: the labels of the others are not known, and no loss reads them; None: all are labelled."""

    @property
    def device(self) -> torch.device:
        """The device that trains."""
        return self.labels.device

    def features(self, modality: Modality, rows: Tensor | slice = slice(None)) -> Tensor:
        """Features of some items, by default of all, on the device that trains.

        Shape:
            rows [B], on the CPU -> [B, d_I] or [B, d_T].
        """
        matrix = self.image if modality == "image" else self.text
        if isinstance(matrix, DiskMatrix):
            return matrix.read(rows)
        return matrix[rows if isinstance(rows, slice) else rows.to(matrix.device)]

    def in_memory(self) -> "Split":
        """The same with all features in the memory of the device that trains."""
        return self._replace(image=self.features("image"), text=self.features("text"))

    def pairs(self) -> "Split":
        """The items with both modalities."""
        return self._take((self.has_image & self.has_text).nonzero()[:, 0])

    def labelled(self) -> "Split":
        """The labelled items."""
        if self.is_labelled is None:
            return self
        return self._take(self.is_labelled.nonzero()[:, 0])._replace(is_labelled=None)

    def batch(self, rows: Tensor, *, reconstructed: bool) -> Batch:
        """Images and texts of some items; `reconstructed`: those that are missing too, as this split holds them.

        Shape:
            rows [B], on the CPU.
        """
        has_image, has_text = self.has_image[rows], self.has_text[rows]
        image_rows, text_rows = rows[has_image], rows[has_text]
        num_real_image, num_real_text = len(image_rows), len(text_rows)
        if reconstructed:
            image_rows = torch.cat([image_rows, rows[~has_image]])
            text_rows = torch.cat([text_rows, rows[~has_text]])
        has_both = has_image & has_text
        image_of_pair, text_of_pair = ((has.cumsum(dim=0) - 1)[has_both] for has in (has_image, has_text))
        device = self.device
        labelled_images, labelled_texts = (self._positions_of_labelled(of, device) for of in (image_rows, text_rows))
        return Batch(
            image=self.features("image", image_rows),
            text=self.features("text", text_rows),
            image_labels=self.labels[image_rows.to(device)],
            text_labels=self.labels[text_rows.to(device)],
            num_real_image=num_real_image,
            num_real_text=num_real_text,
            image_of_pair=image_of_pair.to(device),
            text_of_pair=text_of_pair.to(device),
            labelled_images=labelled_images,
            labelled_texts=labelled_texts,
            pair_rows=rows[has_both].to(device),
        )

    def iterate(self, batches: Sequence[Tensor], *, reconstructed: bool) -> Iterator[Batch]:
        """The batches of these items, see `batch`; from the disk, the next ones are read while one is trained on."""
        make = partial(self.batch, reconstructed=reconstructed)
        if not isinstance(self.image, DiskMatrix):
            yield from map(make, batches)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="read-batches") as pool:
            coming = deque(pool.submit(make, rows) for rows in batches[:BATCHES_AHEAD])
            for rows in batches[BATCHES_AHEAD:]:
                coming.append(pool.submit(make, rows))
                yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def draw_batches(self, batch_size: int, generator: torch.Generator) -> list[Tensor]:
        """All rows in random order, cut into batches; those with too few images or texts are left out this time.

        Where items are unlabelled, a batch has up to `batch_size` labelled items, which come again as often as it takes
        to see all others once, and a share of the unlabelled ones.
        """
        if self.is_labelled is None:
            return self._cut(torch.arange(len(self.labels)), batch_size, generator)
        labelled, unlabelled = (mask.nonzero()[:, 0] for mask in (self.is_labelled, ~self.is_labelled))
        batches = self._cut(labelled, batch_size, generator)
        while 0 < len(batches) * batch_size < len(unlabelled):
            batches += self._cut(labelled, batch_size, generator)
        others = unlabelled[torch.randperm(len(unlabelled), generator=generator)]
        shares = torch.tensor_split(others, max(len(batches), 1))
        return [torch.cat(both) for both in zip(batches, shares, strict=False)]

    def _cut(self, rows: Tensor, batch_size: int, generator: torch.Generator) -> list[Tensor]:
        batches = torch.split(rows[torch.randperm(len(rows), generator=generator)], batch_size)
        return [
            batch
            for batch in batches
            if min(int(self.has_image[batch].sum()), int(self.has_text[batch].sum())) >= MIN_ITEMS_PER_BATCH
        ]

    def _take(self, rows: Tensor) -> "Split":
        if len(rows) == len(self.labels):
            return self  # rows are distinct and in order
        image, text = (
            matrix.select(rows) if isinstance(matrix, DiskMatrix) else matrix[rows.to(matrix.device)]
            for matrix in (self.image, self.text)
        )
        return Split(
            *(image, text, self.labels[rows.to(self.device)]),
            self.has_image[rows],
            self.has_text[rows],
            None if self.is_labelled is None else self.is_labelled[rows],
        )

    def _positions_of_labelled(self, rows: Tensor, device: torch.device) -> Tensor | None:
        return None if self.is_labelled is None else self.is_labelled[rows].nonzero()[:, 0].to(device)


@torch.no_grad()
def reconstruct(split: Split, network: DAGNN) -> Split:
    """Fill missing features with what the generators make of the other modality, as constants (TPAMI 2022, stage 2)."""
    assert network.adversary is not None
    network.eval()
    no_image, no_text = (~has.to(split.device) for has in (split.has_image, split.has_text))
    real_image, real_text = split.features("image"), split.features("text")
    image, text = real_image.clone(), real_text.clone()
    image[no_image] = network.adversary.text_to_image(network.text_encoder(real_text[no_image]))
    text[no_text] = network.adversary.image_to_text(network.image_encoder(real_image[no_text]))
    return split._replace(image=image, text=text)
