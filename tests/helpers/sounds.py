"""Tones in WAV files: what the tests listen to."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from cnnbench.data.spectrogram import Spectrogram

RATE = 8000
TONES = {"low": 300.0, "middle": 900.0, "high": 2700.0}
HEARD = Spectrogram(RATE, 0.5, 32, (25.0,), None, 20.0, 4000.0, 80.0, "loudest")


def tone(hertz: float, seconds: float = 0.5, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone at half of full scale, in noise: float32 (N,)."""
    noise = np.random.default_rng(seed).normal(0, 0.01, round(seconds * rate))
    phase = 2 * np.pi * hertz * np.arange(len(noise)) / rate + seed
    return (0.5 * np.sin(phase) + noise).astype(np.float32)


def write(path: Path, samples: Any, rate: int = RATE) -> Path:
    """A WAV of 16 bits; (N,) or (N, channels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, (np.asarray(samples) * 32767).round().astype(np.int16))
    return path


def tone_tree(root: Path, count: int, seed: int = 0) -> Path:
    """ROOT/CLASS/0.wav ...: so many tones of each class, no two alike."""
    for number, (name, hertz) in enumerate(TONES.items()):
        for index in range(count):
            own = 1000 * seed + 100 * number + index
            write(root / name / f"{index}.wav", tone(hertz * (1 + 0.01 * (own % 7)), seed=own))
    return root


def spoken(root: Path, speakers: str = "ann bob cid", digits: int = 3, each: int = 7) -> Path:
    """ROOT/recordings/DIGIT_SPEAKER_INDEX.wav: a tone for each digit, a little higher for each speaker."""
    for voice, speaker in enumerate(speakers.split()):
        for digit in range(digits):
            for index in range(each):
                samples = tone(300 * 2.2**digit * (1 + 0.05 * voice), 0.4, seed=100 * voice + 10 * digit + index)
                write(root / "recordings" / f"{digit}_{speaker}_{index}.wav", samples)
    return root
