"""The packed form of a data set of images: tar files with a table of what lies where.

    DIR/dataset.json                classes, normalisation, settings; for each split its table and its shards with their
                                    sizes and SHA-256. It is written last: where it is, the rest is whole
    DIR/train.npy   val.npy         a row of RECORD per image, in the data set's order
    DIR/train-00000.tar ...         the images as JPEG, under the names that their files had

Tar files because every machine has a program that reads them, WebDataset among them, and because nothing of ours is
needed to get the images back. The libraries for streamed shards were passed over: WebDataset reads shards in
sequence, so an epoch could not be entered anywhere, nor be the same for any number of workers; MosaicML's and LitData's
formats need their libraries to be read at all and bring cloud clients along; FFCV's has had no release since 2023. With
the table, an image is one `pread`: memory does not grow with the shards, and each epoch's order is free.

Each image has a CRC-32 that is compared whenever it is read. For 40 kB that takes 6 us, of 600 for the whole image.
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
    ("shard", "<u4"),  # its number in the split
    ("header", "<u8"),  # where the image's tar header is, which has its name
    ("offset", "<u8"), ("size", "<u4"), ("crc", "<u4"),  # its bytes
    ("width", "<u4"), ("height", "<u4"),  # of the image before it was resized, upright: crops are drawn for that size
    ("target", "<u4"),
])  # fmt: skip


class Record(NamedTuple):
    """One image of a shard, small enough to travel to a worker."""

    shard: str
    header: int
    offset: int
    size: int
    crc: int
    width: int
    height: int

    @property
    def name(self) -> str:
        """What the image's file was called. UserError if the shard cannot be read there."""
        try:
            with open(self.shard, "rb") as file:  # noqa: PTH123
                file.seek(self.header)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    return next(iter(archive)).name
        except (OSError, tarfile.TarError, StopIteration):
            return f"image at byte {self.offset}"

    def read(self) -> bytes:
        """The image's bytes. UserError that names shard and image if they are not those that were written."""
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
    """Images in shards, with int64 targets (N,). The table stays on the disk until a part of it is looked at."""

    shards: Sequence[str]
    table: np.ndarray
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, indices: Tensor) -> "Packed":
        return Packed(self.shards, self.table[indices.numpy()], self.targets[indices])

    def item(self, index: int) -> Record:
        shard, *where, _ = self.table[index].tolist()
        return Record(self.shards[shard], *where)

    def name(self, index: int) -> str:
        return f"{Path(self.shards[int(self.table[index]['shard'])]).parent}/{self.item(index).name}"

    def same_images(self, other: "Packed") -> list[tuple[str, str]]:
        """Pairs of names, of one image here and one there, whose bytes are the same by size and checksum."""
        ours, theirs = (part.table["size"].astype(np.uint64) << 32 | part.table["crc"] for part in (self, other))
        _, mine, yours = np.intersect1d(ours, theirs, return_indices=True)
        return [(self.name(int(a)), other.name(int(b))) for a, b in zip(mine, yours, strict=True)]
