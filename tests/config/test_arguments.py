"""Text on the command line stays what was typed: paths with blanks, quotes, commas, and what looks like a number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from cnnbench.config import commands, expand, parsing, schema_keys
from cnnbench.config.arguments import hydra_arguments, in_quotes, sweep_dir, unquoted
from cnnbench.runs.run_directory import sweep_overrides
from cnnbench.utils.errors import UserError
from tests.helpers.runs import Ran

ODD = ["1e3", "007", "1_000", "nan", "inf", ".5", "true", "False", "com,ma", ",", "[x]", "{a:1}", "~", "~/x", "b\\s",
       "a\\", "a\\\\", "it's", "\\'", '"', "'", " a  b ", "a=b", "=", "(x)", "choice(a)", "$x", "a:b", "x#y", "é", "🦆",
       "a;b", "a&b", "!x", "a\tb", "@x", "%41", "-x", "*", "?", "|", "`", "C:\\x\\y", "..", "true.png"]  # fmt: skip
NEEDED = {"predict": ("weights=w", "input=i"), "export": ("weights=w",), "evaluate": ("weights=w",)}


@pytest.mark.parametrize("text", ODD)
def test_a_path_is_read_as_it_was_typed(compose: Callable[..., Any], text: str) -> None:
    args = hydra_arguments("train", [f"{key}={text}" for key in ("run.dir", "data.root", "weights", "max_time")])
    cfg = compose(*args)
    assert (cfg.run.dir, cfg.data.root, cfg.weights, cfg.max_time) == (text,) * 4
    bare = f"./{text}" if text[0] == "-" or "=" in text else text
    cfg = compose(*hydra_arguments("predict", [bare, "weights=1e3", f"out={text}"]), command="predict")
    assert (cfg.input, cfg.weights, cfg.out) == ([bare], "1e3", text)


@pytest.mark.parametrize("text", ODD)
def test_quotes_and_back(text: str) -> None:
    assert unquoted(in_quotes(text)) == text == unquoted(text)
    assert sweep_dir(["sweep.dir=other", f"sweep.dir={in_quotes(text)}"]) == text


def test_null_quotes_and_interpolations_keep_their_meaning(compose: Callable[..., Any]) -> None:
    given = ["data.root=null", "run.dir='a b'", "run.root=/x", "sweep.dir=${run.root}/y", 'weights="null"']
    cfg = compose(*hydra_arguments("train", given))
    assert (cfg.data.root, cfg.run.dir, cfg.sweep.dir, cfg.weights) == (None, "a b", "/x/y", "null")


@pytest.mark.parametrize("command", commands.SCHEMAS)
def test_every_key_of_text_takes_a_number_as_text(compose: Callable[..., Any], command: str) -> None:
    keys = schema_keys.text_keys(commands.SCHEMAS[command]) - {
        "data.name",
        "crop.name",
        "task",
    }  # names of files in conf
    for key in sorted(keys):
        needed = [arg for arg in NEEDED.get(command, ()) if not arg.startswith(f"{key}=")]
        cfg = compose(*hydra_arguments(command, [*needed, f"{key}=1e3"]), command=command)
        for name in key.split("."):
            cfg = getattr(cfg, name)
        assert cfg == "1e3", key


def test_a_file_with_an_equals_sign_is_an_input(
    cnnbench: Callable[..., Ran], compose: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "a=b.png").touch()
    (tmp_path / "data").mkdir()
    given = ["a=b.png", "./c=d.png", "data/e=f.png", "a=*", "top=3", "weights=w"]
    cfg = compose(*hydra_arguments("predict", given), command="predict")
    assert (cfg.input, cfg.top) == (["a=b.png", "./c=d.png", "data/e=f.png", "a=*"], 3)
    Path("top=4").touch()
    args = hydra_arguments("predict", ["top=4", "top=3", "weights=w"])
    assert args == ["top=3", "weights=w", "input=['top=4']"]
    for wrong in ("wieghts=x", "c=d.png", "~weights"):
        assert wrong in hydra_arguments("predict", [wrong, "i.png"])
    ran = cnnbench("predict", "no=such.png", "weights=w")
    assert ran.code == 2 and "unknown key 'no'" in ran.err


def test_in_a_sweep_each_value_is_text(compose: Callable[..., Any]) -> None:
    args = hydra_arguments("train", ["-m", "data.root=1e3,it's,'x,y'", "weights=choice(a,b)", "run.root='o u'"])
    args = [*args, *sweep_overrides("train", args, [])]
    jobs, keys = expand.sweep_jobs(args) or ([], [])
    assert keys == ["data.root", "weights"] and len(jobs) == 6
    roots = [compose(*(text for text in job if text.startswith("data.root="))).data.root for job in jobs]
    assert roots[::2] == ["1e3", "it's", "x,y"]
    assert sweep_dir(args).startswith("o u/train/sweep-")
    assert expand.sweep_jobs([*hydra_arguments("train", ["-m", "data.root='x,y'"]), "sweep.keys=[]"])[0] == [
        ["data.root='x,y'", "sweep.keys=[]"]
    ]


def test_a_replayed_run_takes_text_too(cnnbench: Callable[..., Ran], tmp_path: Path, compose: Any) -> None:
    cfg = compose()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(parsing.to_plain(cfg)))
    overrides = hydra_arguments("train", ["run.dir=it's 1e3", "data.root=1e3", "epochs=7", "weights=null"])
    again = parsing.load_saved("train", tmp_path / "config.yaml", overrides)
    assert (again.run.dir, again.data.root, again.epochs, again.weights) == ("it's 1e3", "1e3", 7, None)


def test_plain_values_are_those_of_omegaconf(compose: Callable[..., Any]) -> None:
    """Types and order too, as they are written: of defaults, missing values, and a configuration that was composed."""
    composed = compose("data=folder", "data.root=d", "model=vgg11", "weights_skip=[a,b]", "optim.lr=1", "ema=0.9")
    for config in (*commands.SCHEMAS.values(), composed):
        theirs = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
        assert repr(parsing.to_plain(config)) == repr(theirs)


def test_images_with_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b.png").touch()
    assert hydra_arguments("visualize", ["images=a,b.png", "what=x,y"]) == ["images='a,b.png'", "what=['x','y']"]
    assert hydra_arguments("visualize", ["images=c,[d].png", "layer=[x]"]) == ["images=['c','[d].png']", "layer=[x]"]


def test_a_nul_in_a_saved_configuration_is_a_sentence(compose: Callable[..., Any]) -> None:
    cfg = compose("data=folder", "data.root=d")
    cfg.data.root = "a\0b"
    with pytest.raises(UserError, match=r"data\.root=a\0b: it holds a NUL character"):
        parsing.from_plain(commands.TrainConfig, parsing.to_plain(cfg))
