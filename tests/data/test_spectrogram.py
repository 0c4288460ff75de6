"""Log-mel spectrograms, beside published numbers and beside the same by scipy."""

import numpy as np
import pytest
import torch
from scipy import signal

from cnnbench.data.spectrogram import Spectrogram, fourier_size, hertz, mel, mel_matrix
from cnnbench.utils.errors import UserError
from tests.helpers.sounds import HEARD, tone


def test_mels_are_htks() -> None:
    """The HTK Book, section 5.4: 1,000 Hz are 1,000 mel. Frequencies by librosa 0.11, mel_frequencies(htk=True)."""
    assert mel(1000) == pytest.approx(1000, abs=0.02)
    ten = hertz(torch.linspace(mel(20), mel(4000), 10, dtype=torch.float64))
    published = [20, 186.874118, 392.424586, 645.615405, 957.48816, 1341.643543, 1814.834468, 2397.696669, 3115.648614]
    assert ten.tolist() == pytest.approx([*published, 4000], abs=1e-5)


def test_the_mel_matrix_is_librosas() -> None:
    """librosa 0.11: filters.mel(sr=8000, n_fft=256, n_mels=8, fmin=20, fmax=4000, htk=True, norm=None)."""
    matrix = mel_matrix(129, 8000, 8, 20.0, 4000.0)
    sums = [5.995789, 7.321232, 9.042687, 11.129331, 13.724566, 16.90012, 20.809788, 25.632912]
    third = [0.054605, 0.178029, 0.301454, 0.424879, 0.548303, 0.671728, 0.795153, 0.918578, 0.965901, 0.8657, 0.765499,
             0.665298, 0.565096, 0.464895, 0.364694, 0.264493, 0.164292, 0.064091]  # fmt: skip
    assert matrix.sum(1).tolist() == pytest.approx(sums, abs=1e-5)
    assert matrix.argmax(1).tolist() == [6, 13, 21, 31, 43, 58, 77, 100]
    assert matrix[2][matrix[2] > 0].tolist() == pytest.approx(third, abs=1e-5)


def test_decibels_are_librosas() -> None:
    """librosa 0.11: power_to_db(melspectrogram(n_fft=256, win_length=200, hop_length=125, pad_mode="constant",
    n_mels=64, fmin=20, htk=True, norm=None), ref=max), rows 5, 10 and 15, columns 10, 26, 42 and 58."""
    at = np.arange(8000) / 8000
    samples = 0.5 * np.sin(2 * np.pi * 440 * at) + 0.25 * np.sin(2 * np.pi * 1500 * at) * (at > 0.5)
    known = Spectrogram(8000, 1.0, 64, (25.0,), None, 20.0, 4000.0, 80.0, "loudest")
    assert (known.step, known.frames, fourier_size(known, 200)) == (125, 64, 256)
    found = known.decibels(known.mel(torch.from_numpy(samples), 25.0))[5:20:5, 10:60:16]
    published = [[-72.33028, -72.33028, -72.49054, -72.49054], [-51.2493, -51.2493, -51.253235, -51.253235],
                 [-0.000278, -0.000278, -0.000233, -0.000233]]  # fmt: skip
    np.testing.assert_allclose(found.numpy(), published, atol=2e-3)


def test_the_power_is_scipys() -> None:
    """An independent computation: scipy's short-time Fourier transform of the same clip."""
    samples, known = tone(700), HEARD
    length, size = 200, fourier_size(known, 200)
    window = signal.get_window("hann", length)
    padded = np.pad(window, ((size - length) // 2,) * 2)
    transform = signal.ShortTimeFFT(padded, known.step, 8000, fft_mode="onesided", mfft=size)
    there = np.abs(transform.stft(samples.astype(float), p0=0, p1=known.frames)) * 2 / window.sum()
    mels = mel_matrix(size // 2 + 1, 8000, 32, 20.0, 4000.0).numpy() @ (there**2)
    np.testing.assert_allclose(known.mel(torch.from_numpy(samples), 25.0).numpy(), mels, rtol=1e-3, atol=1e-9)


def test_full_scale_is_the_reference_where_it_is_asked_for() -> None:
    """A sine at half of full scale has about -6 dB, at a quarter 6 dB less; relative to the loudest both are alike."""
    at = torch.arange(4000) / 8000
    sine = torch.sin(2 * torch.pi * 1000 * at)
    level = Spectrogram(8000, 0.5, 32, (25.0,), None, 20.0, 4000.0, 80.0, "full_scale")
    found = [level.decibels(level.mel(sine * gain, 25.0)).max().item() for gain in (0.5, 0.25)]
    assert found[0] - found[1] == pytest.approx(6.02, abs=0.01) and -6.1 < found[0] < -4
    assert torch.equal(HEARD.picture(sine), HEARD.picture(sine / 2))
    assert HEARD.picture(sine).max() == 255


def test_low_tones_lie_below_and_time_runs_to_the_right() -> None:
    late = torch.from_numpy(np.concatenate([np.zeros(2000, np.float32), tone(300, 0.25)]))
    picture = HEARD.picture(late)[0].float()
    assert picture[:, :12].sum() < picture[:, 20:].sum()
    assert picture[16:].sum() > picture[:16].sum()


def test_three_windows_are_three_channels_and_a_hop_leaves_the_picture_square() -> None:
    known = Spectrogram(8000, 0.5, 32, (16.0, 32.0, 64.0), 5.0, 20.0, 4000.0, 80.0, "loudest")
    assert known.frames == 100
    picture = known.picture(torch.from_numpy(tone(900)))
    assert picture.shape == (3, 32, 32) and picture.dtype == torch.uint8
    assert not torch.equal(picture[0], picture[2])


def test_silence_is_black_and_not_divided_by_zero() -> None:
    assert HEARD.picture(torch.zeros(4000)).max() == 0


def test_no_band_is_empty_where_there_are_many() -> None:
    many = Spectrogram(16000, 1.0, 128, (25.0,), None, 20.0, 8000.0, 80.0, "loudest")
    assert fourier_size(many, 400) > 512
    assert (mel_matrix(fourier_size(many, 400) // 2 + 1, 16000, 128, 20.0, 8000.0).amax(1) > 0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"high": 5000.0}, "above half of data.sound.rate=8000"),
        ({"low": 4000.0}, "must be less than the highest tone"),
        ({"window": (1.0,)}, "fewer than 16 samples"),
        ({"window": (25.0, 50.0)}, "one length, or three"),
        ({"window": (700.0,)}, "longer than a clip"),
    ],
)
def test_settings_that_do_not_go_together(change: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Spectrogram.of({**HEARD.as_dict(), **change}).check()
