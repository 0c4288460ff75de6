"""The choice of a strategy."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cnnbench.config.sections import Strategy
from cnnbench.data import Arrays, Dataset, Source
from cnnbench.transfer import choose
from cnnbench.transfer.features import PENULTIMATE
from cnnbench.transfer.stage_errors import is_open
from cnnbench.transfer.trial import try_fitted
from tests.helpers.batches import arrays
from tests.helpers.tiny import Tiny


class Extractor:
    """Features of a net for 32 px: noise, or the class itself."""

    def __init__(self, useful: bool) -> None:
        self.useful, self.model = useful, Tiny()
        self.spec = SimpleNamespace(model={"name": "tiny"}, input=SimpleNamespace(image_size=32))

    def __call__(self, source: Source, names: list[str]) -> dict[str, torch.Tensor]:
        noise = torch.randn(len(source), 8, generator=torch.Generator().manual_seed(0))
        return {name: noise + (4 * torch.eye(8)[source.targets] if self.useful else 0) for name in names}


def dataset_of(counts: tuple[int, ...], side: int) -> Dataset:
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    whole = arrays(len(targets), side)
    assert isinstance(whole.train, Arrays)
    return replace(whole, classes=list("abc")[: len(counts)], train=Arrays(whole.train.images, targets))


@pytest.mark.parametrize(("many", "strategy"), [(500, "svm"), (10, "full")])
def test_where_no_stage_beats_the_commonest_answer_nothing_is_advised(many: int, strategy: str) -> None:
    """110 : 9, by the top-1 error 7.6 % wrong, which looks good; and the small net is named."""
    advice = choose.choose_strategy(Extractor(False), dataset_of((110, 9), 96), many)
    assert (advice.strategy.value, advice.similar, advice.beats_chance) == (strategy, None, False)
    text = advice.text("cnnbench finetune")
    assert "each class counts once" in text and "60 images per class, 9 to 110" in text
    assert "neither similar nor different: no stage is clearly better than always the same answer" in text
    assert "guessing errs on 50 %" in text and "no strategy can be advised" in text and "<- best" not in text
    assert "tiny sees 32 px of images of 96 px, too few for most photographs" in text


def test_a_net_is_not_called_small_where_it_sees_the_whole_image_or_errs_little() -> None:
    for useful, side in ((False, 40), (True, 96)):
        advice = choose.choose_strategy(Extractor(useful), dataset_of((40, 40, 40), side), 500)
        assert advice.beats_chance == useful and not advice.small_net
        assert "each class counts once" not in advice.text("") and "to" not in advice._range()


class Planted(Extractor):
    """The class stands out of the noise, by so much in each stage, independently."""

    def __init__(self, **strengths: float) -> None:
        super().__init__(useful=True)
        self.strengths = strengths

    def __call__(self, source: Source, names: list[str]) -> dict[str, torch.Tensor]:
        draw, eye = torch.Generator().manual_seed(0), torch.eye(8)[source.targets]
        noise = {name: torch.randn(len(source), 8, generator=draw) for name in self.strengths}
        return {name: noise[name] + self.strengths[name] * eye for name in names}


@pytest.mark.parametrize(("strengths", "similar", "little", "said"), [
    ({"stem": 1.0, "layer1": 1.0, PENULTIMATE: 4.0}, True, "svm", "the last features separate the classes better than"),
    ({"stem": 4.0, "layer1": 1.0, PENULTIMATE: 1.0}, False, "deep_features", "stem separates the classes better than"),
    ({"stem": 1.0, "layer1": 2.0, PENULTIMATE: 2.0}, None, "auto", "layer1 and the last features differ by"),
])  # fmt: skip
def test_the_interval_decides_or_leaves_it_open(
    strengths: dict[str, float], similar: bool | None, little: str, said: str
) -> None:
    dataset = dataset_of((40, 40, 40), 40)
    advice = choose.choose_strategy(Planted(**strengths), dataset, 500)
    assert (advice.similar, advice.strategy.value) == (similar, little)
    assert said in advice.text("") and advice.as_dict()["gain_of_earlier"]["points"] == advice.gain[0]
    assert is_open(advice.gain) == (similar is None)
    many = choose.choose_strategy(Planted(**strengths), dataset, 10)
    assert many.strategy.value == {True: "partial", False: "full", None: "auto"}[similar]
    assert [one.value for one in many.candidates] == ([] if similar is not None else ["partial", "full"])


def test_fine_tuning_is_named_where_it_may_err_less() -> None:
    near, far = ({"stem": 1.0, "layer1": 1.0, PENULTIMATE: 4.0}, {"stem": 4.0, "layer1": 1.0, PENULTIMATE: 1.0})
    for strengths, images, many, named in ((near, 40, 500, True), (near, 10, 500, False), (near, 40, 40, False),
                                           (far, 40, 500, False)):  # fmt: skip
        advice = choose.choose_strategy(Planted(**strengths), dataset_of((images,) * 3, 40), many)
        assert ("more   transfer=full may err less" in advice.text("")) == named, (strengths, images, many)


def test_where_it_is_open_the_classifier_that_errs_less_on_held_out_images_is_taken() -> None:
    dataset, cfg = dataset_of((40, 40, 40), 40), SimpleNamespace(transfer=SimpleNamespace(c=[0.01]))
    for strengths, best in (({"stem": 1.0, "layer1": 2.0, PENULTIMATE: 1.8}, Strategy.deep_features),
                            ({"stem": 1.0, "layer1": 1.8, PENULTIMATE: 2.0}, Strategy.svm)):  # fmt: skip
        extractor = Planted(**strengths)
        extractor.dataset = dataset
        advice = choose.choose_strategy(extractor, dataset, 500)
        tried = try_fitted(cfg, extractor, advice)  # type: ignore[arg-type]
        assert set(tried) == {Strategy.svm, Strategy.deep_features} and min(tried, key=tried.__getitem__) is best
        chosen = advice.after(tried)
        assert chosen.strategy is best and f"wrong on held-out images: transfer={best.value}" in chosen.text("")
    assert advice.after(dict.fromkeys(tried, 5.0)).strategy is Strategy.svm  # of equals, the last features


def test_the_quadrants_are_the_lectures() -> None:
    named = {key: strategy.value for key, (strategy, _) in choose.QUADRANTS.items()}
    assert named == {
        (False, True): "svm",
        (False, False): "deep_features",
        (True, True): "partial",
        (True, False): "full",
    }
