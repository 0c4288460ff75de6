"""Run experiments of conf/experiment, one after the other, and show what came of them in one report.

Without names: all that say in their header how many minutes they take on a processor, and need no data but the digits.
The others run by their name, or with the command in their header. --claim: the runs that test one claim of the lecture,
and its verdict; --all: those of all claims that fit a night and whose data are there.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cnnbench.config.sections import conf_dir
from cnnbench.reporting.claims import evidence, numbers
from cnnbench.reporting.claims.claim import Claim, read_claims
from cnnbench.reporting.gather import gather_runs
from cnnbench.utils.errors import UserError, unknown
from cnnbench.utils.format import plural

NIGHT = 480  # minutes on two cores
CUT = (130, 75)  # the exit codes of a sweep that was asked to stop: the same command goes on


@dataclass(frozen=True)
class Experiment:
    """An experiment as the header of its file tells it."""

    name: str
    title: str
    header: dict[str, str]  # Claim, Command, Needs, Minutes, Expected, Measured

    @property
    def command(self) -> list[str]:
        """The arguments of `cnnbench`."""
        return self.header["Command"].split()[1:]

    @property
    def needs(self) -> str:
        """Data that do not come with cnnbench."""
        return self.header.get("Needs", "")

    @property
    def minutes(self) -> int | None:
        """On two free cores; None where it is nothing for a processor."""
        return int(self.header["Minutes"]) if self.header["Minutes"].isdigit() else None


def read(file: Path) -> Experiment:
    comments = [line.removeprefix("#").strip() for line in file.read_text().splitlines() if line.startswith("# ")]
    header = dict(found.groups() for line in comments if (found := re.fullmatch(r"([A-Z]\w+): (.+)", line)))
    return Experiment(file.stem, comments[1], header)


def experiments() -> dict[str, Experiment]:
    return {file.stem: read(file) for file in sorted((conf_dir() / "experiment").glob("*.yaml"))}


def main() -> int:
    known = experiments()
    listed = "\n".join(f"  {name:24} {experiment.title}" for name, experiment in known.items())
    parser = argparse.ArgumentParser(
        prog="scripts/reproduce",
        description=__doc__,
        epilog=f"experiments\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME or key=value", help="which ones; what they are to change")
    parser.add_argument("--root", default="outputs/reproduce", help="where the runs live (%(default)s)")
    parser.add_argument(
        "--claim", metavar="NAME", help="run the command of a claim (cnnbench report claims lists them)"
    )
    parser.add_argument("--all", action="store_true", help=f"all claims that fit into {NIGHT // 60} hours")
    options = parser.parse_args()
    overrides = [name for name in options.names if "=" in name]
    if options.claim or options.all:
        try:
            claims = read_claims(options.claim)
        except UserError as error:
            parser.error(str(error))
        return run_claims(claims if options.claim else fitting(claims, overrides), options, overrides)
    names = [name for name in options.names if "=" not in name]
    for name in names:
        if name not in known:
            parser.error(str(unknown("experiment", name, known)))
    chosen = [known[name] for name in names] if names else [e for e in known.values() if e.minutes and not e.needs]
    return reproduce(chosen, options.root, overrides)


def fitting(claims: list[Claim], overrides: list[str]) -> list[Claim]:
    """Claims whose runs fit a night, the quickest first; what is left out is said. A command counts once."""
    has_data = "CNNBENCH_DATA" in os.environ or any(one.startswith("data.root=") for one in overrides)
    minutes: dict[str, float] = {}
    chosen = []
    for claim in sorted(claims, key=lambda claim: claim.design.minutes if claim.design else 0):
        own = 0 if claim.command in minutes or claim.design is None else claim.design.minutes
        if claim.needs and not has_data:
            say(f"left out: {claim.name} needs {claim.needs}; give data.root=DIR")
        elif sum(minutes.values()) + own > NIGHT:
            say(f"left out: {claim.name} takes {own:g} minutes, more than are left of the night")
        else:
            minutes[claim.command] = minutes.get(claim.command, own)
            chosen.append(claim)
    say(f"{plural(len(chosen), 'claim')}, about {sum(minutes.values()):.0f} minutes on two free cores")
    return chosen


def run_claims(claims: list[Claim], options: argparse.Namespace, overrides: list[str]) -> int:
    """Run the commands of the claims, each once, and print the verdicts; the highest exit code."""
    codes = [0]
    for line, first in dict.fromkeys((line, claim.commands[0]) for claim in claims for line in claim.commands):
        if not line.startswith("cnnbench "):
            say(f"by hand, as it needs data of its own: {line}")
            continue
        line = [*arguments(line, first, options.root), *overrides, f"run.root={options.root}"]
        say(f"cnnbench {' '.join(line)}")
        codes.append(cnnbench(*line))
        if codes[-1] in CUT:
            say("stopped: the same command goes on from here")
            return codes[-1]
    one = [f"claim={options.claim}"] if options.claim else []
    runs = [options.root] if Path(options.root).is_dir() else []
    return max(*codes, cnnbench("report", "claims", *runs, *one))


def arguments(line: str, first: str, root: str) -> list[str]:
    """The arguments of a claim's line. `weights=RUN` stands for all runs of its first line."""
    command, *settings = line.split()[1:]
    if numbers.RUN in settings:
        runs = evidence.of_line(first, gather_runs([Path(root)]).runs)
        named = f"weights={','.join(str(run.path) for run, _ in runs)}"
        settings = ["-m", *(named if word == numbers.RUN else word for word in settings)]
    return [command, *settings]


def reproduce(chosen: list[Experiment], root: str, overrides: list[str]) -> int:
    """Run all of them and report; 1 where one failed. Stops at once where one was asked to stop."""
    say(f"{len(chosen)} experiments, about {sum(e.minutes or 0 for e in chosen)} minutes on two free cores")
    failed = []
    for number, experiment in enumerate(chosen, start=1):
        line = [*experiment.command, *overrides, f"run.root={root}"]
        say(f"[{number}/{len(chosen)}] {experiment.title} {duration(experiment)}\n  cnnbench {' '.join(line)}")
        code = cnnbench(*line)
        if code in CUT:
            say("stopped: the same command goes on from here")
            return code
        if code:
            failed.append(experiment.name)
    code = report(chosen, Path(root))
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed or code else 0


def report(chosen: list[Experiment], root: Path) -> int:
    """A table for each experiment, since each has columns of its own. The highest exit code."""
    codes = []
    for experiment in chosen:
        own = re.compile(rf"experiment_{experiment.name}(-|$)")
        sweeps = sorted(str(folder) for folder in root.glob("*/sweep-*") if own.search(folder.name))
        if sweeps:
            say(f"\n{experiment.title}")
            codes.append(cnnbench("report", *sweeps))
    return max(codes, default=0)


def duration(experiment: Experiment) -> str:
    if experiment.minutes is None:
        return "Nothing for a processor: days."
    return f"About {experiment.minutes} minute{'s' if experiment.minutes != 1 else ''}."


def cnnbench(*args: str) -> int:
    """The exit code of one command line. A Ctrl-C reaches it as well as this process, and it saves before it leaves."""
    process = subprocess.Popen([sys.executable, "-m", "cnnbench", *args])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
