"""Weights from elsewhere: where they are found, and what is refused."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import models
from cnnbench.data.model_spec import InputSpec, ModelSpec
from cnnbench.models.layers import Net
from cnnbench.utils.errors import UserError
from cnnbench.weights import sources

SPEC = ModelSpec(model={"name": "resnet8", "shortcut": "A"}, labels=list("abc"),
                 input=InputSpec(image_size=32, in_channels=3, mean=[0.5] * 3, std=[0.25] * 3))  # fmt: skip


def net() -> Net:
    return models.build("resnet8", num_classes=3)


def test_a_bare_state_dict_a_wrapped_one_and_safetensors_hold_the_same(tmp_path: Path) -> None:
    state = net().state_dict()
    torch.save(state, tmp_path / "bare.pth")
    wrapped = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": wrapped, "best_prec1": 91.7}, tmp_path / "wrapped.th")
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "compiled.pt")
    sources.save_safetensors(tmp_path / "ours.safetensors", state, SPEC, seed=3)
    for name in ("bare.pth", "wrapped.th", "compiled.pt", "ours.safetensors"):
        found = sources.load(str(tmp_path / name))
        assert found.state.keys() == state.keys(), name
        assert all(torch.equal(found.state[key], state[key]) for key in state)
        assert (found.spec == SPEC) is (name == "ours.safetensors")


def test_safetensors_of_ours_are_all_that_it_takes_to_use_the_net(tmp_path: Path) -> None:
    ours = net()
    sources.save_safetensors(tmp_path / "net.safetensors", ours.state_dict(), SPEC)
    again = sources.build(sources.load(str(tmp_path / "net.safetensors")))
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), ours.eval()(images))


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evidence"),))


def test_a_file_that_would_run_code_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    torch.save({"conv": Evil()}, "evil2.pt")
    for name, said in (
        ("evil.pt", "a pickle that torch.save did not write"),
        ("evil2.pt", "'conv' is of type getattr"),
    ):
        with pytest.raises(UserError, match=said):
            sources.load(name)
    assert not Path("evidence").exists()


def test_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    torch.save(net().state_dict(), tmp_path / "net.pt")
    sources.save_safetensors(tmp_path / "net.safetensors", net().state_dict(), SPEC)
    for name in ("net.pt", "net.safetensors"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(UserError, match="damaged"):
            sources.load(str(file))


@pytest.mark.parametrize(("name", "instead"), [("alexnet", "alexnet_owt"), ("googlenet", "googlenet_tv"),
                                               ("resnet50_v1", "resnet50"), ("plain34", "resnet34"),
                                               ("vgg16_c", "vgg16")])  # fmt: skip
def test_a_variant_without_published_weights_names_the_one_that_has_them(name: str, instead: str) -> None:
    with pytest.raises(UserError, match=f"model={instead}"):
        sources.load("imagenet", {"name": name})


def test_all_that_have_published_weights_are_nets_of_torchvision() -> None:
    from torchvision.models import get_model_weights

    for ours, theirs in sources.TWINS.items():
        assert ours in models.MODELS
        assert len(get_model_weights(theirs)) > 0
    assert not sources.TWINS.keys() & sources.NEAREST.keys()
    assert set(sources.NEAREST.values()) <= sources.TWINS.keys()


def test_published_weights_come_with_their_own_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in torch's cache stands for the published one: it is not fetched again, and read as data only."""
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    ours = models.build("resnet18")
    torch.save(ours.state_dict(), folder / Path(ResNet18_Weights.IMAGENET1K_V1.url).name)
    found = sources.load("imagenet", {"name": "resnet18", "shortcut": "B"})
    assert found.spec is not None
    assert found.spec.labels[:2] == ["tench", "goldfish"]
    assert found.spec.input.mean == [0.485, 0.456, 0.406]
    assert (found.spec.input.image_size, round(224 / found.spec.input.crop_ratio)) == (224, 256)
    assert torch.equal(sources.build(found).state_dict()["fc.weight"], ours.state_dict()["fc.weight"])
    with pytest.raises(UserError, match="unknown version of the weights of resnet18 'V7'"):
        sources.load("imagenet:V7", {"name": "resnet18"})


def test_without_a_network_the_user_is_told_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError) as error:
        sources.load("imagenet", {"name": "resnet34"})
    text = str(error.value)
    assert "resnet34-" in text
    assert str(tmp_path / "hub" / "checkpoints") in text
    assert "TORCH_HOME" in text
    assert "weights=FILE" in text


def test_a_url_and_an_unknown_zoo_net_are_refused() -> None:
    with pytest.raises(UserError, match="fetch the file yourself"):
        sources.load("https://example.org/net.pt")
    with pytest.raises(UserError, match="unknown weights in the zoo 'resnet21'"):
        sources.load("zoo:resnet21")
