"""Write a song of plucked notes and a table of where they begin: what docs/sounds.md trains an onset detector on.

    python scripts/make_song.py DIR

DIR/train.wav and DIR/val.wav, and DIR/onsets.csv with file, class (onset or none), time and split: of each note its
beginning, and as many moments at least 60 ms away from any.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy.io import wavfile

RATE, AWAY = 44100, 0.06
SCALE = 220 * 2 ** (np.array([0, 2, 4, 7, 9, 12, 14, 16, 19, 21]) / 12)


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "onsets.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "class", "time", "split"])
        for seed, (split, seconds) in enumerate({"train": 120, "val": 60}.items()):
            samples, onsets, others = song(seconds, np.random.default_rng(seed))
            wavfile.write(folder / f"{split}.wav", RATE, (samples * 32767).astype(np.int16))
            for name, times in (("onset", onsets), ("none", others)):
                table.writerows([f"{split}.wav", name, f"{time:.3f}", split] for time in times)
    return 0


def song(seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, the beginnings of the notes, and moments away from them, in seconds."""
    samples = rng.normal(0, 0.01, round(seconds * RATE))
    onsets = np.cumsum(
        rng.choice([0.15, 0.3, 0.45, 0.6], round(seconds / 0.3)) + rng.normal(0, 0.02, round(seconds / 0.3))
    )
    onsets = onsets[onsets < seconds - 0.5]
    for onset in onsets:
        note = pluck(rng.choice(SCALE), rng.uniform(0.05, 0.25), rng.uniform(0.1, 0.6))
        place = samples[round(onset * RATE) :][: len(note)]
        place += note[: len(place)]
    free = rng.uniform(0, seconds, 20 * len(onsets))
    others = free[np.abs(free[:, None] - onsets).min(1) > AWAY][: len(onsets)]
    return np.clip(samples, -1, 1), onsets, others


def pluck(hertz: float, loud: float, ring: float) -> np.ndarray:
    """A note with five harmonics that rises in 5 ms and rings for about `ring` seconds."""
    at = np.arange(round(4 * ring * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * hertz * number * at) / number for number in range(1, 6))
    return loud * wave * np.minimum(at / 0.005, 1) * np.exp(-at / ring)


if __name__ == "__main__":
    raise SystemExit(main())
