"""`data.decode=nvjpeg`: batches of JPEGs decoded on the training GPU, by NVIDIA's library through torchvision.

Threads read the files one batch ahead; no worker processes are needed. The crops are those of jpeg.py, from the same
random numbers. Files that are not plain JPEGs, and batches that the GPU's decoder refuses, are decoded on the CPU.
"""

import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.geometry import as_tensor
from cnnbench.data.jpeg import Decode, scale_region
from cnnbench.data.shards import Record
from cnnbench.data.sources import Source, is_plain, open_image, read_bytes, upright


class BatchDecoder:
    """Reader of batches of images, uint8 (N, 3, S, S) on the device. UserError naming a broken file."""

    def __init__(self, source: Source, transform: Decode, workers: int, device: torch.device) -> None:
        self.source, self.transform, self.device = source, transform, device
        self.pool = ThreadPoolExecutor(max(1, workers))

    def __call__(self, batches: list[Tensor], seeds: list[np.ndarray]) -> Iterator[Tensor]:
        reading = chain(map(self._begun, batches), [None])
        for own, (begun, _) in zip(seeds, pairwise(reading), strict=True):  # the next batch is being read
            assert begun is not None
            items, contents = begun
            pixels = self._decoded([future.result() for future in contents], items)
            parts = zip(items, pixels, own.tolist(), strict=True)
            yield torch.stack([self._cut(item, image, seed) for item, image, seed in parts])

    def _begun(self, indices: Tensor) -> tuple[list[Any], list[Future[bytes]]]:
        items = [self.source.item(index) for index in indices.tolist()]
        return items, [self.pool.submit(read_bytes, item) for item in items]

    def _decoded(self, contents: list[bytes], items: list[Any]) -> list[Tensor]:
        """Whole images, uint8 (3, H, W)."""
        from torchvision.io import ImageReadMode, decode_jpeg

        here = {number: pixels for number, pair in enumerate(zip(contents, items, strict=True))
                if (pixels := _decode_unless_plain(*pair)) is not None}  # fmt: skip
        there = [torch.frombuffer(bytearray(data), dtype=torch.uint8)
                 for number, data in enumerate(contents) if number not in here]  # fmt: skip
        try:
            decoded = iter(decode_jpeg(there, ImageReadMode.RGB, device=self.device) if there else [])
        except RuntimeError:
            decoded = iter([_by_pillow(contents[number], items[number]).to(self.device)
                            for number in range(len(items)) if number not in here])  # fmt: skip
        return [here[number].to(self.device) if number in here else next(decoded) for number in range(len(items))]

    def _cut(self, item: Any, pixels: Tensor, seed: int) -> Tensor:
        height, width = (item.height, item.width) if isinstance(item, Record) else pixels.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            region = self.transform.region(height, width)
            return self.transform.cut(
                scale_region(region, pixels.shape[1] / height, pixels.shape[2] / width, pixels), pixels
            )


def _decode_unless_plain(data: bytes, item: Any) -> Tensor | None:
    """Pixels of an image that only Pillow can read; None for a plain JPEG."""
    with open_image(io.BytesIO(data), item) as image:
        return None if is_plain(image) else as_tensor(upright(image))


def _by_pillow(data: bytes, item: Any) -> Tensor:
    with open_image(io.BytesIO(data), item) as image:
        return as_tensor(upright(image))
