"""Root mean squares of the activations and gradients of each stage during a training.

The numbers stay on the device until an epoch ends: no step waits for them.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from cnnbench.models.layers import Net, output_layer
from cnnbench.output.figure import BLUE, VERMILLION, new_figure, round_ticks, save_figure
from cnnbench.training.optim import WEIGHTS


class SignalStatistics:
    """Statistics of each stage and auxiliary head: root mean square of its output, share of zeros in its output, and
    root mean square of the gradients of its convolutions' and linear layers' weights.

    wanted: whether the next step counts. history: the values by tag, one dictionary for each epoch.
    """

    def __init__(self, model: Net, wanted: Callable[[], bool]) -> None:
        self.model, self.wanted = model, wanted
        self.history: list[dict[str, float]] = []
        self._handles: list[Any] = []
        self._active = False
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def attach(self) -> None:
        self._handles.append(self.model.register_forward_pre_hook(self._begin))
        parts = {name: (part, part[-1]) for name, part in self.model.stages.items()}
        auxiliary = self.model.auxiliary
        inside = {id(layer) for head in auxiliary.values() for layer in head.modules()}
        parts["head"] = (parts["head"][0], output_layer(self.model))
        parts |= {name: ([head], head) for name, head in auxiliary.items()}
        for name, (modules, last) in parts.items():
            self._handles.append(last.register_forward_hook(self._on_output(name)))
            layers = [layer for module in modules for layer in module.modules() if isinstance(layer, WEIGHTS)]
            for layer in layers:
                if name in auxiliary or id(layer) not in inside:
                    hook = self._on_gradient(name)
                    self._handles.append(layer.weight.register_post_accumulate_grad_hook(hook))

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self._active = module.training and torch.is_grad_enabled() and self.wanted()

    def _on_output(self, stage: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._active and isinstance(output, Tensor):
                values = output.detach().float()
                self._add(f"activation/rms/{stage}", values.pow(2).mean())
                self._add(f"activation/zeros/{stage}", (values == 0).float().mean())

        return hook

    def _on_gradient(self, stage: str) -> Callable[[Tensor], None]:
        def hook(weight: Tensor) -> None:
            if self._active and weight.grad is not None:
                self._add(f"gradient/rms/{stage}", weight.grad.detach().float().pow(2).mean())

        return hook

    def _add(self, tag: str, value: Tensor) -> None:
        self._sums[tag] = self._sums[tag] + value if tag in self._sums else value
        self._counts[tag] += 1

    def collect(self, scale: float) -> dict[str, float]:
        """Means since the last call. scale: factor on the loss, divided out of the gradients. Waits for the device."""
        means = {tag: float(total) / self._counts[tag] for tag, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        values = {tag: value**0.5 if "/rms/" in tag else value for tag, value in means.items()}
        values |= {tag: value / scale for tag, value in values.items() if tag.startswith("gradient/")}
        if values:
            self.history.append(values)
        return values


def draw_signals(history: list[dict[str, float]], path: Path, title: str, aside: Collection[str] = ()) -> Figure:
    """Activation and gradient of each stage, in the first and in the last epoch. aside: names of auxiliary heads, which
    are not joined to the line of the stages."""
    figure = new_figure(9, 3.8, f"{title}: signal and gradient, root mean squares")
    left, right = figure.subplots(1, 2)
    _panel(left, history, "activation/rms/", "output", aside)
    _panel(right, history, "gradient/rms/", "gradient of the weights", aside)
    left.legend(frameon=False, fontsize=8)
    return save_figure(figure, path)


def _panel(ax: Axes, history: list[dict[str, float]], kind: str, label: str, aside: Collection[str]) -> None:
    stages = [tag.rpartition("/")[2] for tag in history[0] if tag.startswith("activation/rms/")]  # in forward order
    lines = [(history[-1], "last epoch", VERMILLION, "-")]
    if len(history) > 1:
        lines.insert(0, (history[0], "first epoch", BLUE, "--"))
    for values, name, color, style in lines:
        sizes = [values.get(f"{kind}{stage}", math.nan) for stage in stages]
        main = [index for index, stage in enumerate(stages) if stage not in aside]
        ax.plot(
            main, [sizes[index] for index in main], color=color, linestyle=style, marker="o", markersize=5, label=name
        )
        ax.plot(range(len(stages)), sizes, color=color, linestyle="", marker="o", markersize=5)
    ax.set(yscale="log", ylabel=label)
    round_ticks(ax.yaxis, *ax.get_ylim(), lambda value: f"{value:g}")
    ax.set_xticks(range(len(stages)), stages, rotation=30 if len(stages) > 5 else 0)
    ax.tick_params(which="both", labelsize=8)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)
