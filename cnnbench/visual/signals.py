"""`what=signals`: activation and gradient of each layer of an untrained net, before its first step, as numbers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from cnnbench import data, models, tasks
from cnnbench.models.adaptation import replace_layer
from cnnbench.models.layers import CLASS, WEIGHTED, Net, normal
from cnnbench.output.figure import BLUE, VERMILLION, new_figure, round_ticks, save_figure
from cnnbench.utils.errors import UserError
from cnnbench.visual.context import VisualizeContext
from cnnbench.visual.html_page import Picture
from cnnbench.visual.numbers import write_numbers

Layer = nn.Module
COLORS = (BLUE, "#009E73", VERMILLION)


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


def without_norms(net: Net) -> Net:
    """The net with the identity in the place of each BatchNorm."""
    for layer in [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]:
        replace_layer(net, layer, nn.Identity())
    return net


def small(net: Net, seed: int = 0) -> Net:
    """The net with weights of N(0, 0.01^2), AlexNet's, in place of its own."""
    torch.manual_seed(seed)
    normal(net, std=0.01)
    return net


def variants(context: VisualizeContext) -> Iterator[tuple[str, Net]]:
    """The net as it begins, without BatchNorm where it has any, and without it from small weights."""
    net = untrained(context)
    yield "as it begins", net
    if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        yield "without BatchNorm", without_norms(untrained(context))
    yield "without BatchNorm, N(0, 0.01^2)", small(without_norms(untrained(context)), context.cfg.seed)


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
    batch = first_batch(context)
    found = {name: signals(net, *batch) for name, net in variants(context)}
    about = f"{context.title} on {context.data_name}, seed {context.cfg.seed}, untrained"
    words = "; ".join(f"{name}, {arrives(layers):.2e}" for name, layers in found.items())
    first, *_, last, _ = next(iter(found.values()))
    caption = f"Of the gradient at {last.layer} arrives at {first.layer}: {words}. Norms; outputs as root mean squares."
    picture = context.new_picture("signals", "signals", about, caption)
    facts = {"model": context.spec.model, "data": context.data_name, "seed": context.cfg.seed,
             "batch_size": context.cfg.batch_size}  # fmt: skip
    facts["arrives"] = {name: arrives(one) for name, one in found.items()}
    layers = {name: [asdict(one) for one in some] for name, some in found.items()}
    write_numbers(context, picture, {**facts, "layers": layers})
    draw(found, picture, about)
    yield picture


def arrives(found: list[Signal]) -> float:
    """Share of the gradient by the output of the last layer but the classifier that arrives at the first layer's."""
    last = found[-2].gradient_of_output
    return found[0].gradient_of_output / last if last else float("nan")


def draw(found: dict[str, list[Signal]], picture: Picture, title: str) -> Figure:
    figure = new_figure(9, 3.8, title)
    left, right = figure.subplots(1, 2)
    for (name, layers), color, style in zip(found.items(), COLORS, ("-", "--", ":"), strict=False):
        depth = range(1, len(layers) + 1)
        line: dict[str, Any] = {"color": color, "linestyle": style, "marker": ".", "label": name}
        left.plot(depth, [one.output for one in layers], **line)
        right.plot(depth, [one.gradient_of_output for one in layers], **line)
    left.set(ylabel="output, root mean square")
    right.set(ylabel="norm of the gradient by the output")
    left.legend(frameon=False, fontsize=8)
    for ax in (left, right):
        ax.set(yscale="log", xlabel="layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        low, high = ax.get_ylim()
        round_ticks(ax.yaxis, low, high, lambda value: f"{value:g}")
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    return save_figure(figure, picture.path)
