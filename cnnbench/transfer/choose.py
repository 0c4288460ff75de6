"""Chooses the transfer strategy: the lecture's 2x2 of how much data there is and how similar it is to the net's own.

                          little data                           a lot of data
    similar data          svm: a linear SVM on the              partial: fine-tune the upper
                          bottleneck features                   layers
    different data        deep_features: a linear SVM on        full: fine-tune all layers
                          the features of an earlier stage

Amount: images per class. Similarity: a linear classifier is fitted on the features of each stage and measured on
held-out images, by the balanced error: each class counts once, however many images it has. The best earlier stage is
compared with the last features, which were made for the classes that the net was trained on. If the 95 % interval of
the difference says that the last are better, the data are similar; if it says that the earlier stage is, they are
different. If it holds 0, that is undecided: both strategies are tried. If no stage beats the answer that is always the
same, nothing is advised.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cnnbench import data
from cnnbench.config.sections import Format, Strategy
from cnnbench.data import Dataset
from cnnbench.data.balance import class_counts, unequal
from cnnbench.data.spread import shorter_side
from cnnbench.output.tables import render
from cnnbench.transfer.features import PENULTIMATE, FeatureExtractor
from cnnbench.transfer.stage_errors import is_open, stage_errors
from cnnbench.utils.format import plural

SMALL, MISSED = 64, 5.0  # a net for so few pixels may be the cause of an error of more than so many percent
PAYS = 20  # images per class from which on fine-tuning erred less where data were not different (docs/transfer.md)
SURE = 3  # standard errors below chance: the best of some 28 tries is in part the luckiest

QUADRANTS = {  # (a lot of data, similar data): strategy, the lecture's advice
    (False, True): (Strategy.svm, "little data, similar: a linear SVM on top of the bottleneck features"),
    (False, False): (
        Strategy.deep_features,
        "little data, different: a classifier on features from earlier in the net",
    ),
    (True, True): (Strategy.partial, "a lot of data, similar: fine-tune the upper layers"),
    (True, False): (Strategy.full, "a lot of data, different: fine-tune all layers, from these weights"),
}
UNDECIDED = {  # a lot of data: the advice, where it is open whether the data are similar
    False: "little data, undecided: an SVM on the last and on earlier features, by cross-validation the better one",
    True: "a lot of data, undecided: the upper and all layers are fine-tuned on four fifths of the images, and what "
          "errs less on the last fifth on all of them",
}  # fmt: skip


NOTHING = {  # a lot of data: strategy, where no stage is of use
    False: (Strategy.svm, "no strategy can be advised: look at the images (cnnbench doctor data), or try another net; "
            "the quickest is an SVM"),
    True: (Strategy.full, "no strategy can be advised: look at the images (cnnbench doctor data), or try another net; "
           "with this many images all layers may learn"),
}  # fmt: skip


@dataclass(frozen=True)
class StrategyAdvice:
    """Chosen strategy and its reasons; `auto` while two are to be tried.

    errors: held-out balanced error in percent of a linear classifier on each stage; gain: points by which `earlier`,
    the best stage before the last features, errs less than these, and the 95 % interval of that; chance_error: that of
    the answer that is always the same; tried: held-out error of each strategy that was tried.
    """

    strategy: Strategy
    quadrant: str
    images_per_class: float
    many: int
    errors: dict[str, float]
    earlier: str
    gain: tuple[float, float, float]
    chance_error: float
    n: int
    beats_chance: bool = True
    counts: tuple[int, ...] = ()
    small_net: str = ""  # sentence where the net may be too small for the images
    grouped: bool = False  # whether whole groups were left out
    tried: Mapping[Strategy, float] = field(default_factory=dict)

    @property
    def a_lot(self) -> bool:
        return self.images_per_class >= self.many

    @property
    def may_train(self) -> bool:
        """Whether fine-tuning may well err less than the classifier that is advised for its seconds."""
        return not self.a_lot and self.images_per_class >= PAYS and self.similar is not False

    @property
    def similar(self) -> bool | None:
        """None: it cannot be said."""
        if self.earlier == PENULTIMATE or not self.beats_chance:  # a net of a single stage has nothing to compare
            return True if self.beats_chance else None
        return None if is_open(self.gain) else self.gain[0] < 0

    @property
    def candidates(self) -> tuple[Strategy, ...]:
        """Strategies to try, where the advice is open; of equal ones the first is taken."""
        return tuple(QUADRANTS[self.a_lot, similar][0] for similar in (True, False)) if self._undecided else ()

    @property
    def _undecided(self) -> bool:
        return self.beats_chance and self.similar is None

    def after(self, tried: Mapping[Strategy, float]) -> "StrategyAdvice":
        """Advice with the strategy whose held-out error is lowest."""
        best = min(self.candidates, key=lambda strategy: tried[strategy])
        return replace(self, strategy=best, tried=dict(tried))

    def text(self, command: str) -> str:
        best = min(self.errors, key=lambda name: self.errors[name])
        rows = [
            {
                "features": name,
                "held-out error": f"{error:.1f} %",
                "": "<- best" if name == best and self.beats_chance else "",
            }
            for name, error in self.errors.items()
        ]
        return "\n".join([
            f"a linear classifier on the features of each stage, {plural(self.n, 'image')}, "
            f"each {'group ' if self.grouped else ''}left out in turn"
            f"{'; each class counts once' if unequal(self.counts) else ''}:",
            *(f"  {line}" for line in render(rows, Format.table).splitlines()),
            f"data   {'a lot' if self.a_lot else 'little'}: {plural(round(self.images_per_class), 'image')} per class"
            f"{self._range()} (a lot from {self.many:,} on)",
            f"       {self._nearness()}",
            *([f"net    {self.small_net}"] if self.small_net else []),
            f"so     {self.quadrant}",
            *([self.trial()] if self.tried else []),
            *(["more   transfer=full may err less, in more time (docs/transfer.md)"] if self.may_train else []),
            f"       {command}",
        ])  # fmt: skip

    def _range(self) -> str:
        return f", {min(self.counts):,} to {max(self.counts):,}" if unequal(self.counts) else ""

    def _nearness(self) -> str:
        chance = f"guessing errs on {self.chance_error:.0f} %"
        if not self.beats_chance:
            lowest = min(self.errors.values())
            return (f"neither similar nor different: no stage is clearly better than always the same answer "
                    f"({lowest:.1f} % wrong; {chance})")  # fmt: skip
        points, low, high = self.gain
        if points < 0:
            points, low, high = -points, -high, -low
        better = f"by {points:.1f} points (95 %: {low:.1f} to {high:.1f}; {chance})"
        if self._undecided:
            return f"similar or different: {self.earlier} and the last features differ {better}, which may be 0"
        if self.similar:
            return f"similar: the last features separate the classes better than {self.earlier}, {better}"
        return f"different: {self.earlier} separates the classes better than the last features, {better}"

    def trial(self) -> str:
        """Line on what was tried."""
        found = ", ".join(f"{strategy.value} {error:.1f} %" for strategy, error in self.tried.items())
        return f"tried  {found} wrong on held-out images: transfer={self.strategy.value}"

    def as_dict(self) -> dict[str, Any]:
        points, low, high = self.gain
        return {
            "strategy": self.strategy.value,
            "quadrant": self.quadrant,
            "images_per_class": self.images_per_class,
            "similar": self.similar,
            "best_features": min(self.errors, key=lambda name: self.errors[name]),
            "earlier_features": self.earlier,
            "gain_of_earlier": {"points": points, "interval": [low, high]},
            "held_out_errors": self.errors,
            "chance_error": self.chance_error,
            "n": self.n,
            "beats_chance": self.beats_chance,
            "small_net": self.small_net or None,
            "tried": {strategy.value: error for strategy, error in self.tried.items()} or None,
        }


def choose_strategy(extractor: FeatureExtractor, dataset: Dataset, many: int) -> StrategyAdvice:
    """Advice for the data: both axes are measured on some of the training images."""
    found = stage_errors(extractor, dataset.train)
    errors, counts = found.errors, class_counts(dataset.train, len(dataset.classes))
    chance = 100 * (1 - 1 / sum(count > 0 for count in counts))
    advice = StrategyAdvice(
        strategy=Strategy.auto,
        quadrant="",
        images_per_class=len(dataset.train) / len(counts),
        many=many,
        errors=errors,
        earlier=found.earlier,
        gain=found.gain(found.earlier),
        chance_error=chance,
        n=len(found.sample),
        beats_chance=min(errors.values()) < chance - SURE * standard_error(chance, found.n),
        counts=counts,
        small_net=too_small(extractor, dataset) if min(errors.values()) > MISSED else "",
        grouped=data.groups_of(found.sample) is not None,
    )
    return replace(advice, **_advised(advice))


def _advised(advice: StrategyAdvice) -> dict[str, Any]:
    """The strategy and the quadrant."""
    if advice.candidates:
        return {"quadrant": UNDECIDED[advice.a_lot]}
    similar = advice.similar
    strategy, quadrant = NOTHING[advice.a_lot] if similar is None else QUADRANTS[advice.a_lot, similar]
    return {"strategy": strategy, "quadrant": quadrant}


def too_small(extractor: FeatureExtractor, dataset: Dataset) -> str:
    """Sentence where a net for small images judges larger ones; empty where that is not so."""
    size, side = extractor.spec.input.image_size, shorter_side(dataset.train)
    if size > SMALL or side < 2 * size:
        return ""
    return (
        f"{extractor.spec.model['name']} sees {size} px of images of {side} px, too few for most photographs: a net "
        "for 224 px errs far less, as model=resnet34 (docs/your-data.md)"
    )


def standard_error(error: float, n: float) -> float:
    """Standard error of an error in percent of n images."""
    p = error / 100
    return 100 * math.sqrt(max(p * (1 - p), 1 / n) / n)
