"""`what=signals`: activation and gradient of each layer of an untrained net, before its first step, as numbers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench import data, models, tasks
from cnnbench.models.layers import CLASS, WEIGHTED, Net
from cnnbench.output.figure import BLUE, VERMILLION, new_figure, save_figure
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_json
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture

Layer = nn.Module


@dataclass(frozen=True)
class Signal:
    """Root mean square of a layer's output, and the norms of the loss's gradients by its output and by its weights."""

    layer: str
    output: float
    gradient_of_output: float
    gradient_of_weights: float


def signals(net: Net, images: Tensor, targets: Tensor) -> list[Signal]:
    """Signals of the weighted layers in their order, of one batch in train mode: images (N, C, H, W), classes (N,).

    In double precision: what vanishes would be zero in float32 before the end of a deep net.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(layer: Layer, inputs: Any, output: Tensor) -> None:
            output.retain_grad()
            seen[name] = output

        return hook

    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, WEIGHTED)}
    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    logits = net.double().train()(images.double())
    nn.functional.cross_entropy(logits[0] if isinstance(logits, tuple) else logits, targets).backward()
    for handle in handles:
        handle.remove()
    return [
        Signal(name, rms(output), norm(output.grad), norm(layers[name].weight.grad)) for name, output in seen.items()
    ]


def rms(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


def norm(gradient: Any) -> float:
    return float(gradient.detach().norm()) if gradient is not None else 0.0


def untrained(context: VisualizeContext) -> Net:
    """The net that the settings would train, with the weights of its seed."""
    torch.manual_seed(context.cfg.seed)
    net = models.build_for(context.spec.model, outputs=context.spec.outputs, in_channels=context.channels)
    return net.cpu()


def first_batch(context: VisualizeContext) -> tuple[Tensor, Tensor]:
    """The first training images, normalised, and their classes."""
    source, size = context.dataset.train, context.cfg.batch_size
    some = source.subset(data.evenly_spaced(source, min(size, len(source))))
    batches = data.eval_loader(some, context.dataset, image_size=context.size, batch_size=size, workers=0)
    batch = next(islice(batches.epoch(0), 1))
    return context.normalize(batch["image"]).cpu(), batch["target"].cpu()


def draw_signals(context: VisualizeContext) -> Iterator[Picture]:
    if not context.cfg.model:
        raise UserError("what=signals looks at an untrained net: name it, as in model=plain56")
    if tasks.find(context.spec.task).answers != CLASS:
        raise UserError(f"what=signals asks for the loss of a classifier, which {context.title} is not")
    found = signals(untrained(context), *first_batch(context))
    first, last = found[0], found[-2]
    share = first.gradient_of_output / last.gradient_of_output if last.gradient_of_output else float("nan")
    title = f"{context.title} on {context.data_name}, {len(found)} layers, seed {context.cfg.seed}, untrained"
    words = (
        f"Of the gradient by the output of {last.layer}, of norm {last.gradient_of_output:.2e}, {share:.2e} arrive at "
        f"{first.layer}, {len(found) - 2} layers below. Outputs as root mean squares, gradients as norms."
    )
    picture = context.new_picture("signals", "signals", title, words)
    facts = {"model": context.spec.model, "data": context.data_name, "seed": context.cfg.seed,
             "batch_size": context.cfg.batch_size, "arrives": share}  # fmt: skip
    write_json(picture.path.with_suffix(".json"), {**facts, "layers": [asdict(one) for one in found]})
    draw(found, picture, title)
    yield replace(picture, title=title)


def draw(found: list[Signal], picture: Picture, title: str) -> None:
    figure = new_figure(9, 3.8, title)
    left, right = figure.subplots(1, 2)
    depth = range(1, len(found) + 1)
    left.plot(depth, [one.output for one in found], color=BLUE, marker=".")
    right.plot(depth, [one.gradient_of_output for one in found], color=VERMILLION, marker=".", label="by the output")
    right.plot(depth, [one.gradient_of_weights for one in found], color=BLUE, marker=".", label="by the weights")
    left.set(ylabel="output")
    right.set(ylabel="gradient of the loss")
    right.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.set(yscale="log", xlabel="layer")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, picture.path)
