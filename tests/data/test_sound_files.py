"""Sounds in files: what is read of them, what is done to them, and what is said of those that cannot be read."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from cnnbench.data import sound_files
from cnnbench.data.sound_files import fitted, moments, read_clip, read_head, read_samples
from cnnbench.utils.errors import UserError
from tests.helpers.sounds import HEARD, RATE, tone, write

no_soundfile = pytest.mark.skipif(importlib.util.find_spec("soundfile") is None, reason="soundfile is not installed")


def in_24_bits(path: Path, samples: np.ndarray) -> Path:
    """A WAV of 24 bits, which scipy reads and does not write."""
    whole = (samples * 8388607).round().astype("<i4").tobytes()
    content = b"".join(whole[at : at + 3] for at in range(0, len(whole), 4))
    head = b"RIFF" + (36 + len(content)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += b"\1\0\1\0" + RATE.to_bytes(4, "little") + (3 * RATE).to_bytes(4, "little") + b"\3\0\x18\0"
    path.write_bytes(head + b"data" + len(content).to_bytes(4, "little") + content)
    return path


def test_samples_are_the_same_in_every_width(tmp_path: Path) -> None:
    samples = tone(440, 0.1)
    write(tmp_path / "16.wav", samples)
    in_24_bits(tmp_path / "24.wav", samples)
    wavfile.write(tmp_path / "32.wav", RATE, (samples * 2147483647).astype(np.int32))
    wavfile.write(tmp_path / "float.wav", RATE, samples)
    wavfile.write(tmp_path / "8.wav", RATE, (samples * 127 + 128).round().astype(np.uint8))
    for name, near in (("16", 1e-4), ("24", 1e-6), ("32", 1e-6), ("float", 0), ("8", 1e-2)):
        found, rate = read_samples(str(tmp_path / f"{name}.wav"))
        assert (rate, found.shape) == (RATE, (800, 1))
        np.testing.assert_allclose(found[:, 0], samples, atol=near)
        assert read_head(str(tmp_path / f"{name}.wav")) == (RATE, 0.1)


def test_several_channels_give_their_mean(tmp_path: Path) -> None:
    left, right = tone(440), tone(1200)
    clip = read_clip(str(write(tmp_path / "stereo.wav", np.stack([left, right], 1))), HEARD)
    np.testing.assert_allclose(clip.samples.numpy(), (left + right) / 2, atol=1e-4)
    assert clip.remarks == {"mixed"}


def test_another_rate_is_resampled_to_the_same_tone(tmp_path: Path) -> None:
    for rate in (16000, 11025, 44100):
        clip = read_clip(str(write(tmp_path / f"{rate}.wav", tone(900, 0.5, rate), rate)), HEARD)
        spectrum = np.abs(np.fft.rfft(clip.samples.numpy()))
        assert spectrum.argmax() == pytest.approx(450, abs=1)  # of 0.5 s: 2 Hz apart
        assert (len(clip.samples), clip.remarks) == (4000, {"resampled"})


def test_long_sounds_give_their_middle_and_short_ones_get_silence(tmp_path: Path) -> None:
    assert fitted(np.arange(10), 4).tolist() == [3, 4, 5, 6]
    assert fitted(np.array([1, 2]), 5).tolist() == [0, 1, 2, 0, 0]
    ten = np.concatenate([np.zeros(5 * RATE), tone(900, 0.5), np.zeros(5 * RATE)])
    clip = read_clip(str(write(tmp_path / "long.wav", ten)), HEARD)
    assert clip.remarks == {"longer"} and clip.seconds == 10.5
    np.testing.assert_allclose(clip.samples.numpy(), tone(900), atol=1e-4)
    short = read_clip(str(write(tmp_path / "short.wav", tone(900, 0.01))), HEARD)
    assert short.remarks == {"tiny"} and HEARD.picture(short.samples).max() == 255


def test_a_part_of_a_file(tmp_path: Path) -> None:
    path = str(write(tmp_path / "two.wav", np.concatenate([tone(300), tone(2700)])))
    np.testing.assert_allclose(read_clip(path, HEARD, 0.5, 1.0).samples.numpy(), tone(2700), atol=1e-4)
    assert read_clip(path, HEARD, -0.25, 0.25).samples[:1999].abs().max() == 0
    with pytest.raises(UserError, match=r"has 1 s: it has no part from 2 to 3 s"):
        read_clip(path, HEARD, 2.0, 3.0)


def test_moments_are_clips_around_them_with_silence_beyond_the_ends(tmp_path: Path) -> None:
    path = str(write(tmp_path / "song.wav", tone(900, 1.0)))
    found = list(moments(path, HEARD, 0.25))
    assert [os.fspath(one).rpartition("@")[2] for one in found] == ["0", "0.25", "0.5", "0.75", "1"]
    first, middle, last = (found[number].clip().samples.numpy() for number in (0, 2, 4))
    assert not first[:2000].any() and first[2001:].any() and last[:1999].any() and not last[2000:].any()
    np.testing.assert_allclose(middle, tone(900, 1.0)[2000:6000], atol=1e-4)
    assert found[0].as_pixels().shape == (1, 32, 32)


def test_silent_and_clipped_sounds_are_remarked(tmp_path: Path) -> None:
    assert read_clip(str(write(tmp_path / "silent.wav", np.zeros(4000))), HEARD).remarks == {"silent"}
    loud = np.clip(4 * tone(440), -1, 1)
    assert read_clip(str(write(tmp_path / "loud.wav", loud)), HEARD).remarks == {"clipped"}
    assert not read_clip(str(write(tmp_path / "fine.wav", tone(440))), HEARD).remarks


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.wav", b"", "the file is empty"),
        ("text.wav", b"these are words\n" * 9, "its content is not WAV|no sound that libsndfile knows"),
        ("cut.wav", b"RIFF\x24\0\0\0WAVEfmt ", "cannot read the sound"),
        ("missing.wav", None, "there is no such file"),
        ("nothing.wav", np.zeros(0, np.int16), "it holds no samples"),
        ("nan.wav", np.full(800, np.nan, np.float32), "some of its samples are not finite"),
    ],
)
def test_what_cannot_be_read_is_named(name: str, content: bytes | np.ndarray | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        wavfile.write(path, RATE, content)
    with pytest.raises(UserError, match=said) as error:
        read_clip(str(path), HEARD)
    assert name in str(error.value) and len(str(error.value).splitlines()) <= 2


def test_other_formats_name_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_files, "has_soundfile", lambda: False)
    (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(40))
    with pytest.raises(UserError, match=r"\.flac needs pip install 'cnnbench\[audio\]'"):
        read_clip(str(tmp_path / "a.flac"), HEARD)
    assert read_head(str(tmp_path / "a.flac")) is None


@no_soundfile
def test_flac_and_ogg_are_read(tmp_path: Path) -> None:
    import soundfile

    samples = tone(900)
    for name, near in (("a.flac", 1e-4), ("a.ogg", 0.1)):
        soundfile.write(tmp_path / name, samples, RATE)
        np.testing.assert_allclose(read_clip(str(tmp_path / name), HEARD).samples.numpy(), samples, atol=near)
        assert read_head(str(tmp_path / name)) == (RATE, 0.5)
    (tmp_path / "b.flac").write_bytes(b"fLaC" + bytes(40))
    with pytest.raises(UserError, match="no sound that libsndfile knows"):
        read_clip(str(tmp_path / "b.flac"), HEARD)
