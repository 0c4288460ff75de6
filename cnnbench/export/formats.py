"""Exports a net to a file for other programs. The file is read back and compared before it gets its final name.

An exported net maps normalised float32 images (N, C, S, S), for any N, to logits (N, classes); one whose answer is a
picture takes images (N, C, H, W) of any height and width. A JSON file beside it describes the preprocessing and the
answer.
"""

import contextlib
import errno
import io
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from cnnbench import tasks
from cnnbench.config.sections import CropConfig, Resize
from cnnbench.data.geometry import Picture, as_tensor, resized
from cnnbench.data.model_spec import ModelSpec
from cnnbench.data.sources import read_image
from cnnbench.data.spectrogram import KEY as SOUND
from cnnbench.data.spectrogram import Spectrogram
from cnnbench.data.views import build_views
from cnnbench.models.embedding import EMBEDDING
from cnnbench.models.layers import BOXES, CLASS, Net
from cnnbench.runtime.device import Normalize, create_runtime
from cnnbench.tasks.base import Exported
from cnnbench.tasks.classification.metrics import answers
from cnnbench.tasks.classification.temperature import KEY, temperature, tempered
from cnnbench.utils.errors import RunError, UserError
from cnnbench.utils.files import write_json
from cnnbench.utils.named_files import output
from cnnbench.utils.text import printable
from cnnbench.weights import sources

NetFunction = Callable[[Tensor], Tensor]
"""An exported net, read from its file: normalised images to logits."""

TOLERANCE = 1e-4  # of the logits, absolute and relative
TRACED_OPSET = 17
INPUT, OUTPUT = "images", "logits"
SHAPED = ("torchscript", "exported_program")  # formats that hold the sizes of a net's answers for fixed
ONE_SIZE = (CLASS, EMBEDDING, BOXES)  # what nets answer with whose images have one size


@dataclass(frozen=True)
class ExportFormat:
    """File format: its suffix, its writer, its reader, the packages it needs."""

    suffix: str
    write: Callable[[Module, ModelSpec, Tensor, Path], object]
    read: Callable[[Path], NetFunction]
    needs: tuple[str, ...] = ()
    decodes: bool = False  # whether it can hold what a task does with the output (`Task.deployed`)
    keeps_spec: bool = False  # whether the file says the net's temperature; else its logits are divided by it


def export_net(model: Net, spec: ModelSpec, format: str, out: Path) -> tuple[float, int]:
    """Write the net and its preprocessing. Returns the largest difference between the logits of net and file, NaN where
    it finds nothing that could differ, and the bytes of the file.

    The net must be on the CPU and in eval mode. Raises RunError, and leaves no file, if the file computes something
    else than the net.
    """
    check_packages(format)
    if model.needs_targets and format in SHAPED:
        raise UserError(
            f"format={format} cannot hold {spec.model['name']}, which answers with as many boxes as it finds: "
            "use format=onnx, or safetensors for cnnbench itself"
        )
    batches = [sample_images(spec)] if model.answers in ONE_SIZE else sample_pictures(spec)
    deployed = tasks.find(spec.task).of(spec).deployed(model, spec) if FORMATS[format].decodes else None
    with output("out", preprocessing_file(out)) as beside, output("out", out) as file:
        with _quiet():
            net: Module = model if FORMATS[format].keeps_spec else tempered(model, spec)
            if deployed is not None:
                net, batches = deployed.net.eval(), [image[None] for image in batches[0]]
            FORMATS[format].write(net, spec, batches[0][:2], file)
            run, compare = FORMATS[format].read(file), compare_logits if model.answers == CLASS else compare_answers
            if deployed is not None:
                compare = partial(compare_deployed, deployed.difference)
            found = [compare(net, run, images) for images in batches]
            difference = max((one for one in found if one == one), default=math.nan)
        write_json(beside, described(model, spec, deployed and deployed.words, divided=net is not model))
        size = file.stat().st_size
    return difference, size


def described(model: Net, spec: ModelSpec, words: Exported | None, *, divided: bool) -> dict[str, Any]:
    """What a program without cnnbench needs to know of an exported net. words: where they are not the task's usual
    ones. divided: see `preprocessing`."""
    if model.answers not in (CLASS, EMBEDDING):
        return preprocessing_of_pictures(spec, words)
    found = preprocessing(spec, divided=divided)
    if model.answers == CLASS:
        return found
    said = tasks.find(spec.task).of(spec).exported(spec)
    answer = {"name": said.output, "shape": said.shape, "type": "float32"}
    steps = [*found["steps"][:-1], *said.steps]
    return {key: value for key, value in found.items() if key not in ("classes", "temperature")} | {
        "task": spec.task, "output": answer, "steps": steps}  # fmt: skip


def check_packages(format: str) -> None:
    """Raise UserError if a package that the format needs is not installed."""
    if missing := [name for name in FORMATS[format].needs if find_spec(name) is None]:
        raise UserError(f"format={format} needs {' and '.join(missing)}: pip install 'cnnbench[onnx]'")


@torch.no_grad()
def compare_logits(model: Module, run: NetFunction, images: Tensor) -> float:
    """Largest difference between the logits of the net and of the exported one, for all images and for one image.

    Raises RunError if they differ by more than TOLERANCE, or in the top-5 classes.
    """
    largest = 0.0
    for batch in (images, images[:1]):
        ours = model(batch)
        if not ours.isfinite().all():
            raise RunError("the net's own logits for photographs are not finite (NaN or infinity): nothing was written")
        theirs = run(batch)
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE):
            raise RunError("the exported net gives other logits than the net itself: nothing was written")
        # Classes whose logits differ by less than the tolerance may swap places.
        best, again = ours.gather(1, answers(ours)), ours.gather(1, answers(theirs))
        if not torch.allclose(best, again, rtol=2 * TOLERANCE, atol=2 * TOLERANCE):
            raise RunError("the exported net predicts other classes than the net itself: nothing was written")
        largest = max(largest, (ours - theirs).abs().max().item())
    return largest


@torch.no_grad()
def compare_answers(model: Module, run: NetFunction, images: Tensor) -> float:
    """Largest difference between the answers of the net and of the exported one. RunError for more than TOLERANCE."""
    ours = model(images)
    try:
        theirs = run(images)
    except AssertionError:  # torch.export held a size for fixed
        raise UserError("torch.export cannot leave the sides of this net's images free: use format=onnx") from None
    if not ours.isfinite().all():
        raise RunError("the net's own answers for photographs are not finite (NaN or infinity): nothing was written")
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE):
        raise RunError(f"the exported net gives other answers than the net itself for images of {images.shape[3]} x "
                       f"{images.shape[2]} pixels: nothing was written")  # fmt: skip
    return (ours - theirs).abs().max().item() if ours.numel() else math.nan


@torch.no_grad()
def compare_deployed(difference: Callable[[Tensor, Tensor], float], model: Module, run: NetFunction, image: Tensor
                     ) -> float:  # fmt: skip
    """The same for a net that answers with as many rows as it finds in an image."""
    return difference(model(image), run(image))


def sample_pictures(spec: ModelSpec) -> list[Tensor]:
    """Parts of two photographs at three sizes, each a batch, with the net's preprocessing: the first of two images."""
    device, side = create_runtime("cpu", "fp32", seed=None), spec.input.image_size
    photos = [as_tensor(_sample(name, spec.input.in_channels)) for name in ("china.jpg", "flower.jpg")]
    normalize = Normalize(device, spec.input.mean, spec.input.std)
    sizes = [(side, side + side // 4 // 8 * 8), (side + 8, side), (side, side)]
    parts = [torch.stack([resized(one, *size, "bilinear") for one in photos]) for size in sizes]
    first, *others = (normalize(part).contiguous() for part in parts)
    return [first, *(other[:1] for other in others)]


def sample_images(spec: ModelSpec) -> Tensor:
    """Ten crops of each of two photographs, with the net's preprocessing.

    The photographs come with scikit-learn: a temple in China and a flower.
    """
    crops = CropConfig(name="ten", resize=Resize.shorter, scales=None)
    size = spec.input.image_size
    ratio = min(spec.input.crop_ratio, 0.875, size / (size + 2))  # ten crops need a margin, even in the smallest image
    cut = build_views(crops, spec.input.image_size, ratio, spec.input.interpolation)
    pictures = [cut(_sample(name, spec.input.in_channels))[0] for name in ("china.jpg", "flower.jpg")]
    device = create_runtime("cpu", "fp32", seed=None)
    images: Tensor = Normalize(device, spec.input.mean, spec.input.std)(torch.cat(pictures))
    return images.contiguous()


def _sample(name: str, channels: int) -> Picture:
    spec = find_spec("sklearn")
    assert spec is not None and spec.origin is not None
    picture = read_image(Path(spec.origin).parent / "datasets" / "images" / name)
    return picture if channels == 3 else picture.convert("L")


def preprocessing_file(out: Path) -> Path:
    return out.with_suffix(".json")


def preprocessing(spec: ModelSpec, *, divided: bool = False) -> dict[str, Any]:
    """Preprocessing, input, output and classes, for programs without cnnbench. divided: whether the logits of the file
    are divided by the net's temperature."""
    size, channels = spec.input.image_size, spec.input.in_channels
    resize = round(size / spec.input.crop_ratio)
    by = "" if divided or KEY not in spec.extra else ", divided by the temperature,"
    return {
        "model": spec.model["name"],
        "input": {"name": INPUT, "shape": ["batch", channels, size, size], "type": "float32"},
        "output": {"name": OUTPUT, "shape": ["batch", len(spec.labels)], "type": "float32"},
        "steps": [
            *_first_steps(spec),
            f"resize the shorter side to {resize} pixels ({spec.input.interpolation}, antialiased)",
            f"crop the central {size} x {size} pixels",
            "divide by 255, subtract mean, divide by std, channel by channel; channels first",
            f"softmax of the logits{by} gives the probabilities of the classes",
        ],
        "temperature": temperature(spec) if by else 1.0,  # that is still to be applied
        "resize_shorter_side": resize,
        "interpolation": spec.input.interpolation,
        "crop": size,
        "mean": spec.input.mean,
        "std": spec.input.std,
        "classes": [printable(name) for name in spec.labels],
        **({"sound": spec.extra[SOUND]} if SOUND in spec.extra else {}),
    }


def _first_steps(spec: ModelSpec) -> list[str]:
    """From a file to a picture, in words."""
    channels = spec.input.in_channels
    if SOUND not in spec.extra:
        return [f"read as {'RGB' if channels == 3 else 'gray'}, turned upright as EXIF says"]
    known = Spectrogram.of(spec.extra[SOUND])
    return [*known.steps, "repeat it in three channels"] if channels == 3 and len(known.window) == 1 else known.steps


def preprocessing_of_pictures(spec: ModelSpec, words: Exported | None = None) -> dict[str, Any]:
    """The same for a net that takes images of any size and answers with a picture, and for one in a task's words."""
    said = words or tasks.find(spec.task).of(spec).exported(spec)
    shape = said.input or ["batch", spec.input.in_channels, "height", "width"]
    return {
        "model": spec.model["name"],
        "task": spec.task,
        "input": {"name": INPUT, "shape": shape, "type": "float32"},
        "output": {"name": said.output, "shape": said.shape, "type": "float32"},
        "steps": said.steps,
        "mean": spec.input.mean,
        "std": spec.input.std,
        "classes": [printable(name) for name in spec.labels],
    }


# The formats


def _output(spec: ModelSpec) -> str:
    task = tasks.find(spec.task)
    return OUTPUT if task.answers == CLASS else task.of(spec).exported(spec).output


def _free(spec: ModelSpec, images: Tensor) -> dict[int, Any]:
    """Dimensions of the images that the exported net leaves free: their number, unless it takes one; for a picture also
    its sides."""
    free: dict[int, Any] = {0: torch.export.Dim("batch")} if len(images) > 1 else {}
    if tasks.find(spec.task).answers not in ONE_SIZE:
        free |= dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    return free


def _write_onnx(model: Module, spec: ModelSpec, images: Tensor, path: Path) -> None:
    large = sum(value.nbytes for value in model.state_dict().values()) > 1.8e9  # a protobuf holds at most 2 GB
    if large:
        raise UserError("format=onnx holds at most 2 GB: use exported_program for this net")
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [_output(spec)]}
    if getattr(model, "traced", False):  # with as many rows as it finds
        torch.onnx.export(model, (images,), str(path), dynamo=False, opset_version=TRACED_OPSET,
                          dynamic_axes={names["output_names"][0]: {0: "boxes"}}, **names)  # fmt: skip
        return
    free = (_free(spec, images),)
    torch.onnx.export(model, (images,), str(path), dynamo=True, dynamic_shapes=free, external_data=False,
                      verbose=False, **names)  # fmt: skip


def _read_onnx(path: Path) -> NetFunction:
    import onnx
    import onnxruntime

    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])


def _write_torchscript(model: Module, spec: ModelSpec, images: Tensor, path: Path) -> None:
    buffer = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, images, check_trace=False), buffer)
    path.write_bytes(buffer.getbuffer())


def _read_torchscript(path: Path) -> NetFunction:
    with _quiet():
        run: NetFunction = torch.jit.load(str(path), map_location="cpu")
    return run


def _write_exported_program(model: Module, spec: ModelSpec, images: Tensor, path: Path) -> None:
    buffer = io.BytesIO()  # given a path, torch hides the error of a full disk
    try:
        program = torch.export.export(model, (images,), dynamic_shapes=(_free(spec, images),))
    except NotImplementedError:  # its solver gives up over the sides of some nets' maps
        raise UserError(
            f"torch.export cannot leave the sides of the images of {spec.model['name']} free: use onnx"
        ) from None
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())


def _read_exported_program(path: Path) -> NetFunction:
    run: NetFunction = torch.export.load(path).module()
    return run


def _write_safetensors(model: Module, spec: ModelSpec, images: Tensor, path: Path) -> None:
    from safetensors import SafetensorError

    try:
        sources.save_safetensors(path, model.state_dict(), spec)
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error).rpartition(": ")[2]) from None


def _read_safetensors(path: Path) -> NetFunction:
    return sources.build(sources.load(str(path)))


FORMATS = {
    "onnx": ExportFormat(".onnx", _write_onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime"), decodes=True),
    "torchscript": ExportFormat(".ts", _write_torchscript, _read_torchscript),
    "exported_program": ExportFormat(".pt2", _write_exported_program, _read_exported_program),
    "safetensors": ExportFormat(".safetensors", _write_safetensors, _read_safetensors, keeps_spec=True),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' output, and torch's warning that TorchScript is deprecated."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
