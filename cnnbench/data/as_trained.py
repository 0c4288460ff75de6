"""Settings of data that a trained net decides: how it hears sounds, and which values of a grid it knows."""

from collections.abc import Mapping
from dataclasses import replace

from cnnbench.config.sections import DataConfig, SoundConfig
from cnnbench.data.grids import KEY as GRID
from cnnbench.data.spectrogram import KEY as SOUND
from cnnbench.data.spectrogram import Spectrogram
from cnnbench.utils.errors import UserError


def as_trained(cfg: DataConfig, extra: Mapping[str, object], typed: set[str]) -> DataConfig:
    """The data with sounds as a net hears them, and grids in the values that it knows, whose `extra` is given.
    UserError where the user wants it otherwise. A file of Python that the user names is trusted as it is."""
    if {"data", "data.file"} & typed:
        cfg = replace(cfg, sha256=None)
    if isinstance(values := extra.get(GRID), list) and "data.values" not in typed:
        return replace(cfg, values=[float(value) for value in values])
    known = extra.get(SOUND)
    if not isinstance(known, dict):
        return cfg
    if wrong := sorted(key for key in typed if key.startswith("data.sound.")):
        raise UserError(f"{wrong[0]} cannot be changed now: the net hears {Spectrogram.of(known).text}, as in its "
                        "training")  # fmt: skip
    return replace(cfg, sound=SoundConfig(**known))
