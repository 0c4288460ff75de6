#!/usr/bin/env python3
"""Put a run's weights into the zoo that comes with cnnbench, with their model card: scripts/zoo.py RUN_DIR NAME"""

import sys
from pathlib import Path
from typing import Any

from cnnbench.utils.errors import UserError
from cnnbench.utils.files import read_json
from cnnbench.weights import sources

CARD = """\
# {name}

`weights=zoo:{name}`: {model}, trained from scratch on {data} by cnnbench itself.

| | |
|---|---|
| test error | top-1 **{top1_error:.2f} %**, top-5 {top5_error:.2f} %, of {n:,} {split} images, {crop}, {precision} |
| chosen by | {select_on}, one run: nothing was selected on the test images |
| the paper's | {paper} |
| parameters | {params:,} |
| command | `{command}` |
| seed | {seed} |
| epochs, steps | {epochs}, {steps:,} of {batch_size} images |
| trained on | {device}, {training_precision}, {hours:.1f} h |
| versions | {versions_text} |
| classes | {classes} |
| images | {image_size} x {image_size} px, RGB; mean {mean}, std {std} |
| licence | that of cnnbench (MIT) for the weights; the images they were trained on are not part of it |
"""
PAPER = {"resnet20": "8.75 % (He et al., 2015; 164 epochs, multi-step schedule)"}


def main(run: str, name: str) -> None:
    directory = Path(run)
    result: dict[str, Any] = read_json(directory / "result.json")
    if not result:
        raise UserError(f"{directory} holds no finished run (result.json)")
    found = sources.load(str(directory / "checkpoints" / "last.pt"))
    assert found.spec is not None
    overrides = [text for text in (directory / "overrides").read_text().split() if not text.startswith("run.")]
    facts = {
        **result,
        "name": name,
        "command": f"cnnbench train {' '.join(overrides)}",
        "paper": PAPER.get(result["model"], "no number"),
        "hours": result["wall_seconds"] / 3600,
        "classes": ", ".join(found.spec.labels),
        "versions_text": ", ".join(f"{package} {version}" for package, version in result["versions"].items()),
        **{key: getattr(found.spec.input, key) for key in ("mean", "std", "image_size")},
    }
    sources.ZOO.mkdir(exist_ok=True)
    about = {key: result[key] for key in ("top1_error", "top5_error", "n", "split", "seed", "epochs", "data")}
    sources.save_safetensors(sources.ZOO / f"{name}.safetensors", found.state, found.spec, about=about)
    (sources.ZOO / f"{name}.md").write_text(CARD.format(**facts))
    checked = sources.build(sources.load(f"zoo:{name}"))
    print(f"{sources.ZOO / name}.safetensors: {sum(p.numel() for p in checked.parameters()):,} parameters")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (UserError, TypeError) as error:
        sys.exit(f"zoo.py: {error}\nusage: scripts/zoo.py RUN_DIR NAME")
