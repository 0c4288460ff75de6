"""Claims: read from YAML, counted from nets, and judged by runs that are planted with a known outcome."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnnbench.config.sections import Format
from cnnbench.reporting.claims import code, counts, evidence, numbers, table
from cnnbench.reporting.claims.claim import Best, Claim, Count, Design, Order, Value, read, read_claims
from cnnbench.reporting.claims.evidence import Evidence, read_kept
from cnnbench.reporting.claims.text import verdicts_text
from cnnbench.reporting.claims.verdict import Outcome, judge
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text, read_json

PLAN = Design(smallest=1.0, images=2000, seeds=3, minutes=10, disagreement=0.2, spread=0.5)


def claim(measure: Any = None, design: Design | None = PLAN) -> Claim:
    measure = measure or Order(levels={"good": {"a": 1}, "bad": {"a": 2}})
    return Claim(name="test", slide="Slide", lecture="Words", says="good errs less", source="Paper", measure=measure,
                 command="cnnbench train", design=design)  # fmt: skip


def planted(
    level: str, error: float, seeds: int = 3, *, images: str = "same", luck: float = 0.0, **result: Any
) -> list[Evidence]:
    """Runs with so many percent of 2,000 images wrong, the hard ones first."""
    rng, runs = np.random.default_rng(len(level)), []
    for seed in range(seeds):
        share = error + luck * (seed - (seeds - 1) / 2)
        wrong = np.arange(2000) < 20 * share
        wrong ^= rng.random(2000) < 0.02  # each run has errors of its own
        runs.append(Evidence(claim="test", level=level, seed=seed, settings={}, command="", date="2026-01-01",
                             commit="abc", wrong=wrong, images=images,
                             result={"top1_error": 100 * float(wrong.mean()), "n": 2000, **result}))  # fmt: skip
    return runs


@pytest.mark.parametrize(
    ("good", "bad", "luck", "outcome"),
    [
        (20.0, 26.0, 0.2, Outcome.holds),
        (26.0, 20.0, 0.2, Outcome.fails),
        (20.0, 20.0, 0.0, Outcome.fails),  # closer to 0 than the smallest difference of interest
        (20.0, 22.0, 4.0, Outcome.open),
    ],
)
def test_three_outcomes(good: float, bad: float, luck: float, outcome: Outcome) -> None:
    runs = planted("good", good, luck=luck) + planted("bad", bad, luck=luck)
    verdict = judge(claim(), runs)
    assert verdict.outcome is outcome
    assert verdict.deciding is not None and verdict.deciding.interval is not None
    low, high = verdict.deciding.interval
    assert low < verdict.deciding.effect < high
    assert (verdict.n, verdict.runs, verdict.deciding.seeds) == (2000, 6, (3, 3))
    assert bool(verdict.needs) == (outcome is Outcome.open)


def test_no_worse_holds_within_its_margin() -> None:
    runs = planted("good", 20.2) + planted("bad", 20.0)
    no_worse = Order(levels={"good": {}, "bad": {}}, by=-1.5)
    assert judge(claim(no_worse), runs).outcome is Outcome.holds
    assert judge(claim(no_worse), planted("good", 25.0) + planted("bad", 20.0)).outcome is Outcome.fails


def test_an_order_holds_where_each_step_does_and_names_the_weakest() -> None:
    three = Order(levels={"first": {}, "second": {}, "third": {}})
    runs = planted("first", 10.0) + planted("second", 20.0) + planted("third", 24.0)
    verdict = judge(claim(three), runs)
    assert verdict.outcome is Outcome.holds
    assert verdict.deciding is not None and (verdict.deciding.better, verdict.deciding.worse) == ("second", "third")
    swapped = planted("first", 10.0) + planted("second", 24.0) + planted("third", 20.0)
    assert judge(claim(three), swapped).outcome is Outcome.fails


def test_what_is_missing_leaves_a_claim_open() -> None:
    """No runs, runs of one side, one seed, other images: and it is said what would decide it."""
    nothing = judge(claim(), [])
    assert (nothing.outcome, nothing.reason) == (Outcome.open, "no runs")
    assert "seeds of each net on 2,000 images" in nothing.needs and "planned spread" in nothing.needs
    assert judge(claim(), planted("good", 20.0)).reason == "no runs of bad"
    one = judge(claim(), planted("good", 10.0, 1) + planted("bad", 30.0, 1))
    assert (one.outcome, one.reason) == (Outcome.open, "one seed")
    unpaired = judge(claim(), planted("good", 10.0) + planted("bad", 30.0, images="others"))
    assert unpaired.outcome is Outcome.holds and unpaired.steps[0].disagreement is None  # by Welch's t over seeds
    seen = judge(claim(), planted("good", 20.0, luck=4.0) + planted("bad", 22.0, luck=4.0))
    assert "the spread that was seen" in seen.needs
    enough = judge(claim(), planted("good", 20.0, 5) + planted("bad", 20.4, 5))
    assert enough.outcome is Outcome.open and enough.needs.startswith("more seeds: these show a difference of 1")


def test_a_metric_without_answers_and_a_value_with_a_bound() -> None:
    losses = [*planted("good", 20.0, loss=1.0), *planted("bad", 20.0, loss=2.0)]
    for number, run in enumerate(losses):
        run.result["loss"] += number / 100
    verdict = judge(claim(Order(levels={"good": {}, "bad": {}}, metric="loss")), losses)
    assert verdict.outcome is Outcome.holds and verdict.deciding is not None and 0.9 < verdict.deciding.effect < 1.1
    runs = planted("", 20.0, luck=0.2)
    assert judge(claim(Value(at_most=25.0)), runs).outcome is Outcome.holds
    assert judge(claim(Value(at_most=15.0)), runs).outcome is Outcome.fails
    assert judge(claim(Value(at_most=runs[1].result["top1_error"])), runs).outcome is Outcome.open
    assert judge(claim(Value(at_least=15.0)), runs).outcome is Outcome.holds


def test_what_is_claimed_of_these_very_images_varies_with_the_seeds_alone() -> None:
    """With 2,000 images an error of 20 % is uncertain by some 1.8 points, and the three seeds differ by less."""
    runs = planted("", 20.0, luck=0.1)
    for number, run in enumerate(runs):
        run.result.update(top1_error=20.0 + 0.1 * number, device="a card")
    near, of_these = Value(at_most=20.6), Value(at_most=20.6, these_images=True)
    assert judge(claim(near), runs).outcome is Outcome.open
    verdict = judge(claim(of_these), runs)
    assert verdict.outcome is Outcome.holds and verdict.deciding is not None
    assert verdict.deciding.interval == pytest.approx((0.5 - 0.2484, 0.5 + 0.2484), abs=1e-3)  # Student's t, 2 degrees
    text = " ".join(table.details(verdict))
    assert "95 %, over seeds alone: +0.25 to +0.75" in text and "on a card" in text


def test_counts_are_those_of_the_nets() -> None:
    """Against the facts of the papers, which other tests hold too."""
    assert counts.counted(Count(of="model=alexnet")) == 60_965_224
    assert counts.counted(Count(of="model=alexnet", what="neurons", kind="conv")) == 650_080
    assert counts.counted(Count(of="model=alexnet", what="macs", kind="conv", over={"kind": "conv"})) == 1
    share = Count(of="model=alexnet", what="weights", kind="fc", over={"kind": None}, said=0.95)
    assert counts.counted(share) == pytest.approx(58_621_952 / 60_954_656)
    assert counts.counted(Count(of="model=googlenet", what="modules", layer="inception*")) == 9
    for count, holds in ((Count(of="", said=100, within=0.02), True), (Count(of="", said=90, within=0.02), False),
                         (Count(of="", between=(90, 110)), True), (Count(of="", between=(1, 2)), False)):  # fmt: skip
        assert counts.holds(count, 101) is holds
    with pytest.raises(UserError, match="divides by what is 0"):
        counts.counted(Count(of="model=alexnet", over={"layer": "nothing"}))


def test_a_claims_file_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    good = "slide: a\nlecture: b\nsays: c\nsource: d\n"
    file.write_text(f"{good}count: {{of: model=alexnet, said: 5}}\n")
    assert read(file).measure == Count(of="model=alexnet", said=5)
    for text, error in ((good, "one of order, value, count"), (f"{good}count: {{wrong: 1}}\n", "unknown key wrong"),
                        ("count: {of: x}\n", "slide is missing|lecture is missing")):  # fmt: skip
        file.write_text(text)
        with pytest.raises(UserError, match=error):
            read(file)
    with pytest.raises(UserError, match="Did you mean 'shortcuts'"):
        read_claims("shortcut")


def test_kept_evidence_says_what_the_run_said(tmp_path: Path) -> None:
    (one, *_) = planted("Not overlapping", 20.0)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / one.file_name).write_text(json_text(one.data()))
    assert one.file_name == "not-overlapping-0.json"
    (back,) = evidence.read_kept(claim(), tmp_path)
    assert (back.wrong == one.wrong).all() and back.wrong is not None
    assert 100 * back.wrong.mean() == pytest.approx(back.result["top1_error"])
    assert back.data() == one.data() == read_json(tmp_path / "test" / one.file_name)


def test_a_digest_looks_at_code_alone() -> None:
    text = '"""Doc."""\n\nx = 1  # why\n\n\ndef f():\n    """Doc."""\n    return "# no comment"\n'
    other = '"""Other."""\nx = 1\ndef f():\n    """Two\n    lines."""\n\n    return "# no comment"  # here\n'
    assert code.digest(text) == code.digest(other)
    assert code.parts(f"{text}def draw():\n    pass\n") == code.parts(text)
    assert code.parts(text) == ["x = 1", 'def f():\n    return "# no comment"']
    table = 'from a import b\nNETS = {\n    "one": 1,\n    "two": 2,\n}\n'
    assert code.parts(table) == ['    "one": 1,', '    "two": 2,']
    assert code.digest(text) != code.digest(text.replace("x = 1", "x = 2"))
    known = code.digests(code.files("cnnbench train", "resnet8", "digits", "classification"))
    assert {"models/resnet.py", "models/layers.py", "training/loop.py", "data/augment.py"} <= known.keys()
    assert code.changed(known) == []
    assert code.changed({**known, "training/loop.py": "0", "gone.py": "1"}) == ["training/loop.py", "gone.py"]
    shorter = {name: value.partition(" ")[2] for name, value in known.items()}
    assert code.changed(shorter) == [], "what is added to a file changes nothing"


def test_the_table_does_not_hide_older_code() -> None:
    runs = planted("good", 10.0) + planted("bad", 20.0)
    old = [Evidence(**{**vars(run), "code": {"training/loop.py": "another"}}) for run in runs]
    verdict = judge(claim(), old)
    assert table.row(verdict)["verdict"] == "holds; measured on older code"
    assert any("training/loop.py" in part for part in table.details(verdict))
    assert table.row(judge(claim(), runs))["verdict"] == "holds"
    for format in (Format.markdown, Format.csv, Format.json):
        assert "older code" in table.render_verdicts([verdict, verdict], format)
    assert "older code" in verdicts_text([verdict, verdict])


def test_a_terminal_has_room_for_all_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    claims = read_claims(None)
    verdicts = [judge(one, read_kept(one)) for one in claims]
    text = verdicts_text(verdicts)
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"  {one.name}: " in text for one in claims)
    assert text.count("\n    -> ") == len(claims)
    alone = verdicts_text(verdicts[:1])
    assert max(map(len, alone.splitlines())) <= 80 and claims[0].lecture.split()[0] in alone


def test_the_command_judges_the_runs_that_it_is_given(
    cnnbench: Callable[..., Any], no_pictures: None, tmp_path: Path
) -> None:
    """Runs with the settings of a claim's command count for it, others do not and are named."""
    small = ("model=resnet8", "data.image_size=8", "data.fraction=0.1", "epochs=1", "seed=4")
    assert cnnbench("train", *small).code == 0
    said = cnnbench("report", "claims", "outputs", "claim=dropout")
    assert said.code == 0 and "cannot be decided here; no runs" in said.out.replace("\n", " ")
    assert "1 run of no claim's command" in said.err
    assert cnnbench("report", "claims", "outputs", "claim=dropot").code == 2
    assert cnnbench("report", "claims", "out=x.exe").code == 2


def test_a_run_is_found_by_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    (dropout,) = read_claims("dropout")
    command, jobs = evidence.wanted(dropout.command)
    assert (command, len(jobs)) == ("train", 2)
    assert [evidence.level_of(dropout, job) for job in jobs] == ["dropout", "none"]
    with_new_key = {key: value for key, value in jobs[0].items() if key != "stochastic_depth"}
    assert evidence.is_same(jobs[0], with_new_key), "a run from before there was this key"
    assert not evidence.is_same(jobs[0], {**jobs[0], "epochs": 3})


@pytest.mark.parametrize("facts", [{}, {"date": "", "commit": "", "model": "a", "data": "b", "seed": 0, "lesions": 1}])
def test_numbers_of_another_making_are_named(tmp_path: Path, facts: dict[str, Any]) -> None:
    (tmp_path / "lesions.json").write_text(json_text({"command": "cnnbench visualize", **facts}))
    with pytest.raises(UserError, match=r"lesions\.json is not as visualize writes it \(\w+Error: .*\): draw it anew"):
        numbers.read(tmp_path)


def test_lesions_and_signals_are_evidence_in_numbers(tmp_path: Path) -> None:
    """Blocks that change the shape do not count, and a measurement of another command is none of a claim's."""
    cut = [{"block": str(number), "change": "left out", "keeps_shape": number < 2, "error": error,
            "low": error - 9.0, "high": error - 1.0} for number, error in enumerate((8.0, 30.0, 99.0))]  # fmt: skip
    facts = {"command": "cnnbench visualize what=lesions weights=zoo:a seed=3 data.root=x", "n": 50, "split": "test",
             "precision": "fp32", "top1_error": 4.0, "lesions": cut, "date": "2026-01-01", "commit": "abc",
             "model": "a", "data": "digits", "seed": 3}  # fmt: skip
    (tmp_path / "lesions.json").write_text(json_text(facts))
    ((_, found),) = numbers.read(tmp_path)
    assert (found["left_out"], found["left_out_worst"], found["left_out_worst_interval"]) == (15.0, 26.0, [21.0, 29.0])
    assert "swapped" not in found and numbers.signals({"arrives": {"as it begins": 0.01}, "batch_size": 8}) == {
        "gradient_lost": 2.0, "batch_size": 8}  # fmt: skip
    for line, of in (("cnnbench visualize weights=zoo:a what=lesions", True),
                     ("cnnbench visualize what=lesions", False),
                     ("cnnbench visualize -m what=lesions weights=zoo:a,zoo:b", True),
                     ("cnnbench visualize what=lesions weights=RUN", True)):  # fmt: skip
        assert numbers.is_of(line, facts["command"]) is of
    worst = claim(Value(metric="left_out_worst", at_most=5.0), replace(PLAN, seeds=1))
    (one,) = planted("", 20.0, 1, **found)
    verdict = judge(worst, [one])
    assert verdict.outcome is Outcome.fails and verdict.deciding is not None
    assert (verdict.deciding.effect, verdict.deciding.interval) == (-21.0, (-24.0, -16.0))


def test_a_measurement_belongs_to_the_run_that_its_claim_trains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (cut,) = read_claims("layer_left_out")
    (job, *_) = [job for job in evidence.wanted(cut.commands[0])[1] if job["model.name"] == "plain20"]
    run = SimpleNamespace(path=tmp_path / "run", settings={**job, "seed": 2, "task": "classification"}, command="train",
                          overrides=["model=plain20", "seed=2", "run.root=x"], result={"commit": "a"})  # fmt: skip
    facts = {"command": "cnnbench visualize what=lesions weights=run split=test", "date": "2026-01-01", "commit": "a",
             "model": "plain20", "data": "digits", "seed": 0, "weights": f"{tmp_path}/run/last.pt"}  # fmt: skip
    monkeypatch.setattr(numbers, "read", lambda page: [(facts, {"left_out": 1.0})])
    (one,) = evidence.find(cut, [run], [tmp_path])
    assert (one.level, one.seed, one.commit, one.result) == ("plain", 2, "a", {"left_out": 1.0})
    assert one.command.splitlines() == ["cnnbench train model=plain20 seed=2",
                                        "cnnbench visualize what=lesions weights=RUN split=test"]  # fmt: skip
    assert evidence.find(cut, [], [tmp_path]) == [], "of another net"
    facts["commit"] = "b"
    assert evidence.find(cut, [run], [tmp_path])[0].commit == "a and b"


def test_the_best_strategy_is_judged_on_subsets_drawn_again() -> None:
    """Each pair counts alike, however many amounts it has; a strategy that one pair speaks against leaves it open."""

    def subsets(pair: str, amount: int, **errors: float) -> list[Evidence]:
        found = [{name: error + seed / 10 for name, error in errors.items()} for seed in (0, 1)]
        return [Evidence(claim="test", level=pair, seed=seed, settings={"amount": amount}, command="", date="",
                         commit="a b", result={**found[seed], "n": 4000}) for seed in (0, 1)]  # fmt: skip

    runs = [*subsets("p", 5, svm=10, full=20), *subsets("p", 20, svm=10, full=40), *subsets("q", 5, svm=20, full=30)]
    best = Best(named=["svm"], others=["full"], of="", pairs=["p", "q"], amounts=[5, 20], by=-1.0)
    verdict = judge(claim(best, None), runs)
    assert verdict.outcome is Outcome.holds and verdict.deciding is not None and verdict.commits == ("a", "b")
    assert verdict.deciding.effect == pytest.approx(15.0) and verdict.deciding.better_in == (2, 2)
    assert "2 of 2 pairs. 6 subsets" in " ".join(table.details(verdict))
    other_way = Best(named=["full"], others=["svm"], of="", pairs=["p", "q"], amounts=[5, 20], by=-1.0)
    assert judge(claim(other_way, None), runs).outcome is Outcome.fails
    near = [*subsets("p", 5, svm=10, full=9), *subsets("q", 5, svm=20, full=19)]
    undecided = judge(claim(best, None), near)
    assert undecided.outcome is Outcome.open and "times as many subsets" in undecided.needs
    assert judge(claim(best, None), subsets("p", 5, svm=1, full=2)).reason == "no runs of q"
