"""Packed form of a data set of images: tar files with a table of the images' places.

    DIR/dataset.json                classes, normalisation, settings; for each split its table and its shards with their
                                    sizes and SHA-256. It is written last: where it exists, the rest is complete
    DIR/train.npy   val.npy         a row of RECORD per image, in the data set's order
    DIR/train-00000.tar ...         the images as JPEG, under the names that their files had

Tar files can be read everywhere, by WebDataset too, and the images can be unpacked without cnnbench. Libraries for
streamed shards were not used: WebDataset reads shards in sequence, so a training could not resume within an epoch, nor
see the same order for any number of workers; MosaicML's and LitData's formats need their libraries, which bring cloud
clients along; FFCV has had no release since 2023. With the table, an image is one `pread`: memory does not grow with
the shards, and each epoch can have any order.

Each image has a CRC-32 that is compared at every read: 6 us of 600 us for an image of 40 kB.
"""

import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from cnnbench.utils.errors import UserError

RECORD = np.dtype([
    ("shard", "<u4"),  # number of the shard in its split
    ("header", "<u8"),  # byte of the image's tar header, which has its name
    ("offset", "<u8"), ("size", "<u4"), ("crc", "<u4"),  # of the image's bytes
    ("width", "<u4"), ("height", "<u4"),  # upright, before resizing: crops are drawn for this size
    ("target", "<u4"),
])  # fmt: skip


class Record(NamedTuple):
    """One image of a shard; small, so that it can be sent to a worker."""

    shard: str
    header: int
    offset: int
    size: int
    crc: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """Name of the image's file, or its byte where the shard cannot be read there."""
        try:
            with open(self.shard, "rb") as file:  # noqa: PTH123
                file.seek(self.header)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    return next(iter(archive)).name
        except (OSError, tarfile.TarError, StopIteration):
            return f"image at byte {self.offset}"

    def read(self) -> bytes:
        """Bytes of the image. UserError that names shard and image where the checksum is wrong."""
        try:
            descriptor = os.open(self.shard, os.O_RDONLY)
            try:
                content = os.pread(descriptor, self.size, self.offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UserError(f"cannot read the shard '{self.shard}': {error.strerror}") from None
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise UserError(f"the shard '{self.shard}' is damaged: the checksum of its image '{self.name}' is wrong")
        return content


@dataclass(frozen=True, eq=False)
class Packed:
    """Images in shards, with int64 targets (N,). The table is memory-mapped."""

    shards: Sequence[str]
    table: np.ndarray
    targets: Tensor
    groups: Tensor | None = None  # int64 (N,): images of one group stay in one part of a split

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> "Packed":
        groups = None if self.groups is None else self.groups[indices]
        return Packed(self.shards, self.table[indices.numpy()], self.targets[indices], groups)

    def item(self, index: int) -> Record:
        shard, *where, _ = self.table[index].tolist()
        return Record(self.shards[shard], *where)

    def name(self, index: int) -> str:
        return f"{Path(self.shards[int(self.table[index]['shard'])]).parent}/{self.item(index).name}"

    def same_images(self, other: "Packed") -> list[tuple[str, str]]:
        """Pairs of names, of an image here and one of `other`, with the same size and checksum."""
        ours, theirs = (part.table["size"].astype(np.uint64) << 32 | part.table["crc"] for part in (self, other))
        _, mine, yours = np.intersect1d(ours, theirs, return_indices=True)
        return [(self.name(int(a)), other.name(int(b))) for a, b in zip(mine, yours, strict=True)]
