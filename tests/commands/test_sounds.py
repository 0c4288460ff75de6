"""Sounds from end to end: a net that has heard tones is trained, judged, asked, looked into and exported."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import cnnbench as package
from cnnbench import models
from cnnbench.data.moments import IMAGENET_MEAN
from cnnbench.data.sound_files import Sound, read_clip
from cnnbench.data.spectrogram import Spectrogram
from cnnbench.utils.errors import UserError
from cnnbench.weights import sources
from tests.helpers.runs import Ran, assert_same_run, interrupt_after
from tests.helpers.sounds import TONES, tone, tone_tree, write
from tests.helpers.trained import digits_run, sound_run

TINY = ("data.sound.bands=16", "data.image_size=16", "batch_size=6", "precision=fp32", "device=cpu")


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    """Nine tones that the net has not heard, in a folder, with a note beside them."""
    tone_tree(tmp_path / "new", 3, seed=2)
    (tmp_path / "new/notes.txt").write_text("not a sound")
    return tmp_path / "new"


def test_the_spectrogram_is_stored_with_the_net() -> None:
    spec = sources.load(str(sound_run())).spec
    assert spec is not None
    known = Spectrogram.of(spec.extra["sound"])
    assert (known.rate, known.seconds, known.bands, known.high) == (8000, 0.5, 16, 4000.0)


def test_a_run_is_judged_as_it_was_trained(cnnbench: Callable[..., Ran], heard: Path) -> None:
    again = cnnbench("evaluate", f"weights={sound_run()}", "format=json", "device=cpu")
    assert again.code == 0, again.err
    found = json.loads(again.out)
    trained = json.loads((sound_run() / "result.json").read_text())
    assert (found["top1_error"], found["n"], found["split"]) == (trained["top1_error"], 9, "val")
    assert trained["top1_error"] <= 34, "three tones far apart"
    other = cnnbench("evaluate", f"weights={sound_run()}", f"data.root={heard}", "format=json", "device=cpu")
    assert other.code == 0, other.err
    assert (json.loads(other.out)["split"], json.loads(other.out)["n"]) == ("given", 9)
    changed = cnnbench("evaluate", f"weights={sound_run()}", "data.sound.rate=16000")
    assert changed.code == 2 and "data.sound.rate cannot be changed now: the net hears 0.5 s at 8,000 Hz" in changed.err


def test_predict_says_what_it_hears_and_what_was_done(cnnbench: Callable[..., Ran], heard: Path) -> None:
    ran = cnnbench("predict", str(heard), f"weights={sound_run()}", "format=json", "device=cpu")
    assert ran.code == 0, ran.err
    answers = {Path(one["file"]).parent.name: one["predictions"][0]["class"] for one in json.loads(ran.out)}
    assert len(json.loads(ran.out)) == 9 and set(answers) == set(TONES)
    assert "files of other kinds are not read: 1 .txt" in ran.err
    write(heard / "odd/stereo.wav", np.stack([tone(300, 2)] * 2, 1))
    write(heard / "odd/still.wav", np.zeros(4000))
    (heard / "odd/text.wav").write_text("words")
    ran = cnnbench("predict", str(heard / "odd"), f"weights={sound_run()}", "device=cpu")
    assert ran.code == 1 and "1 of 3 files could not be read" in ran.err and "text.wav" in ran.err
    for said in ("stereo.wav' has several channels", "stereo.wav' is longer than 0.5 s", "still.wav' is silent"):
        assert said in ran.err
    (heard / "empty").mkdir()
    none = cnnbench("predict", str(heard / "empty"), f"weights={sound_run()}")
    assert none.code == 2 and f"no sounds in '{heard / 'empty'}'" in none.err


def test_predict_asks_about_every_moment(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    write(tmp_path / "song.wav", np.concatenate([tone(300, 1), tone(2700, 1)]))
    ran = cnnbench("predict", "song.wav", f"weights={sound_run()}", "every=0.5", "format=json", "device=cpu")
    assert ran.code == 0, ran.err
    found = {one["file"]: one["predictions"][0]["class"] for one in json.loads(ran.out)}
    assert list(found) == ["song.wav@0", "song.wav@0.5", "song.wav@1", "song.wav@1.5", "song.wav@2"]
    assert found["song.wav@0.5"] != found["song.wav@1.5"]
    (tmp_path / "a.jpg").touch()
    refused = cnnbench("predict", "a.jpg", f"weights={digits_run()}", "every=0.5")
    assert refused.code == 2 and "every=0.5 is for nets that hear sounds" in refused.err


def test_from_python_paths_and_pictures_give_the_same(heard: Path) -> None:
    net = package.load(sound_run(), device="cpu")
    file = str(heard / "low/0.wav")
    known = Spectrogram.of(net.spec.extra["sound"])
    by_file, by_picture = (
        net.predict(file)[0],
        net.predict(known.picture(read_clip(file, known).samples))[0],
    )
    assert by_file.best.name == by_picture.best.name
    assert by_file.best.probability == pytest.approx(by_picture.best.probability, abs=1e-5)
    with pytest.raises(UserError, match="this net hears sounds"):
        package.load(sound_run(), crop="ten", device="cpu")


def test_grad_cam_looks_at_a_spectrogram(cnnbench: Callable[..., Ran], heard: Path, tmp_path: Path) -> None:
    ran = cnnbench("visualize", "what=gradcam", f"weights={sound_run()}", f"images={heard}/low/0.wav", "device=cpu",
                   f"run.dir={tmp_path / 'v'}")  # fmt: skip
    assert ran.code == 0, ran.err
    assert (tmp_path / "v/gradcam.png").exists()
    assert "seconds from left to right, tones of 20 to " in (tmp_path / "v/index.html").read_text()


def test_doctor_data_listens(cnnbench: Callable[..., Ran], heard: Path, tmp_path: Path) -> None:
    (heard / "low/words.wav").write_text("not a sound")
    (heard / "high/again.wav").write_bytes((heard / "low/0.wav").read_bytes())
    write(heard / "low/still.wav", np.zeros(4000))
    ran = cnnbench("doctor", "data", "data=sounds", f"data.root={heard}", f"weights={sound_run()}", "format=json",
                   "device=cpu", "data.workers=0", "data.sound.rate=8000", "data.sound.seconds=0.5",
                   "data.sound.bands=16")  # fmt: skip
    assert ran.code == 1, ran.err
    for said in ("words.wav", "is silent", "again.wav", "WAV of 8,000 Hz"):
        assert said in ran.out, said


def test_an_exported_net_says_how_a_sound_becomes_a_picture(
    cnnbench: Callable[..., Ran], heard: Path, tmp_path: Path
) -> None:
    """The picture that its steps make, given to the file, has the answer of the net."""
    runtime, out = pytest.importorskip("onnxruntime"), tmp_path / "net.onnx"
    ran = cnnbench("export", f"weights={sound_run()}", "format=onnx", f"out={out}")
    assert ran.code == 0, ran.err
    said = json.loads((tmp_path / "net.json").read_text())
    assert said["sound"]["rate"] == 8000 and "resampled to 8000 Hz" in said["steps"][0]
    assert any("16 HTK mel triangles" in step for step in said["steps"])
    file = str(heard / "high/0.wav")
    picture = Sound(file, Spectrogram.of(said["sound"])).as_pixels()[None].float() / 255
    given = (picture - said["mean"][0]) / said["std"][0]
    session = runtime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    logits = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: given.numpy()})[0])
    best = package.load(sound_run(), device="cpu").predict(file)[0].best
    assert said["classes"][int(logits.argmax())] == best.name
    assert float(logits.softmax(dim=1).max()) == pytest.approx(best.probability, abs=1e-3)


def test_reports_and_doctors_know_sounds(cnnbench: Callable[..., Ran], heard: Path) -> None:
    table = cnnbench("report", str(sound_run()), "format=json")
    assert table.code == 0, table.err
    assert "sounds" in table.out and "resnet8" in table.out
    data = ("data=sounds", f"data.root={heard}", "data.val_fraction=0.34", "device=cpu")
    fine = cnnbench("doctor", "config", *data, "batch_size=2", "epochs=90")
    assert fine.code == 0 and "training images high: 2, low: 2, middle: 2" in fine.out, fine.out
    mirrored = cnnbench("doctor", "config", *data, "augment.flip=true")
    assert "a mirrored spectrogram is a sound played backwards" in mirrored.out


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_a_net_hears_other_formats_as_it_hears_wav(cnnbench: Callable[..., Ran], tmp_path: Path, suffix: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    for name, hertz in TONES.items():
        soundfile.write(tmp_path / f"{name}.{suffix}", tone(hertz, seed=9), 8000)
    ran = cnnbench("predict", str(tmp_path), f"weights={sound_run()}", "format=json", "device=cpu")
    assert ran.code == 0, ran.err
    answers = {Path(one["file"]).stem: one["predictions"][0]["class"] for one in json.loads(ran.out)}
    assert answers == {name: name for name in TONES}


def test_a_run_that_was_cut_ends_as_if_it_was_not(
    cnnbench: Callable[..., Ran], no_pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone_tree(tmp_path / "d", 4)
    args = ("train", "data=sounds", f"data.root={tmp_path / 'd'}", "data.val_fraction=0.25", "epochs=2", *TINY)
    assert cnnbench(*args, "run.name=whole").code == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert cnnbench(*args, "run.name=cut", "checkpoint.every=1").code == 130
    assert cnnbench(*args, "run.name=cut", "checkpoint.every=1").code == 0
    assert_same_run(tmp_path / "outputs/train/whole", tmp_path / "outputs/train/cut")


def test_finetune_hears_as_the_weights_do(cnnbench: Callable[..., Ran], no_pictures: None, heard: Path) -> None:
    ran = cnnbench("finetune", "data=sounds", f"data.root={heard}", "data.val_fraction=0.34", "transfer=full",
                   f"weights={sound_run()}", "epochs=1", "batch_size=4", "precision=fp32", "device=cpu",
                   "run.name=f")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "knows them: 0.5 s at 8,000 Hz, 16 mel bands" in ran.out
    spec = sources.load("outputs/train/f" if Path("outputs/train/f").exists() else "outputs/finetune/f").spec
    assert spec is not None and spec.extra["sound"]["bands"] == 16


def test_weights_for_colours_see_a_spectrogram_in_three_channels(
    cnnbench: Callable[..., Ran], no_pictures: None, heard: Path, tmp_path: Path
) -> None:
    """Tensors alone, as torchvision keeps them: normalised as ImageNet is, and never mirrored."""
    net = models.build("squeezenet1_1", source="torchvision")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    args = ("finetune", "data=sounds", f"data.root={heard}", "data.val_fraction=0.34", "transfer=head", "epochs=1",
            "batch_size=4", "precision=fp32", "device=cpu", "data.image_size=32", "model=torchvision",
            "model.name=squeezenet1_1", f"weights={tmp_path / 'weights.pth'}")  # fmt: skip
    ran = cnnbench(*args, f"run.dir={tmp_path / 'f'}")
    assert ran.code == 0, ran.err
    assert "images: normalised as ImageNet usually is" in ran.out
    loaded = sources.load(str(tmp_path / "f"))
    assert loaded.spec is not None and loaded.config is not None
    assert (loaded.spec.input.in_channels, tuple(loaded.spec.input.mean)) == (3, IMAGENET_MEAN)
    assert loaded.config["augment"]["flip"] is False
    asked = cnnbench("predict", str(heard / "low/0.wav"), f"weights={tmp_path / 'f'}", "device=cpu", "format=json")
    assert asked.code == 0, asked.err
    gray = cnnbench(*args, "model.in_channels=1", f"run.dir={tmp_path / 'g'}")
    assert gray.code == 2 and "features.0.weight is (64, 3, 3, 3) in the file, (64, 1, 3, 3) in the net" in gray.err


def test_grids_are_trained_on_and_asked_about(cnnbench: Callable[..., Ran], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2, 16, 16)).astype(np.float32), np.arange(40) % 2
    x[y == 1, 0] += 3
    np.savez(tmp_path / "a.npz", x=x, y=y, classes=["calm", "loud"])
    np.save(tmp_path / "one.npy", x[1])
    ran = cnnbench("train", "data=arrays", f"data.file={tmp_path / 'a.npz'}", "data.val_fraction=0.25", "epochs=6",
                   "batch_size=10", "precision=fp32", "device=cpu", "run.name=g")  # fmt: skip
    assert ran.code == 0, ran.err
    run = tmp_path / "outputs/train/g"
    assert json.loads((run / "result.json").read_text())["top1_error"] <= 20
    assert (run / "train_batch.png").exists() and (run / "val_predictions.png").exists()
    asked = cnnbench("predict", str(tmp_path / "one.npy"), f"weights={run}", "format=json", "device=cpu")
    assert asked.code == 0, asked.err
    assert json.loads(asked.out)[0]["predictions"][0]["class"] == "loud"
    np.savez(tmp_path / "many.npz", x=x[:3])
    asked = cnnbench("predict", str(tmp_path / "many.npz"), f"weights={run}", "format=json", "device=cpu")
    assert asked.code == 0, asked.err
    assert [Path(one["file"]).name for one in json.loads(asked.out)] == ["many.npz@0", "many.npz@1", "many.npz@2"]
    (tmp_path / "text.npz").write_text("no numbers")
    np.savez(tmp_path / "other.npz", z=x[:3])
    files = [str(tmp_path / name) for name in ("text.npz", "many.npz", "other.npz")]
    asked = cnnbench("predict", *files, f"weights={run}", "format=json", "device=cpu")
    assert asked.code == 1 and "2 of 5 files could not be read:" in asked.err  # as of images
    assert "cannot read the grids" in asked.err and "it has no x, but z" in asked.err
    assert [one.get("error") is None for one in json.loads(asked.out)] == [False, True, True, True, False]
    assert json.loads(asked.out)[2]["predictions"][0]["class"] == "loud"
