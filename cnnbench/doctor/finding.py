"""Findings of `cnnbench doctor` about a machine or a configuration. Works without torch, which may be broken."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cnnbench.config.sections import Format
from cnnbench.output.tables import fitted
from cnnbench.utils.terminal import terminal_width

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    check: str
    status: str
    detail: str
    advice: str = ""


def finding_rows(finding: Finding, format: Format) -> list[dict[str, str]]:
    """Table rows of a finding: one row, and in a table a second one for the advice, so that lines stay short."""
    if format is not Format.table:
        return [asdict(finding)]
    row = {"status": finding.status, "check": finding.check, "detail": finding.detail}
    return [row, {"status": "", "check": "", "detail": f"-> {finding.advice}"}] if finding.advice else [row]


def findings_table(found: Sequence[Finding], format: Format) -> str:
    """Text of the findings, as wide as the terminal."""
    return fitted([row for one in found for row in finding_rows(one, format)], format, terminal_width())
