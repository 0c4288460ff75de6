"""The commands from Python: the command line's own results, files and sentences."""

import json
from pathlib import Path

import numpy as np
import pytest

import cnnbench
from cnnbench.cli.calls import Result, as_typed

TINY = {"model": "resnet8", "data": "digits", "data__fraction": 0.1, "data__image_size": 8, "epochs": 1}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_trained_is_evaluated_predicted_with_and_reported(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = cnnbench.train("optim.lr=0.1", **TINY)
    assert run.directory is not None and capsys.readouterr().out == ""  # nothing but what is returned
    written = json.loads((run.directory / "result.json").read_text())
    assert run.metrics == {name: written[name] for name in ("top1_error", "top5_error")}
    assert run["steps"] == written["steps"] and "top-1 error" in repr(run) and str(run.directory) in repr(run)
    assert "optim:\n  name: sgd\n  lr: 0.1\n" in (run.directory / "config.yaml").read_text()

    judged = cnnbench.evaluate(weights=run)
    assert judged["n"] == written["n"] and judged.metrics == pytest.approx(run.metrics)

    image = elsewhere / "a=b, c.png"
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(image)
    answers = cnnbench.predict(str(image), weights=run)
    assert len(answers) == 1 and answers[0]["file"] == str(image) and len(answers[0]["predictions"]) == 5

    told = cnnbench.report("outputs")
    assert [(one["command"], one["model"]) for one in told["groups"]] == [("evaluate", "resnet8"), ("train", "resnet8")]
    assert told._repr_html_().count("<tr>") == 3


def test_a_list_is_swept_over_and_a_notebook_shows_a_row_each(elsewhere: Path) -> None:
    found = cnnbench.sweep("train", **(TINY | {"seed": [0, 1]}))
    assert [row["job"] for row in found.found] == ["seed=0", "seed=1"] and repr(found) == "<train: 2 rows>"
    assert found._repr_html_().count("<tr>") == 3


def test_pictures_are_shown_where_they_are(elsewhere: Path) -> None:
    import base64

    dot = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
    )
    (elsewhere / "dot.png").write_bytes(dot)
    for result in (Result("train", {"run_dir": "."}), Result("visualize", [{"what": "filters", "file": "dot.png"}])):
        assert [file.name for file in result.pictures] == ["dot.png"]
        assert "data:image/png;base64," in result._repr_html_()


def test_mistakes_are_raised_with_the_command_lines_sentences(elsewhere: Path) -> None:
    for settings, said in (
        ({"modle": "resnet8"}, "Did you mean 'model'?"),
        ({"epochs": 0}, "epochs=0 is out of range"),
        ({"devices": 2}, "devices= is for the command line"),
        ({"format": "json"}, "a result is returned"),
    ):
        with pytest.raises(cnnbench.UserError, match=said.replace("?", r"\?")):
            cnnbench.train(**settings)
    assert list(elsewhere.iterdir()) == []


def test_values_are_typed_as_on_the_command_line() -> None:
    values = (None, True, 0.5, "a", Path("b/c"), ["x y", "z"], [1, 2], Result("train", {"run_dir": "outputs/x"}))
    assert [as_typed(value) for value in values] == [
        "null", "true", "0.5", "a", "b/c", "['x y','z']", "[1,2]", "outputs/x",
    ]  # fmt: skip
    assert as_typed([None, True, "a"], is_sweep=True) == "null,true,a"


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(cnnbench.__file__).parent / "py.typed").is_file()
    assert all(getattr(cnnbench, name) for name in cnnbench.__all__)
