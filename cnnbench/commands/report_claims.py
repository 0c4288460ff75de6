"""`cnnbench report claims`: a verdict for each claim of the lecture, by the runs given or by those that are kept."""

import sys
from pathlib import Path

from cnnbench.config.commands import ReportClaimsConfig
from cnnbench.config.sections import Format
from cnnbench.output import html
from cnnbench.output.tables import ENDINGS
from cnnbench.reporting.claims import evidence, table
from cnnbench.reporting.claims.claim import Claim, read_claims
from cnnbench.reporting.claims.text import verdicts_text
from cnnbench.reporting.claims.verdict import Verdict, judge
from cnnbench.reporting.gather import PICTURES, GatheredRuns, gather_runs
from cnnbench.utils.errors import UserError
from cnnbench.utils.files import write_text
from cnnbench.utils.format import plural
from cnnbench.utils.named_files import check_output, output, typed_path


def run(cfg: ReportClaimsConfig) -> int:
    """Print the verdicts, and write them where asked to. Returns 0: a claim that does not hold is no failure."""
    if cfg.out is not None and check_output("out", cfg.out).suffix.lower() not in (*ENDINGS, ".html"):
        raise UserError(f"out={cfg.out}: give a name that ends in .html, {', '.join(ENDINGS)}")
    claims = read_claims(cfg.claim)
    found = gather_runs([typed_path(path) for path in _directories(cfg)]) if cfg.input is not None else None
    verdicts = [judge(claim, runs) for claim, runs in zip(claims, _evidence(claims, found), strict=True)]
    if cfg.out is not None:
        _write(cfg.out, verdicts)
    print(_rendered(verdicts, cfg.format))
    return 0


def _directories(cfg: ReportClaimsConfig) -> list[str]:
    given = cfg.input if isinstance(cfg.input, list) else [cfg.input]
    if not given or not all(isinstance(path, str) for path in given):
        raise UserError("report claims takes directories, as in cnnbench report claims outputs/reproduce")
    return given


def _evidence(claims: list[Claim], found: GatheredRuns | None) -> list[list[evidence.Evidence]]:
    """Runs of each claim; what is left out is said."""
    if found is None:
        return [evidence.read_kept(claim) for claim in claims]
    pages = found.aside.pop(PICTURES, [])
    matched = [evidence.find(claim, found.runs, pages) for claim in claims]
    used = {one.source for runs in matched for one in runs}
    if unused := [page for page in pages if page not in used]:
        found.aside[PICTURES] = unused
    others = [run for run in found.runs if run.result and run.path not in used]
    if others:
        print(f"{plural(len(others), 'run')} of no claim's command, as {others[0].path}", file=sys.stderr)
    for line in found.remarks():
        print(line, file=sys.stderr)
    return matched


def _write(out: str, verdicts: list[Verdict]) -> None:
    with output("out", out) as path:
        if path.suffix.lower() == ".html":
            _write_page(path, verdicts)
        else:
            write_text(path, _rendered(verdicts, ENDINGS[path.suffix.lower()]) + "\n")
    print(f"claims -> {typed_path(out)}", file=sys.stderr)


def _rendered(verdicts: list[Verdict], format: Format) -> str:
    return verdicts_text(verdicts) if format is Format.table else table.render_verdicts(verdicts, format)


def _write_page(path: Path, verdicts: list[Verdict]) -> None:
    body = [html.table([table.row(verdict) for verdict in verdicts]),
            html.paragraph(f"{table.summary(verdicts)}. {table.ALONE}")]  # fmt: skip
    for verdict in verdicts:
        body += [html.heading(verdict.claim.name), *map(html.paragraph, table.details(verdict))]
    html.write_document(path, "The claims of the lecture", body, html.SORTING)
