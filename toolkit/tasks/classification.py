"""Holds a ready task for a classifier of your own: a model, data, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.state import load_state, versions_of
from toolkit.hooks.state_dicts import plain_weights
from toolkit.hooks.trial import described, told, try_model, users_code
from toolkit.hooks.unfit import refuse_unfit
from toolkit.tasks.classifier import BINARY_CLASSES, Classifier, logits_of
from toolkit.tasks.examples import Examples, ExampleSet
from toolkit.tasks.overlap import check_apart, origins_of
from toolkit.tasks.rebuilt import check_rebuilt
from toolkit.tasks.task import Batch, Split
from toolkit.tasks.trial import smallest_batch

FROM_TRAINING: tuple[Split, ...] = ("score", "calibration", "holdout")

MOST_FIXED_EXAMPLES = 512  # in each of these splits, unless `fixed_examples` says otherwise

NUM_TRIED = 16  # examples that the trained model is tried on before any work


class ClassificationTask(Classifier):
    """Makes a `Task` of any model that gives logits [B, classes], or an object with such `logits` (transformers).

    Labels are whole numbers from 0. A model of one logit tells class 1 (above 0) from class 0. The splits for scoring,
    calibration and holdout are disjoint random parts of `train`.

    build_model: builds the architecture.
    trained: the trained weights or a trained model; parameters that a model has frozen (requires_grad) stay frozen.
    train, validation, test: tensors (inputs..., labels), or datasets whose items are (inputs..., label) and the same
        whenever they are read.
    augmented: the examples of `train` in the same order, with random augmentation; only training reads them.
    name: the name of the task, which recipes give.
    protected: names of modules whose widths must not change.
    fixed_examples: the number of examples in each of the three splits; None takes a third of `train`, up to 512.
    seed: fixes the draw of the three splits.
    other_inputs: as in `Task`.
    """

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        trained: nn.Module | Mapping[str, Tensor],
        *,
        train: Examples,
        validation: Examples,
        test: Examples,
        augmented: Examples | None = None,
        name: str = "classification",
        protected: tuple[str, ...] = (),
        fixed_examples: int | None = None,
        seed: int = 0,
        other_inputs: Sequence[tuple[Tensor, ...]] = (),
    ) -> None:
        """Checks weights, data and labels, and compares the rebuilt baseline with the trained model.

        Raises:
            UserError: weights, data or labels cannot be used, or the baseline is not the trained model.
        """
        self.name, self.protected, self.build_model = name, protected, build_model
        self.other_inputs = tuple(other_inputs)
        if train is test or train is validation or validation is test:
            raise UserError("train, validation and test must be different data: no figure would mean anything")
        built = self._built()
        if isinstance(trained, nn.Module) and not hasattr(trained, "_orig_mod"):
            refuse_unfit(trained, "trained")
        weights = _weights_of(trained, built)
        self._weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
        self._versions = versions_of(trained.state_dict() if isinstance(trained, nn.Module) else trained)
        self._trains = (
            {key: part.requires_grad for key, part in trained.named_parameters()}
            if isinstance(trained, nn.Module)
            else {}
        )
        self._train = ExampleSet("train", train)
        self._augmented = self._train if augmented is None else ExampleSet("augmented", augmented)
        if len(self._augmented) != len(self._train):
            raise UserError(f"augmented has {len(self._augmented)} examples, train {len(self._train)}: they must match")
        measured: dict[Split, ExampleSet] = {
            "validation": ExampleSet("validation", validation),
            "test": ExampleSet("test", test),
        }
        count = min(MOST_FIXED_EXAMPLES, len(self._train) // 3) if fixed_examples is None else fixed_examples
        self._splits = _draw(self._train, count, seed) | {split: (data, data.all) for split, data in measured.items()}
        self._check_data(measured)
        self._check_model(trained)

    def load_baseline(self) -> nn.Module:
        """Returns the model with its trained weights, in eval mode on the CPU."""
        model = self._built()
        load_state(model, self._weights, self._versions)
        for key, part in model.named_parameters():
            part.requires_grad_(self._trains.get(key, part.requires_grad))
        return model.cpu().eval()

    def _built(self) -> nn.Module:
        with users_code("build_model fails"):
            model = self.build_model()
        if not isinstance(model, nn.Module):
            raise UserError(f"build_model gives {described(model)}; it must build a torch.nn.Module")
        refuse_unfit(model, "what build_model builds")
        return model

    def _check_data(self, measured: Mapping[Split, ExampleSet]) -> None:
        """Reads a few items, and checks that items and labels are usable and that no two splits share examples."""
        for data in (self._train, *measured.values()):
            data.check(repeats=True)
        if self._augmented is not self._train:
            self._augmented.check(repeats=False)
        training = {data.name: data.data for data in (self._train, self._augmented)}
        check_apart({**training, **{split: examples.data for split, examples in measured.items()}}, alike=training)

    def _check_model(self, trained: nn.Module | Mapping[str, Tensor]) -> None:
        """Checks that the baseline runs, gives logits, and computes what the trained model does."""
        baseline = self.load_baseline()
        self._smallest_batch = smallest_batch(baseline, self.example_inputs)
        examples, places = self._splits["score"]
        batch = examples.batch(_repeated(places, max(min(NUM_TRIED, len(places)), self._smallest_batch)))
        logits = logits_of(try_model(baseline, batch.inputs), len(batch.targets))
        _check_logits(logits, batch.targets)
        classes = max(logits.shape[1], BINARY_CLASSES)
        examples_of_splits = (data for data, _ in self._splits.values())
        for data in {id(data): data for data in (self._augmented, *examples_of_splits)}.values():
            data.classes = classes
            data.check(repeats=False)
        if isinstance(trained, nn.Module):
            check_rebuilt(trained, baseline, batch.inputs, "the model given as `trained`")

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns the inputs of examples of the scoring split, which are repeated where there are too few."""
        examples, places = self._splits["score"]
        return examples.batch(_repeated(places, batch_size)).inputs

    def num_examples(self, split: Split) -> int:
        """Returns the number of examples in a split."""
        return len(self._splits[split][1])

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the examples of a split in order; no batch is smaller than the model takes."""
        examples, places = self._splits[split]
        places = places[:limit]
        batch_size, first = max(batch_size, self._smallest_batch), 0
        while first < len(places):
            rest = len(places) - first - batch_size
            size = batch_size if rest >= self._smallest_batch or rest <= 0 else batch_size + rest
            yield examples.batch(places[first : first + size])
            first += size

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields shuffled epochs without end; an incomplete last batch is left out, as BatchNorm needs full ones."""
        generator = torch.Generator().manual_seed(seed)
        total = len(self._augmented)
        places = torch.randperm(total, generator=generator)[: max(1, round(share * total))]
        while True:
            shuffled = places[torch.randperm(len(places), generator=generator)].tolist()
            for first in range(0, max(1, len(places) - batch_size + 1), batch_size):
                yield self._augmented.batch(shuffled[first : first + batch_size])


def _draw(train: ExampleSet, count: int, seed: int) -> dict[Split, tuple[ExampleSet, list[int]]]:
    if count < 1 or count * len(FROM_TRAINING) > len(train):
        raise UserError(
            f"fixed_examples is {count}, but {', '.join(FROM_TRAINING)} are disjoint parts of train, which has "
            f"{len(train)} examples: choose 1 to {len(train) // len(FROM_TRAINING)}"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    origins = origins_of(train.data)
    firsts = set({origin: place for place, origin in reversed(list(enumerate(origins)))}.values())
    if len(firsts) >= count * len(FROM_TRAINING):  # else the data repeat by nature
        order = [place for place in order if place in firsts]
    return {split: (train, order[part * count : (part + 1) * count]) for part, split in enumerate(FROM_TRAINING)}


def _repeated(places: Sequence[int], count: int) -> list[int]:
    return [places[number % len(places)] for number in range(count)]


def _weights_of(trained: Any, built: nn.Module) -> Mapping[str, Tensor]:
    """Returns the trained weights by name.

    built: a model of `build_model`; the weights are loaded into it.

    Raises:
        UserError: the weights do not fit; the message says what to pass instead.
    """
    is_module = isinstance(trained, nn.Module)
    weights, what = (trained.state_dict(), "trained.state_dict()") if is_module else (trained, "trained")
    expected = built.state_dict()
    try:
        load_state(built, weights)
    except Exception as error:  # the user may have given anything instead of weights
        wrapped = [name for name in ("module", "_orig_mod") if isinstance(getattr(trained, name, None), nn.Module)]
        if is_module and wrapped:
            raise UserError(f"trained is {described(trained)} around the model: pass trained.{wrapped[0]}") from error
        plain_weights(weights, expected, what)
        raise UserError(f"the weights do not fit what build_model builds: {told(error)}") from error
    is_plain = all(isinstance(value, Tensor) for value in weights.values())
    if is_plain and all(expected[name].dtype == value.dtype for name, value in weights.items() if name in expected):
        return dict(weights)
    return plain_weights(weights, expected, what)


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raises UserError where the trained model's outputs are not finite, or are probabilities instead of logits."""
    if not bool(logits.isfinite().all()):
        raise UserError(
            f"the trained model's outputs on {len(logits)} training examples are not finite numbers (NaN or infinite); "
            "look at its weights and at the data"
        )
    are_shares = bool(((logits >= 0) & (logits <= 1)).all())
    if logits.shape[1] == 1:
        if are_shares and len(logits) >= NUM_TRIED // 2 and bool((labels != labels[0]).any()):
            raise UserError(
                f"the trained model's one output is between 0 and 1 on all {len(logits)} examples that were tried, as "
                "after a sigmoid; it must be a logit (class 1 above 0): leave the sigmoid out of the model"
            )
    elif are_shares and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        raise UserError(
            "the trained model's outputs are probabilities that add up to 1, as after a softmax; the losses need "
            "logits: leave the softmax out of the model"
        )
