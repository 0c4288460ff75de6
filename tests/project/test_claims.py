"""conf/claims and docs/claims: every claim has a command that runs, and no number of the docs is without its runs."""

import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnnbench.config.sections import conf_dir
from cnnbench.reporting.claims import evidence, numbers
from cnnbench.reporting.claims.claim import Best, Count, claims_dir, names, read_claims
from tests.helpers.paths import ROOT

CLAIMS = {claim.name: claim for claim in read_claims()}


def test_every_file_is_in_the_order_once() -> None:
    assert sorted(names()) == sorted(file.stem for file in claims_dir().glob("*.yaml"))
    slides = [claim.slide for claim in CLAIMS.values()]
    assert len(set(slides)) == 1 + sum(a != b for a, b in pairwise(slides)), "slides in one piece"


@pytest.mark.parametrize(
    "name", [name for name, claim in CLAIMS.items() if not isinstance(claim.measure, Count | Best)]
)
def test_a_claim_that_runs_says_how_and_what_it_can_show(name: str) -> None:
    claim = CLAIMS[name]
    assert claim.design is not None and claim.design.seeds >= (1 if "weights=zoo:" in claim.command else 2)
    experiment = re.search(r"experiment=(\w+)", claim.command)
    assert experiment or re.match(r"cnnbench visualize (-m )?what=", claim.command)
    needs = (conf_dir() / "experiment" / f"{experiment[1]}.yaml").read_text() if experiment else ""
    assert claim.needs == ("CIFAR-10" if "Needs: CIFAR-10" in needs or "data=cifar10" in claim.command else "")


def test_each_cell_of_the_2x2_is_judged_by_all_strategies_on_all_subsets_that_were_kept() -> None:
    cells = [claim for claim in CLAIMS.values() if isinstance(claim.measure, Best)]
    judged = [(run.level, run.settings["amount"], run.seed) for claim in cells for run in evidence.read_kept(claim)]
    assert len(cells) == 4 and len(judged) == len(set(judged)) == 48
    for claim in cells:
        assert isinstance(claim.measure, Best)
        assert sorted([*claim.measure.named, *claim.measure.others]) == ["deep_features", "full", "partial", "svm"]
        words = claim.command.partition(" --root ")[0].split()[2:]
        assert words == [*claim.measure.pairs, "--amounts", *map(str, claim.measure.amounts)]


def test_the_commands_of_all_claims_have_the_levels_that_are_compared() -> None:
    for claim in CLAIMS.values():
        if claim.command and not isinstance(claim.measure, Best):
            jobs = evidence.wanted(claim.commands[0])[1]
            assert {evidence.level_of(claim, job) for job in jobs} >= claim.levels.keys(), claim.name


@pytest.mark.parametrize("name", [path.name for path in sorted(evidence.kept_dir().iterdir()) if path.is_dir()])
def test_kept_runs_are_of_their_claim_and_complete(name: str) -> None:
    claim = CLAIMS[name]
    command, jobs = evidence.wanted(claim.commands[0])
    for run in evidence.read_kept(claim):
        job = next(job for job in jobs if evidence.is_same(job, run.settings))
        assert evidence.level_of(claim, job) == run.level and run.command.split()[1] == command
        assert re.fullmatch(r"[0-9a-f]{12}", run.commit or ""), "a commit without changes"
        if claim.commands[-1].split()[1] == "visualize":
            assert numbers.is_of(claim.commands[-1], run.command.splitlines()[-1])
        assert run.code and run.date and run.seed is not None
        if run.wrong is not None:
            assert 100 * np.mean(run.wrong) == pytest.approx(run.result["top1_error"], abs=1e-6)


def test_the_page_is_what_the_kept_runs_say(script: Any) -> None:
    assert script("claims").write(check=True) == 0, "run scripts/claims page"


def test_verdicts_in_other_pages_are_generated(script: Any) -> None:
    claims = script("claims")
    (open_one,) = [verdict for verdict in claims.verdicts() if verdict.claim.name == "overlapping_pooling"]
    text = "Before\n<!-- claim overlapping_pooling -->\n> an old number\nAfter\n"
    written = claims.quoting(text, [open_one])
    assert "an old number" not in written and claims.quoted(open_one) in written
    assert claims.quoting(written, [open_one]) == written
    for page in claims.QUOTING:
        marked = re.findall(r"<!-- claim (\w+) -->", page.read_text())
        assert len(marked) == len(set(marked)) and set(marked) <= CLAIMS.keys(), page.name


def test_every_table_of_results_says_whether_its_runs_are_kept_and_quotes_the_verdict_on_its_comparison() -> None:
    """Of a table without kept runs it says since which commit it stands there."""
    _, *sections = re.split(r"^## ", (ROOT / "docs/results.md").read_text(), flags=re.M)
    tables = 0
    for section in sections:
        _, *after = re.split(r"^\| -.*\n", section, flags=re.M)
        tables += len(after)
        for text in after:
            (line,) = re.findall(r"^Runs: (?:.+\n)+", text, flags=re.M)
            assert re.search(r"kept|counted", line), line
            assert "not kept" not in line or re.search(r"since `[0-9a-f]{7}` of 2026-", line), line
        made = re.findall(r"experiment=(\w+)|(what=lesions)", section)
        for name in {one or other for one, other in made}:
            of = [claim.name for claim in CLAIMS.values() if re.search(rf"{name}\b", claim.command)]
            quoted = set(re.findall(r"<!-- claim (\w+) -->", section))
            assert not of or quoted & set(of), (section.partition("\n")[0], of)
    assert tables >= 25


def test_a_line_for_each_run_of_the_line_before_it_is_run_as_one_sweep(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce, said = script("reproduce"), []
    monkeypatch.setattr(reproduce, "gather_runs", lambda roots: SimpleNamespace(runs=roots))
    runs = [(SimpleNamespace(path=path), {}) for path in ("a", "b")]
    monkeypatch.setattr(reproduce.evidence, "of_line", lambda line, gathered: runs)
    monkeypatch.setattr(reproduce, "cnnbench", lambda *args: said.append(" ".join(args)) or 0)
    claims = [CLAIMS["layer_left_out"], CLAIMS["cell_different_lot"]]
    reproduce.run_claims(claims, SimpleNamespace(root="gone", claim=None), [])
    assert said == ["train -m experiment=degradation model=plain20,resnet20 seed=0,1,2 run.root=gone",
                    "visualize -m what=lesions weights=a,b split=test run.root=gone", "report claims"]  # fmt: skip
