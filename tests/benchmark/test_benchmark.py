"""`cnnbench benchmark`: numbers that follow from each other, the search for the largest batch, mistakes."""

import csv
import ctypes
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnbench.benchmark import chart, measure, report
from cnnbench.benchmark.timing import LEAST, PARTS, TimedNet, Timing, time_training
from cnnbench.data import Batch
from cnnbench.runtime import batch_size, memory, stopwatch
from cnnbench.runtime.batch_size import Trial
from cnnbench.runtime.device import Runtime, create_runtime
from cnnbench.utils import system
from tests.helpers.boxes import write_voc
from tests.helpers.people import write_people
from tests.helpers.runs import Ran
from tests.helpers.sounds import tone_tree

QUICK = ("model=resnet8", "device=cpu", "seconds=0.05", "warmup=2", "batch_size=16")


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's peak, by a product that takes a 64th of the time: the usual ones are nearly all of a test's."""
    monkeypatch.setattr(Runtime, "matrix_side", 512)


def test_the_numbers_follow_from_each_other(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    ran = cnnbench("benchmark", *QUICK, "data=digits", "precisions=fp32,bf16", "compile=false", "format=json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    (net,) = result["nets"]
    assert (net["model"], net["data"], net["batch_size"], net["num_classes"]) == ("resnet8", "digits", 16, 10)
    assert [one["variant"] for one in net["variants"]] == ["fp32", "bf16"]
    for one in net["variants"]:
        assert one["train_images_per_second"] == pytest.approx(16 / (one["step_ms"] / 1000))
        parts = [one[f"{part}_ms"] for part in ("data", "forward", "backward", "optimizer")]
        assert all(part > 0 for part in parts)
        assert one["macs_per_second"] == pytest.approx(3 * net["macs"] * one["train_images_per_second"])
        assert one["peak_share"] == pytest.approx(one["macs_per_second"] / one["peak_macs_per_second"])
        assert one["memory_bytes"] > 50e6
        assert one["steps_timed"] >= LEAST
    folder = tmp_path / result["run_dir"]
    assert json.loads((folder / "result.json").read_text()) == result
    rows = list(csv.DictReader((folder / "benchmark.csv").read_text().splitlines()))
    assert [float(row["step_ms"]) for row in rows] == [one["step_ms"] for one in net["variants"]]
    assert (folder / "benchmark.md").read_text().startswith("| model | variant | batch |")
    with Image.open(folder / "benchmark.png") as image:
        assert image.width > 1000


def test_several_nets_are_one_table(cnnbench: Callable[..., Ran]) -> None:
    args = ("model=resnet8,nin_cifar", *QUICK[1:-1], "batch_size=4", "data.image_size=32", "precisions=fp32",
            "compile=false")  # fmt: skip
    ran = cnnbench("benchmark", *args)
    assert ran.code == 0, ran.err
    head, *rows = ran.out.splitlines()
    assert head.split()[:3] == ["model", "variant", "batch"]
    assert [row.split()[:3] for row in rows[:2]] == [["resnet8", "fp32", "4"], ["nin_cifar", "fp32", "4"]]
    assert ran.out.count("-bound: the ") == 2
    assert "resnet8, fp32: " in ran.err  # progress


def test_what_is_timed_changes_no_weight() -> None:
    setting = _setting()
    before = [parameter.detach().clone() for parameter in setting.model.parameters()]
    steps = time_training(setting, setting.model, _batches(), warmup=2, seconds=0.0)
    assert steps.whole.repeats == LEAST
    assert all(torch.equal(a, b) for a, b in zip(before, setting.model.parameters(), strict=True))


class Clock:
    """It stands still but for what sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_each_part_is_where_its_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow loader, forward or backward pass is seen in its own column, and in no other."""
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)

    class SlowBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, logits: torch.Tensor) -> torch.Tensor:
            return logits.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            clock.sleep(0.08)
            return grad

    setting = _setting()

    def slow_batches() -> Iterator[Batch]:
        for batch in _batches():
            clock.sleep(0.08)
            yield batch

    def slow_net(images: torch.Tensor) -> torch.Tensor:
        clock.sleep(0.08)
        return setting.model(images)

    cases = {
        "data": (setting.model, slow_batches()),
        "forward": (slow_net, _batches()),
        "backward": (lambda images: SlowBackward.apply(setting.model(images)), _batches()),
    }
    for part, (net, batches) in cases.items():
        steps = time_training(setting, net, batches, warmup=2, seconds=0.0)
        expected = {name: 0.08 if name == part else 0.0 for name in PARTS}
        assert {name: timing.median for name, timing in steps.parts.items()} == pytest.approx(expected)
        assert steps.whole.median == pytest.approx(0.08)
        assert steps.net == pytest.approx(0.0 if part == "data" else 0.08)


def _setting() -> TimedNet:
    from cnnbench import models
    from cnnbench.config import commands, compose, parsing

    cfg = parsing.parse(commands.SCHEMAS["benchmark"], compose.compose("benchmark", ["model=resnet8"]))
    device = create_runtime("cpu", "fp32", seed=0)
    model = models.build("resnet8", num_classes=10)
    return TimedNet(model=model, optim=cfg.optim, device=device, mean=[0.5] * 3, std=[0.25] * 3)


def _batches() -> Iterator[Batch]:
    return measure.repeated_batch(4, (3, 32, 32), 10)


def test_timings_are_medians_with_their_spread() -> None:
    timing = Timing.of([0.1, 0.2, 0.3, 0.4, 10.0])
    assert (timing.median, timing.spread, timing.repeats) == (0.3, pytest.approx(0.1), 5)
    assert timing.rate(30).median == pytest.approx(100)
    assert timing.rate(30).spread == pytest.approx(100 / 3)


@pytest.mark.parametrize("limit", [999, 1000, 1234, 2000, 7777, 100_000])
def test_the_search_ends_at_the_largest_that_fits(limit: float) -> None:
    """A made-up machine: 500 bytes and 7 for each image. No step is ever begun that would take more than there is."""
    asked: list[int] = []

    def attempt(size: int) -> Trial:
        asked.append(size)
        assert size == batch_size.SMALLEST or 500 + 7 * size <= limit
        return Trial(size, 500 + 7 * size, 1.0)

    trials = batch_size.search_largest_batch(attempt, limit, base=500, most=5000)
    largest = min((limit - 500) // 7, 5000)
    found = trials[-1].batch_size
    assert found <= largest
    assert found >= 0.8 * largest - 2 or 500 + 7 * found >= 0.85 * limit  # an eighth, and the caution of 5 %
    assert len(asked) < 30


def test_a_device_may_say_that_its_memory_is_out() -> None:
    def attempt(size: int) -> Trial:
        if size > 100:
            raise torch.OutOfMemoryError
        return Trial(size, size, 1.0)

    trials = batch_size.search_largest_batch(attempt, limit=1e9, base=0)
    assert 90 <= trials[-1].batch_size <= 100
    assert batch_size.search_largest_batch(lambda size: Trial(size, 10**6, 1.0), limit=1000, base=0) == []


def test_a_real_search_stays_within_the_memory_it_is_given(cnnbench: Callable[..., Ran]) -> None:
    with suppress(AttributeError):  # what other tests have freed would hold the largest batches for nothing
        ctypes.CDLL(None).malloc_trim(0)
    memory.reset_peak_memory(torch.device("cpu"))
    limit = (system.process_peak_memory() + 100e6) / 1e9
    args = [arg for arg in QUICK if "batch_size" not in arg]
    ran = cnnbench("benchmark", *args, "batch_size=search", f"memory={limit}", "precisions=fp32", "compile=false",
                   "format=json")  # fmt: skip
    assert ran.code == 0, ran.err
    (net,) = json.loads(ran.out)["nets"]
    assert net["search"][-1]["batch_size"] == net["batch_size"] >= 8
    assert all(trial["memory"] <= 1e9 * limit for trial in net["search"])


def variant(name: str, step: float, compile_seconds: float | None = None, error: str | None = None) -> dict:
    filled = dict.fromkeys(measure.variant_keys(), 1.0)
    return {**filled, "variant": name, "precision": "bf16", "compiled": compile_seconds is not None or bool(error),
            "step_ms": step, "net_images_per_second": 1e5 / step, "compile_seconds": compile_seconds, "error": error,
            "macs_per_second": 1e9, "peak_macs_per_second": 2e9, "peak_share": 0.5}  # fmt: skip


def test_what_compiling_costs_gains_and_when_it_has_paid() -> None:
    variants = [variant("bf16", 100.0), variant("bf16 compiled", 80.0, compile_seconds=40.0)]
    measure.add_break_even(variants)
    assert (variants[1]["gain_ms"], variants[1]["break_even_steps"]) == (20.0, 2000)
    assert "saves 20 ms per step and pays off after 2,000 steps" in report.compile_note(variants[1])
    slower = [variant("bf16", 100.0), variant("bf16 compiled", 110.0, compile_seconds=40.0)]
    measure.add_break_even(slower)
    assert slower[1]["break_even_steps"] is None
    assert "saves nothing" in report.compile_note(slower[1])


def test_the_verdict_names_what_waits() -> None:
    variants = [variant("bf16", 100.0), variant("bf16 compiled", 50.0, compile_seconds=1.0)]
    assert measure.bottleneck(900, variants) == (
        "data-bound: the loader gives 900 images/s, the net could take 2 k (bf16 compiled)"
    )
    assert measure.bottleneck(63_000, variants).startswith("compute-bound: the net takes 2 k images/s (bf16 compiled)")


def test_a_net_that_cannot_be_compiled_is_told_and_the_rest_shown(
    cnnbench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no C++ compiler\nmore")

    monkeypatch.setattr(measure, "Compiled", broken)
    ran = cnnbench("benchmark", *QUICK, "data=digits", "precisions=fp32")
    assert ran.code == 0
    assert "cannot be compiled here: no C++ compiler" in ran.out
    assert "fp32 compiled" in ran.out


def test_the_chart_has_a_bar_for_each_variant(tmp_path: Path) -> None:
    nets = [{"model": name, "batch_size": 128, "data": "cifar10", "variants": [
        variant("fp32", 100.0), variant("bf16", 50.0), variant("bf16 compiled", 1.0, error="none")]}
        for name in ("resnet20", "a_net_with_a_name_that_is_long")]  # fmt: skip
    figure = chart.draw_benchmark(nets, tmp_path / "chart.png", "a machine")
    left, right = figure.axes
    assert len(left.patches) == 2 * 4  # two speeds for each variant that was measured
    assert len(right.patches) == 4 * 4
    hatches = {patch.get_hatch() for patch in right.patches}
    assert len(hatches) == 4


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["batch_size=many"], "batch_size=many: give a whole number or search"),
        (["precisions=fp33"], "unknown precision 'fp33'. Did you mean 'fp32'?"),
        (["precisions=[]"], "precisions=[] leaves nothing to measure"),
        (["precisions=fp16"], "precision=fp16 needs a GPU"),
        (["memory=2"], "memory= bounds the search"),
        (["device=cuda:7"], "device=cuda:7 is not available"),
        (["model.num_classes=3"], "num_classes"),
        (["data=digits", "batch_size=5000"], "batch_size=5000 is more than the 1,438 training images of digits"),
        (["batch_size=100000000"], "batch_size=search finds the largest that fits"),
        (["batch_size=search", "memory=0.001"], "does not train in 0.00 GB, not even with 2 images"),
        (["data.image_size=1", "model=alexnet"], "needs images of at least"),
        (["warmup=0"], "warmup=0 is out of range"),
        (["epochs=3"], "unknown key 'epochs'"),
        (["run.dir=/proc/nothing"], "cannot write to /proc/nothing"),
    ],
)
def test_mistakes_are_one_sentence(cnnbench: Callable[..., Ran], args: list[str], text: str) -> None:
    given = {arg.partition("=")[0] for arg in args}
    base = [arg for arg in QUICK if arg.partition("=")[0] not in given]
    ran = cnnbench("benchmark", *base, *args)
    assert (ran.code, ran.out) == (2, "")
    assert text in ran.err
    assert len(ran.err.splitlines()) <= 4
    assert "Traceback" not in ran.err


def test_data_without_classes_are_timed_or_refused(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    """A net for faces tells people apart while it trains; sounds are images of one channel; boxes are neither."""
    write_people(tmp_path / "people", train=4)
    tone_tree(tmp_path / "tones/train", 4)
    tone_tree(tmp_path / "tones/val", 2, seed=1)
    write_voc(tmp_path / "voc")
    quick = ("benchmark", *QUICK[:-1], "batch_size=4", "precisions=fp32", "compile=false", "data.image_size=24")
    for keys, classes in ((("data=people", "data.root=people"), 3), (("data=sounds", "data.root=tones"), 3)):
        ran = cnnbench(*quick, *keys, "format=json")
        assert ran.code == 0 and json.loads(ran.out)["nets"][0]["num_classes"] == classes, ran.err
    assert cnnbench(*quick, "task=verification", "data.root=people").code == 0
    ran = cnnbench(*quick, "task=detection", "data=voc", "data.root=voc")
    assert ran.code == 2 and "and data=voc is for detection: see images_per_second of its training" in ran.err
    assert len(ran.err.splitlines()) == 1


def test_the_peak_of_memory_begins_anew() -> None:
    big = torch.ones(60_000_000)
    high = system.process_peak_memory()
    del big
    system.reset_process_peak()
    assert system.process_peak_memory() <= high
    big = torch.ones(30_000_000)
    assert system.process_peak_memory() > 100e6
    del big
