"""Keep the runs that test the lecture's claims, and write the page that shows what they say.

scripts/claims keep DIR ...   the finished runs below DIR that have the settings of a claim's command, each as a small
                              file in docs/claims/CLAIM: its numbers, which images it got wrong, and digests of the
                              source files that it ran with, as its commit has them
scripts/claims page           docs/claims.md, and the verdicts in docs/tutorial.md and docs/results.md; --check: exit
                              code 1 where they differ
"""

import argparse
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from cnnbench.reporting.claims import code, evidence, table
from cnnbench.reporting.claims.claim import Best, Claim, read_claims
from cnnbench.reporting.claims.verdict import Verdict, judge
from cnnbench.reporting.gather import PICTURES, gather_runs
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import json_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "claims.md"
QUOTING = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "results.md"]
HEAD = """\
# The lecture's claims, and what became of them

Written by `scripts/claims page` from `conf/claims` and from the runs in `docs/claims`; do not edit by hand.
`cnnbench report claims` prints the same table, of your own runs where you name their directories.
`scripts/reproduce --claim NAME` runs one claim anew.

A claim **holds** where the 95 % interval of the effect lies on its side, and **does not hold** where the interval lies
on the other side, or so close to 0 that it would not matter. Everything else **cannot be decided here**; what it would
take stands with the claim. Positive effects speak for the claim. Intervals are paired over the same images and drawn
over seeds ([how to read the numbers](reading-numbers.md)). They speak of the nets, data and budgets in the commands,
which are smaller than the papers': a claim about ImageNet may hold there and not here.
"""
TABLE = ("| claim | verdict | effect | 95 % | seeds | n |", "| --- | --- | ---: | ---: | --- | ---: |")
MARK = re.compile(r"^<!-- claim (\w+) -->\n(?:> .*\n)*", re.M)


# Keeping


def keep(folders: list[Path], claims: list[Claim] | None = None, into: Path | None = None) -> list[Path]:
    """Write the evidence among the runs. UserError for a run on a changed checkout: nobody could run it again."""
    found, written = gather_runs(folders), []
    for claim in claims or read_claims():
        for one in evidence.find(claim, found.runs, found.aside.get(PICTURES, ())):
            file = (into or evidence.kept_dir()) / claim.name / one.file_name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json_text(with_code(one).data(), indent=1) + "\n")
            written.append(file)
    return written


def with_code(one: evidence.Evidence) -> evidence.Evidence:
    commit = one.commit or ""
    if not re.fullmatch(r"[0-9a-f]+", commit):
        raise UserError(f"{one.source}: ran on {commit or 'no commit'}; commit the changes and run it again")
    known = [one.settings[key] for key in ("model.name", "data.name", "task")]
    names = [name for line in one.command.splitlines() for name in code.files(line, *known)]
    return replace(one, code=code.digests(names, lambda name: at_commit(commit, name)))


def at_commit(commit: str, name: str) -> str | None:
    """Text of a file of the package at a commit; None where there was none."""
    done = subprocess.run(["git", "-C", str(ROOT), "show", f"{commit}:cnnbench/{name}"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


# The page


def verdicts() -> list[Verdict]:
    return [judge(claim, evidence.read_kept(claim)) for claim in read_claims()]


def page(found: list[Verdict]) -> str:
    parts = [HEAD, f"{table.summary(found)}. {table.ALONE}\n", *TABLE, *map(row, found)]
    slide = ""
    for verdict in found:
        if verdict.claim.slide != slide:
            slide = verdict.claim.slide
            parts += ["", f"## {slide}"]
        parts += ["", f"### {title(verdict.claim)}", "", section(verdict)]
    return "\n".join(parts) + "\n"


def row(verdict: Verdict) -> str:
    cells, outcome = table.row(verdict), verdict.outcome.value
    link = f"[{cells['what is tested']}](#{anchor(verdict.claim)})"
    said = cells["verdict"].replace(outcome, f"**{outcome}**", 1)
    others = (cells[key] for key in ("effect", "95 %", "seeds", "n"))
    shown = ["" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell for cell in others]
    return f"| {' | '.join([link, said, *shown])} |"


def title(claim: Claim) -> str:
    return claim.name.replace("_", " ").capitalize()


def anchor(claim: Claim) -> str:
    return title(claim).lower().replace(" ", "-")


def section(verdict: Verdict) -> str:
    *parts, last = table.details(verdict)
    command = verdict.claim.command
    parts = parts if command else [*parts, last]
    parts += [f"```\n{command}\n```"] if command else []
    runs = [f"[{one.name}](claims/{one.relative_to(evidence.kept_dir())})" for one in files(verdict.claim)]
    parts += [f"Runs: {', '.join(runs)}."] if runs else []
    return "\n\n".join(parts)


def files(claim: Claim) -> list[Path]:
    if isinstance(claim.measure, Best):
        return [evidence.kept_dir() / claim.measure.of]
    return sorted((evidence.kept_dir() / claim.name).glob("*.json"))


def quoted(verdict: Verdict) -> str:
    """The line that stands in other pages: the verdict, its number and where its runs are."""
    claim, cells = verdict.claim, table.row(verdict)
    parts = [cells["effect"]] if cells["effect"] else []
    parts += [f"95 %: {cells['95 %']}"] if cells["95 %"] else []
    numbers = f" ({', '.join(parts)})" if parts else ""
    says = f"{claim.says[0].upper()}{claim.says[1:]}"
    return f"> *{says}*: **{cells['verdict']}**{numbers}. [Runs](claims.md#{anchor(claim)})\n"


def quoting(text: str, found: list[Verdict]) -> str:
    """A page with the verdict under each mark `<!-- claim NAME -->`."""
    by_name = {verdict.claim.name: verdict for verdict in found}
    return MARK.sub(lambda mark: f"<!-- claim {mark[1]} -->\n{quoted(by_name[mark[1]])}", text)


def write(check: bool) -> int:
    found = verdicts()
    texts = {PAGE: page(found), **{file: quoting(file.read_text(), found) for file in QUOTING}}
    if check:
        return int(any(not file.exists() or file.read_text() != text for file, text in texts.items()))
    for file, text in texts.items():
        file.write_text(text)
    print(table.summary(found))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["keep", "page"])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.what == "page":
        return write(options.check)
    for file in keep(options.folders):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
