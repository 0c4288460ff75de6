"""Facts that are fitted to a finished net, such as a temperature: stored in the file of its weights, in its spec."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cnnbench.data.model_spec import ModelSpec
from cnnbench.utils.errors import UserError
from cnnbench.utils.named_files import check_output, output
from cnnbench.weights import checkpoint, foreign, sources
from cnnbench.weights.sources import METADATA, Weights
from cnnbench.weights.tensors import weights_in


def place(weights: Weights, key: str | None) -> Path:
    """File in which facts on these weights can be stored. UserError where there is none. key: weights_key."""
    path = Path(weights.source)
    if weights.spec is None or not path.is_file():
        raise UserError(
            f"what is fitted is stored in the file of the weights, and {weights.source} is no such file of cnnbench's\n"
            "make one with cnnbench export weights=… format=safetensors out=FILE, and go on with weights=FILE"
        )
    if key is not None:
        raise UserError(f"weights_key={key}: what is fitted is stored for the weights that the file is used with, so "
                        "leave it out")  # fmt: skip
    return check_output("weights", path)


def store(weights: Weights, facts: dict[str, Any]) -> None:
    """Add facts to the spec in the file of these weights, which is replaced as a whole.

    UserError where it holds other weights by now. UserError or RunError where it cannot be written; it is then as it
    was.
    """
    path = Path(weights.source).resolve()
    content = checkpoint.read(path)
    state = weights_in(content, path).state
    if state.keys() != weights.state.keys() or not all(torch.equal(state[name], weights.state[name]) for name in state):
        raise UserError(f"{path} holds other weights by now: nothing was stored")
    assert weights.spec is not None
    spec = replace(weights.spec, extra={**weights.spec.extra, **facts})
    if foreign.is_safetensors(path):
        _store_safetensors(path, weights, spec)
    else:
        ours = checkpoint.checked(content, path)
        checkpoint.save(path, {**ours, "format": checkpoint.FORMAT, "spec": spec.as_dict()})


def _store_safetensors(path: Path, weights: Weights, spec: ModelSpec) -> None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()[METADATA])
    more = {key: value for key, value in about.items() if key not in ("spec", "inference")}
    with output("weights", path) as new:
        sources.save_safetensors(new, weights.state, spec, **more)
