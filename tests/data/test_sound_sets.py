"""Data sets of sounds: what is read as what, how it is divided, and what is refused."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from cnnbench.config.sections import OnBadImage, SoundConfig
from cnnbench.data import Arrays, Dataset, folds, load_dataset
from cnnbench.utils.errors import UserError
from tests.helpers.data import data_config
from tests.helpers.sounds import RATE, spoken, tone, tone_tree, write


def load(name: str, root: Path, *, test: bool = False, sound: dict[str, Any] | None = None, **keys: Any) -> Dataset:
    heard = SoundConfig(**{"bands": 32, **(sound or {})})
    notes: list[str] = []
    dataset = load_dataset(data_config(name, root=root, workers=0, sound=heard, **keys), notes.append, test=test)
    assert tuple(notes) == dataset.notes
    return dataset


def table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def stems(source: Any) -> list[str]:
    return [Path(name).stem for name in source.names]


# Folders


def test_a_folder_for_each_class_is_in_memory_as_pictures(tmp_path: Path) -> None:
    tone_tree(tmp_path / "train", 3)
    tone_tree(tmp_path / "val", 2, seed=1)
    dataset = load("sounds", tmp_path)
    assert isinstance(dataset.train, Arrays) and isinstance(dataset.val, Arrays)
    assert (dataset.train.images.shape, dataset.train.images.dtype) == ((9, 1, 32, 32), torch.uint8)
    assert (dataset.classes, dataset.split, len(dataset.val)) == (["high", "low", "middle"], "val", 6)
    assert dataset.train.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    heights = dataset.train.images.float().mean((1, 3)).argmax(1)  # low tones lie below
    assert heights[0] < heights[6] < heights[3]
    assert (dataset.image_size, dataset.in_channels) == (32, 1)
    values = dataset.train.images.double() / 255
    assert dataset.mean == pytest.approx((values.mean().item(),))
    assert dataset.std == pytest.approx((values.std(correction=0).item(),))


def test_rate_and_length_follow_from_the_files_and_are_said(tmp_path: Path) -> None:
    tone_tree(tmp_path, 4)
    write(tmp_path / "low/other.wav", tone(300, 0.5, 16000), 16000)
    dataset = load("sounds", tmp_path, val_fraction=0.25)
    assert dataset.extra["sound"]["rate"] == RATE and dataset.extra["sound"]["seconds"] == 0.5
    assert any("data.sound.rate=8000" in note for note in dataset.notes)
    assert any("data.sound.seconds=0.5" in note for note in dataset.notes)
    (resampled,) = (note for note in dataset.notes if "is resampled" in note)
    assert "other.wav" in resampled and "8,000 Hz" in resampled


def test_what_is_done_to_sounds_is_said_once_with_an_example(tmp_path: Path) -> None:
    tone_tree(tmp_path, 2)
    for number in range(2):
        write(tmp_path / f"low/stereo{number}.wav", np.stack([tone(300)] * 2, 1))
        write(tmp_path / f"low/silent{number}.wav", np.zeros(4000))
    write(tmp_path / "low/long.wav", tone(300, 3))
    write(tmp_path / "low/short.wav", tone(300, 0.01))
    write(tmp_path / "high/loud.wav", np.clip(9 * tone(2700), -1, 1))
    notes = load("sounds", tmp_path, val_fraction=0.1, sound={"rate": RATE, "seconds": 0.5}).notes
    for said in ("2 sounds, as '", "stereo0.wav', have several channels", "silent0.wav', are silent",
                 "long.wav' is longer than 0.5 s: its middle is taken", "short.wav' is shorter than a window of 25 ms",
                 "loud.wav' is clipped"):  # fmt: skip
        assert sum(said in note for note in notes) >= 1, said


@pytest.mark.parametrize(
    ("make", "keys", "said"),
    [
        (lambda root: None, {}, "no folder"),
        (lambda root: shutil.move(tone_tree(root, 2) / "low/0.wav", root / "low/0.txt"), {"fold": "1"}, "no folds"),
        (lambda root: write(root / "only/0.wav", tone(300)), {"val_fraction": 0.5}, "one class only, 'only'"),
        (lambda root: [(root / name).mkdir(parents=True) for name in "ab"], {"val_fraction": 0.5}, "no sounds in"),
        (lambda root: (tone_tree(root / "train", 2), write(root / "val/new/0.wav", tone(99))), {}, "of class new"),
    ],
)
def test_folders_that_do_not_serve_are_refused(make: Any, keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    make(tmp_path / "d")
    with pytest.raises(UserError, match=said):
        load("sounds", tmp_path / "d", **keys)


def test_a_file_that_is_no_sound_is_named_before_the_training_or_left_out(tmp_path: Path) -> None:
    tone_tree(tmp_path, 3)
    (tmp_path / "low/words.wav").write_text("not a sound")
    with pytest.raises(UserError, match=r"words\.wav"):
        load("sounds", tmp_path, val_fraction=0.3)
    left = load("sounds", tmp_path, val_fraction=0.3, on_error=OnBadImage.skip)
    assert len(left.train) + len(left.val) == 9 and "words.wav" in left.unreadable[0]


# Tables


def rows_of(root: Path, **columns: Any) -> list[dict[str, Any]]:
    """A row for each of nine tones, with further columns by their number."""
    files = sorted(tone_tree(root / "clips", 3).rglob("*.wav"))
    return [
        {"file": f"{path.parent.name}/{path.name}", "class": path.parent.name,
         **{name: value(number) for name, value in columns.items()}}
        for number, path in enumerate(files)
    ]  # fmt: skip


def test_a_table_with_folds_is_judged_by_one_of_them(tmp_path: Path) -> None:
    table(tmp_path / "list.csv", rows_of(tmp_path, fold=lambda number: number % 3 + 1))
    one = load("sounds", tmp_path / "clips", file=str(tmp_path / "list.csv"), fold=2)
    assert (stems(one.val), len(one.train), one.split) == (["1"] * 3, 6, "val")
    with pytest.raises(UserError, match=r"has the folds 1, 2, 3: say which one.*data\.fold=1.*-m data\.fold=1,2,3"):
        load("sounds", tmp_path / "clips", file=str(tmp_path / "list.csv"))
    with pytest.raises(UserError, match="unknown fold '4'"):
        load("sounds", tmp_path / "clips", file=str(tmp_path / "list.csv"), fold=4)


def test_a_table_with_splits_and_groups_says_what_leaks(tmp_path: Path) -> None:
    splits = ("train", "train", "validation")
    table(tmp_path / "clips/list.csv", rows_of(tmp_path, split=lambda number: splits[number % 3],
                                               speaker=lambda number: "ann" if number % 2 else "bob"))  # fmt: skip
    dataset = load("sounds", tmp_path / "clips", file="list.csv")
    assert stems(dataset.val) == ["2"] * 3
    (leak,) = (note for note in dataset.notes if "groups" in note)
    assert leak.startswith("2 of the 2 groups of the val sounds have training sounds too, as 'ann'")


def test_held_out_parts_and_folds_keep_groups_whole_as_scikit_learn_does(tmp_path: Path) -> None:
    table(tmp_path / "list.csv", rows_of(tmp_path, group=lambda number: f"g{number % 3}"))
    held = load("sounds", tmp_path / "clips", file=str(tmp_path / "list.csv"), val_fraction=0.34)
    assert isinstance(held.train, Arrays) and isinstance(held.val, Arrays)
    assert held.train.groups is not None and held.val.groups is not None
    assert not set(held.train.groups.tolist()) & set(held.val.groups.tolist())
    spoken(tmp_path / "s", "ann bob cid dan eve fay", each=2)
    dataset = load("spoken_digits", tmp_path / "s", fold="fay", sound={"rate": RATE, "seconds": 0.5})
    assert isinstance(dataset.train, Arrays) and dataset.train.groups is not None
    groups, targets = dataset.train.groups.numpy(), dataset.train.targets.numpy()
    ours = [set(own.tolist()) for _, own in folds(dataset.train, 5)]
    theirs = [set(own.tolist()) for _, own in StratifiedGroupKFold(5).split(targets, targets, groups)]
    assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))


def test_parts_of_a_file_are_sounds_of_their_own(tmp_path: Path) -> None:
    song = np.concatenate([tone(300), tone(2700), tone(300), tone(2700)])
    write(tmp_path / "song.wav", song)
    rows = [{"file": "song.wav", "class": ["low", "high"][n % 2], "start": n / 2, "end": n / 2 + 0.5,
             "split": "train" if n < 2 else "val"} for n in range(4)]  # fmt: skip
    table(tmp_path / "list.csv", rows)
    dataset = load("sounds", tmp_path, file="list.csv", sound={"seconds": 0.5})
    assert isinstance(dataset.train, Arrays)
    heights = dataset.train.images.float().mean((1, 3)).argmax(1)
    assert heights[0] > heights[1] and len(dataset.val) == 2


def test_moments_of_a_file_are_the_middles_of_clips(tmp_path: Path) -> None:
    write(tmp_path / "song.wav", np.concatenate([tone(300), tone(2700)] * 2))
    rows = [{"file": "song.wav", "class": ("low", "high")[n % 2], "time": n / 2 + 0.25,
             "split": ("train", "val")[n // 2]}
            for n in range(4)]  # fmt: skip
    table(tmp_path / "list.csv", rows)
    dataset = load("sounds", tmp_path, file="list.csv", sound={"seconds": 0.4})
    assert isinstance(dataset.train, Arrays) and isinstance(dataset.val, Arrays)
    assert dataset.train.images.float().mean((1, 3)).argmax(1).diff() < 0  # the second is higher
    with pytest.raises(UserError, match=r"names moments: set data\.sound\.seconds"):
        load("sounds", tmp_path, file="list.csv")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"file": "a.wav", "kind": "x"}], "list.csv': there is no column class; its columns are file, kind"),
        (
            [{"file": "gone.wav", "class": "x"}, {"file": "b.wav", "class": "y"}],
            r"list.csv', line 2: there is no file 'gone.wav' in '.*' \(1 more are missing",
        ),
        ([{"file": "0.wav", "class": "x", "start": "soon"}], "line 2: 'soon' as start, in place of seconds"),
        (
            [{"file": "0.wav", "class": "x", "split": "fourth"}],
            "line 2: the split 'fourth' is none of train, val and test",
        ),
    ],
)
def test_tables_that_do_not_serve_are_refused(rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    write(tmp_path / "0.wav", tone(300))
    table(tmp_path / "list.csv", rows)
    with pytest.raises(UserError, match=said):
        load("sounds", tmp_path, file="list.csv", val_fraction=0.5)


# Known sets


def test_spoken_digits_know_the_official_split_and_speakers(tmp_path: Path) -> None:
    spoken(tmp_path)
    heard = {"rate": RATE, "seconds": 0.5}
    official = load("spoken_digits", tmp_path, fold="official", sound=heard)
    assert (len(official.train), len(official.val), official.split) == (3 * 3 * 2, 3 * 3 * 5, "test")
    assert {name[-1] for name in stems(official.val)} == set("01234")
    assert any(note.startswith("3 of the 3 groups") and "'ann'" in note for note in official.notes)
    unseen = load("spoken_digits", tmp_path, fold="bob", sound=heard)
    assert {name.split("_")[1] for name in stems(unseen.val)} == {"bob"}
    assert {name.split("_")[1] for name in stems(unseen.train)} == {"ann", "cid"}
    assert not any("groups" in note for note in unseen.notes) and len(unseen.val) == 21
    with pytest.raises(UserError, match=r"unknown fold of spoken_digits 'bib'. Did you mean 'bob'"):
        load("spoken_digits", tmp_path, fold="bib")
    with pytest.raises(UserError, match="DIGIT_SPEAKER_INDEX"):
        load("spoken_digits", write(tmp_path / "none/x.wav", tone(1)).parent)


def test_esc50_is_read_by_its_table_and_judged_by_a_fold(tmp_path: Path) -> None:
    rows = []
    for number in range(10):
        name = f"{number % 5 + 1}-{number // 2}-A-{number % 2}.wav"
        write(tmp_path / "ESC-50-master/audio" / name, tone(300 + 600 * (number % 2)))
        kind = ("dog", "rain")[number % 2]
        rows.append({"filename": name, "fold": number % 5 + 1, "target": number % 2, "category": kind, "esc10": True,
                     "src_file": number // 2, "take": "A"})  # fmt: skip
    table(tmp_path / "ESC-50-master/meta/esc50.csv", rows)
    dataset = load("esc50", tmp_path, fold=3)
    assert (dataset.classes, len(dataset.val), len(dataset.train)) == (["dog", "rain"], 2, 8)
    assert all(name.startswith("3-") for name in stems(dataset.val))


def test_speech_commands_are_divided_by_their_lists(tmp_path: Path) -> None:
    for word in ("yes", "no"):
        for speaker in ("0a", "0b", "0c", "0d"):
            write(tmp_path / word / f"{speaker}_nohash_0.wav", tone(300))
    write(tmp_path / "_background_noise_/hum.wav", tone(50))
    (tmp_path / "validation_list.txt").write_text("yes/0b_nohash_0.wav\nno/0b_nohash_0.wav\n")
    (tmp_path / "testing_list.txt").write_text("yes/0c_nohash_0.wav\nno/0c_nohash_0.wav\n")
    dataset = load("speech_commands", tmp_path, test=True)
    assert dataset.classes == ["no", "yes"] and dataset.test is not None
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [4, 2, 2]
    assert stems(dataset.val) == ["0b_nohash_0"] * 2 and not any("groups" in note for note in dataset.notes)
    assert load("speech_commands", tmp_path).test is None


@pytest.mark.parametrize("name", ["esc50", "speech_commands", "spoken_digits"])
def test_known_sets_say_what_they_expect(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"data={name} expects in .*\nSet data\.root=DIR"):
        load(name, tmp_path)
