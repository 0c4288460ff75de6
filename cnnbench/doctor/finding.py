"""What an examination finds: of a machine or of a configuration. Without torch, which may be what is broken."""

from dataclasses import asdict, dataclass

from cnnbench.config.sections import Format

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    check: str
    status: str
    detail: str
    advice: str = ""


def finding_rows(finding: Finding, format: Format) -> list[dict[str, str]]:
    """One row; on a terminal the advice gets a line of its own, so that lines stay short."""
    if format is not Format.table:
        return [asdict(finding)]
    row = {"status": finding.status, "check": finding.check, "detail": finding.detail}
    return [row, {"status": "", "check": "", "detail": f"-> {finding.advice}"}] if finding.advice else [row]
