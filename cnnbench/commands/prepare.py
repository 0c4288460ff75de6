"""`cnnbench prepare`: folders of images into shards that are read several times as fast (see data/shards.py)."""

import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cnnbench import data
from cnnbench.config.commands import PackConfig
from cnnbench.config.data_names import as_chosen, data_name
from cnnbench.config.sections import Format, OnBadImage
from cnnbench.data import packing
from cnnbench.data.folders import locked
from cnnbench.data.packed import ABOUT, read_about
from cnnbench.data.sounds import Sounds
from cnnbench.data.unreadable import report_left_out
from cnnbench.output.tables import for_people, render
from cnnbench.utils.console import say
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text
from cnnbench.utils.format import byte_size, plural
from cnnbench.utils.named_files import typed_path
from cnnbench.utils.system import cores
from cnnbench.utils.text import slug


def run(cfg: PackConfig) -> int:
    plan = planned(cfg)
    stream = for_people(cfg.format)
    begin = time.perf_counter()
    if (plan.folder / ABOUT).exists():
        about = read_about(plan.folder)
        if about["settings"] != plan.settings():
            raise UserError(f"'{plan.folder}' holds other images or was packed with other settings: give another out")
        say("already done", stream)
    else:
        packing.begin_packing(plan)
        with locked(plan.folder):
            about = read_about(plan.folder) if (plan.folder / ABOUT).exists() else packed(plan, stream)
    result = summary(plan.folder, about, time.perf_counter() - begin)
    show(result, cfg.format, as_chosen(cfg.data.name, cfg.data.source))
    return 0


def planned(cfg: PackConfig) -> packing.PackingPlan:
    """UserError for data that are no files, and before anything is written."""
    if cfg.data.packed:
        raise UserError("data.packed: these images are packed already")
    dataset = data.load_dataset(cfg.data, read_all=False, test=True)  # each is read once, when it is packed
    if dataset.task != "classification":
        raise UserError(f"prepare packs images with a class each; data={cfg.data.name} is for {dataset.task}, which "
                        "reads its files as they are")  # fmt: skip
    if not isinstance(dataset.train, data.Files) or isinstance(dataset.train, Sounds):
        raise UserError(f"data={cfg.data.name} is no folder of image files: it is in memory, where nothing is faster")
    source = data_name(cfg.data.name, cfg.data.root, cfg.data.file)
    folder = typed_path(cfg.out) if cfg.out is not None else typed_path(cfg.run.root) / "prepare" / slug([source])
    return packing.PackingPlan(
        dataset=dataset,
        folder=folder,
        side=cfg.side,
        quality=cfg.quality,
        shard=cfg.shard,
        workers=cores() if cfg.data.workers is None else cfg.data.workers,
        skip=cfg.data.on_error is OnBadImage.skip,
    )


def packed(plan: packing.PackingPlan, stream: Any) -> dict[str, Any]:
    """Write what is missing; what is then in dataset.json."""
    parts = list(plan.parts())
    missing = [part for part in parts if plan.known(part) is None]
    count, left = (sum(len(part.paths) for part in some) for some in (parts, missing))
    needed = packing.space_needed(plan, missing)
    free = packing.check_space(plan, needed)
    say(f"{count:,} images in {plural(len(parts), 'shard')}, {len(parts) - len(missing)} of them finished; the rest "
        f"needs about {byte_size(needed)} of the {byte_size(free)} that are free -> {plan.folder}", stream)  # fmt: skip
    with tqdm(total=left, desc="prepare", unit="image", leave=False, dynamic_ncols=True, file=sys.stderr,
              disable=not sys.stderr.isatty(), mininterval=0.1) as bar:  # fmt: skip
        packing.write_shards(plan, missing, bar.update)
    about = packing.finish_packing(plan)
    if about["skipped"]:
        report_left_out(tuple(about["skipped"]), "cannot be read")
    return about


def summary(folder: Path, about: dict[str, Any], seconds: float) -> dict[str, Any]:
    shards = [shard for split in about["splits"].values() for shard in split["shards"]]
    return {
        "data": about["name"],
        "train_images": about["splits"]["train"]["images"],
        "val_images": about["splits"]["val"]["images"],
        **({"test_images": about["splits"]["test"]["images"]} if "test" in about["splits"] else {}),
        "classes": len(about["classes"]),
        "skipped": len(about["skipped"]),
        "shards": len(shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "side": about["settings"]["side"],
        "quality": about["settings"]["quality"],
        "wall_seconds": seconds,
        "packed": str(folder),
    }


def show(result: dict[str, Any], format: Format, chosen: str) -> None:
    if format is Format.json:
        print(json_text(result))
    elif format is not Format.table:
        print(render([result], format))
    else:
        tests = f", and {plural(result['test_images'], 'test image')}" if "test_images" in result else ""
        print(
            f"{result['train_images']:,} training and {result['val_images']:,} validation images{tests}, "
            f"{byte_size(result['bytes'])} in {plural(result['shards'], 'shard')}, {result['skipped']} skipped\n"
            f"read them with data={chosen} data.packed={result['packed']}"
        )
