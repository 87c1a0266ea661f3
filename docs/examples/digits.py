"""A sweep over sixty models of handwritten digits, from the images to a table and a plot.

Arrays, data frames and fitted models are results here, without a line that saves or loads them.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from furu import Furu, run_local


class Samples(NamedTuple):
    """Images as rows of 64 grey values, and the digit on each of them."""

    images: np.ndarray
    labels: np.ndarray


class Halves(NamedTuple):
    """Samples to fit a model to, and samples to test it with."""

    train: Samples
    test: Samples


class Digits(Furu[Samples]):
    """All 1,797 images."""

    def _create(self) -> Samples:
        return Samples(*load_digits(return_X_y=True))


class Split(Furu[Halves]):
    """The images, divided at random."""

    digits: Digits
    seed: int

    def _create(self) -> Halves:
        images, labels = self.digits.get()
        parts = train_test_split(images, labels, test_size=0.5, random_state=self.seed)
        return Halves(Samples(parts[0], parts[2]), Samples(parts[1], parts[3]))


class Scaled(Furu[Halves]):
    """The divided images, with each grey value scaled."""

    split: Split
    by_range: bool

    def _create(self) -> Halves:
        train, test = self.split.get()
        scaler = MinMaxScaler() if self.by_range else StandardScaler()
        scaler.fit(train.images)
        return Halves(*(part._replace(images=scaler.transform(part.images)) for part in (train, test)))


class Model(Furu[RidgeClassifier]):
    """One fitted model."""

    _codec = "pickle"  # JSON has no form for a model

    scaled: Scaled
    strength: float

    def _create(self) -> RidgeClassifier:
        train = self.scaled.get().train
        return RidgeClassifier(alpha=self.strength).fit(train.images, train.labels)


class Accuracy(Furu[float]):
    """The share of test images that a model recognises."""

    model: Model

    def _create(self) -> float:
        test = self.model.scaled.get().test
        return self.model.get().score(test.images, test.labels)


class Scores(Furu[pd.DataFrame]):
    """One row for each model."""

    models: list[Accuracy]

    def _create(self) -> pd.DataFrame:
        rows = [
            (score.model.scaled.by_range, score.model.strength, score.model.scaled.split.seed, score.get())
            for score in self.models
        ]
        return pd.DataFrame(rows, columns=["by_range", "strength", "seed", "accuracy"])


class Plot(Furu[Path]):
    """The mean accuracy against the strength, as a picture."""

    scores: Scores

    def _create(self) -> Path:
        from matplotlib.figure import Figure

        means = self.scores.get().pivot_table("accuracy", "strength", "by_range")
        figure = Figure()
        means.plot(ax=figure.subplots(), logx=True, ylabel="accuracy")
        path = self.furu_dir / "accuracy.png"
        figure.savefig(path)
        return path


splits = [Split(digits=Digits(), seed=seed) for seed in range(3)]
scaled = [Scaled(split=split, by_range=by_range) for split in splits for by_range in (False, True)]
models = [Model(scaled=part, strength=strength) for part in scaled for strength in np.logspace(-2, 4, 10)]
scores = Scores(models=[Accuracy(model=model) for model in models])
plot = Plot(scores=scores)

if __name__ == "__main__":
    print(run_local([plot]).summary().partition(" in ")[0])
    means = scores.get().groupby("by_range")["accuracy"].max()
    print(means.round(3).to_dict())
    print(plot.get().name)
