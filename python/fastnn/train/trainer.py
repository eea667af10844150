"""The training loop: epochs of steps, evaluation, the best and the last checkpoint, early stopping, exact resume.

All that decides how training goes on is in ``Trainer.state_dict``: restored from it, the rest of a run gives the same
bits. Next: batches.py (loaders), state.py, checkpoint.py, metrics.py, finite.py (NaN), log.py, progress.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..autograd import Tensor, no_grad
from ..io import remove_leftovers
from ..kernels._backend import device_of, here
from ..random import get_rng_state, manual_seed, set_rng_state
from . import finite, log
from .batches import batches, host_array, length_of
from .checkpoint import CheckpointError, load_state, save_state, save_weights
from .metrics import Metric, Sums, resolve
from .progress import Progress
from .state import check_state, kinds
from .unread import Unread

__all__ = ["Trainer"]

Array = NDArray[Any]
READ_EVERY = 50  # steps on a GPU between two looks at their losses, where log_every does not say
_FILES = ("config.json", "last.safetensors", "best.safetensors", "log.jsonl", "curves.png")  # of a run


class Trainer:
    """Trains ``model`` by ``optimizer`` on ``loss(model(x), y)``, in a way that can be stopped and resumed exactly.

    ``scheduler`` is stepped every ``scheduler_every`` "epoch" or "step". ``metrics`` are names ("accuracy", "top5") or
    a dict of functions (outputs, targets) -> sum over the batch. ``monitor`` names what decides which epoch is the best
    (default: accuracy where it is measured, else the loss), taken on the validation data where there are any; with
    ``patience``, training stops after that many epochs in a row without a gain of more than ``min_delta``.

    ``out`` is the directory of the run, made if need be: ``last.safetensors`` (all there is to resume: model,
    optimizer, scheduler, random numbers, position, sums, history) and ``best.safetensors`` (the model's weights alone)
    after every epoch, ``last`` also every ``checkpoint_every`` steps; ``log.jsonl``, a line per epoch and every
    ``log_every`` steps; ``curves.png`` where matplotlib is installed. On a GPU the losses are read (and a NaN among
    them noticed) every ``log_every`` steps, or 50. ``about`` (plain JSON values) is stored in the
    checkpoints. ``seed`` seeds dropout; the loader has a seed of its own. ``quiet`` hides the progress bar, which is
    shown on terminals only.

    >>> trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.02), out="runs/mine")
    >>> trainer.fit(train_loader, test_loader, epochs=10, resume=True)
    """

    def __init__(
        self,
        model: Any,
        loss: Callable[[Any, Any], Any],
        optimizer: Any,
        *,
        scheduler: Any = None,
        scheduler_every: str = "epoch",
        metrics: Iterable[str] | Mapping[str, Metric] = ("accuracy",),
        monitor: str | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
        out: str | Path | None = None,
        checkpoint_every: int | None = None,
        log_every: int | None = None,
        about: Mapping[str, Any] | None = None,
        seed: int | None = None,
        device: str | None = None,
        quiet: bool = False,
    ) -> None:
        if scheduler_every not in ("epoch", "step"):
            raise ValueError(f"Trainer: scheduler_every must be 'epoch' or 'step', got {scheduler_every!r}")
        for name, value in (("checkpoint_every", checkpoint_every), ("log_every", log_every), ("patience", patience)):
            if value is not None and value < 1:
                raise ValueError(f"Trainer: {name} must be at least 1, or None, got {value}")
        here("Trainer", device)  # raises where there is none
        self.model = model if device is None else model.to(device)
        self.loss, self.optimizer = loss, optimizer
        self.scheduler, self.scheduler_every = scheduler, scheduler_every
        self.metrics = resolve(metrics)
        self.monitor = monitor if monitor is not None else "accuracy" if "accuracy" in self.metrics else "loss"
        if self.monitor not in ("loss", *self.metrics):
            raise ValueError(f"Trainer: monitor must be one of {', '.join(('loss', *self.metrics))}, got {monitor!r}")
        self.patience, self.min_delta = patience, min_delta
        self.out = None if out is None else Path(out)
        self.checkpoint_every, self.log_every = checkpoint_every, log_every
        self.about = dict(about or {})
        self.seed, self.device, self.quiet = seed, device, quiet

        self.epoch = 0  # epochs done
        self.step = 0  # steps done, over all epochs
        self.step_in_epoch = 0
        self.seconds = 0.0  # spent training, over all resumed parts
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None  # {"epoch", "value"} of the best epoch
        self.stopped = False  # by early stopping
        self._reference: float | None = None  # what the next epoch must beat for patience to start anew
        self._stale = 0  # epochs since
        self._sums = Sums(self.metrics)
        self._unread = Unread(self.metrics)
        self._steps_per_epoch = 0
        self._loader: dict[str, Any] = {}  # what the training loader's order depends on

    # -- training --------------------------------------------------------------------------------------------------
    def fit(
        self, train: Any, validation: Any = None, epochs: int = 10, *, resume: bool = False
    ) -> list[dict[str, Any]]:
        """Train until ``epochs`` epochs are done, counted from the first, and return the history, a dict per epoch.

        ``train`` and ``validation`` are loaders: DataLoaders, or any iterables of batches (x, y) with a length (exact
        resume then needs the same batches in the same order in every epoch). With ``resume`` the run goes on from the
        last checkpoint in ``out``, or starts if there is none; without, a directory that holds a run is refused, as is
        one with a ``log.jsonl`` of something else. Errors: NonFiniteError names the layer where a NaN came up;
        CheckpointError; ValueError; OSError.
        """
        steps = length_of("train", train)
        if validation is not None:
            length_of("validation", validation)
        if resume and self.out is None and self.step == 0:
            raise ValueError("fit: resume=True needs the run's directory; give the Trainer out=")
        if epochs < 0:
            raise ValueError(f"fit: epochs must be at least 0, got {epochs}")
        self._begin(train, steps, resume)
        before, started, known = self.seconds, time.monotonic(), len(self.history)
        with Progress(epochs * steps - self.step, self.quiet) as progress:
            while self.epoch < epochs and not self.stopped:
                rate = self._train_epoch(train, epochs, progress)
                record: dict[str, Any] = {"event": "epoch", "epoch": self.epoch + 1, "step": self.step}
                record["train"] = self._sums.means()
                if validation is not None:
                    record["validation"] = self._evaluate(validation, self._raise_non_finite)
                record["learning_rate"] = self.optimizer.param_groups[0]["lr"]
                self.seconds = before + time.monotonic() - started
                record |= {"images_per_second": round(rate, 1), "seconds": round(self.seconds, 3)}
                self._end_epoch(record)
                progress.line(describe(record, epochs))
        if self.out is not None and self.history:
            curves = self.out / "curves.png"
            if len(self.history) > known or not curves.exists():
                self._draw_curves(curves)
        return self.history

    def _begin(self, loader: Any, steps: int, resume: bool) -> None:
        """Start a run, or take up the one in ``out``; the loader must be the one that the run had."""
        if self.out is not None and self.step == 0:
            last = self.out / "last.safetensors"
            if resume and last.exists():
                self.resume(last)
            elif last.exists():
                raise FileExistsError(f"{self.out} holds a run: continue it with resume=True, or choose another out")
            else:
                _take_directory(self.out)
                log.rewind(self.out / "log.jsonl", 0, 0)
        if self.step == 0 and self.seed is not None:
            manual_seed(self.seed)
        if self._steps_per_epoch not in (0, steps):
            raise CheckpointError(
                f"the run so far had {self._steps_per_epoch} steps an epoch, this loader gives {steps}; "
                "resume with the same data and batch size"
            )
        self._steps_per_epoch = steps
        if hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
            position = {"epoch": self.epoch, "position": self.step_in_epoch}
            loader.load_state_dict({**loader.state_dict(), **self._loader, **position})
            self._loader = {name: value for name, value in loader.state_dict().items() if name not in position}

    def _train_epoch(self, loader: Any, epochs: int, progress: Progress) -> float:
        """The steps of this epoch that are not done yet; returns images per second."""
        self.model.train()
        label = f"epoch {self.epoch + 1}/{epochs}"
        started, images = time.monotonic(), 0
        of_epoch = batches(loader, self.epoch, self.step_in_epoch)
        try:
            for batch in of_epoch:
                x, y = self._on_device(batch)
                self._train_step(x, y)
                images += len(x)
                at_end = self.step_in_epoch == self._steps_per_epoch
                if self._unread and (at_end or self.step % (self.log_every or READ_EVERY) == 0):
                    self._read()
                means = self._sums.means()
                shown = dict(islice(means.items(), 2))  # the loss and one metric fit beside rate and time left
                progress.advance(len(x), label, _words(shown) if self._sums.samples else "")  # a GPU's are read later
                if self.log_every and self.step % self.log_every == 0:
                    self._log({"event": "step", "epoch": self.epoch + 1, "step": self.step, "train": means})
                if self.checkpoint_every and self.step % self.checkpoint_every == 0 and not at_end:
                    self.save()  # at the end, the epoch's own checkpoint follows
        finally:
            close = getattr(of_epoch, "close", None)
            if close is not None:
                close()
        if self.step_in_epoch != self._steps_per_epoch:
            raise ValueError(
                f"the train loader promised {self._steps_per_epoch} batches and gave {self.step_in_epoch} in epoch "
                f"{self.epoch + 1}"
            )
        return images / max(1e-9, time.monotonic() - started)

    def _train_step(self, x: Tensor, y: Tensor) -> None:
        random = get_rng_state()
        self.optimizer.zero_grad()
        output = self.model(x)
        loss = self.loss(output, y)
        if device_of(loss.array) is not None:
            self._unread.add(self.step + 1, loss.array, output.array, y.array)
        else:
            value = float(loss.item())
            if not math.isfinite(value):
                set_rng_state(random)
                self._raise_non_finite(x, y)
        loss.backward()
        self.optimizer.step()
        if self.scheduler is not None and self.scheduler_every == "step":
            self.scheduler.step()
        if not self._unread:
            self._sums.add(value, host_array(output), host_array(y))
        self.step += 1
        self.step_in_epoch += 1

    def _read(self) -> None:
        """Add what the steps on a GPU have left there to the sums."""
        for batch in self._unread.read():
            if not math.isfinite(batch.loss):
                of_label = " (on a GPU a label out of range gives that too)" if math.isnan(batch.loss) else ""
                self._stop("loss", f"the loss is {batch.loss}{of_label}", batch.step)
            self._sums.add_measured(batch.loss, batch.values, batch.samples)

    def _end_epoch(self, record: dict[str, Any]) -> None:
        value = record.get("validation", record["train"])[self.monitor]
        if self.scheduler is not None and self.scheduler_every == "epoch":
            from ..optim.lr_scheduler import ReduceLROnPlateau

            if isinstance(self.scheduler, ReduceLROnPlateau):
                self.scheduler.step(value)
            else:
                self.scheduler.step()
        sign = -1 if self.monitor == "loss" else 1
        improved = self.best is None or sign * value > sign * self.best["value"]
        if improved:
            self.best = {"epoch": record["epoch"], "value": value}
        if self._reference is None or sign * (value - self._reference) > self.min_delta:
            self._reference, self._stale = value, 0
        else:
            self._stale += 1
        self.stopped = self.patience is not None and self._stale >= self.patience
        self.history.append(record)
        self.epoch, self.step_in_epoch, self._sums = record["epoch"], 0, Sums(self.metrics)
        self._check_parameters()
        self._log(record)
        if self.out is not None:
            if improved:  # before ``last``: a run killed between the two makes this epoch, and this file, again
                best = {"metric": self.monitor, **(self.best or {})}
                save_weights(self.out / "best.safetensors", self.model.state_dict(), {**self.about, "best": best})
            self.save()

    # -- evaluation ------------------------------------------------------------------------------------------------
    def evaluate(self, loader: Any) -> dict[str, float]:
        """The mean loss and metrics over a loader, in evaluation mode."""
        length_of("evaluation", loader)
        return self._evaluate(loader, None)

    def _evaluate(self, loader: Any, non_finite: Callable[[Tensor, Tensor], None] | None) -> dict[str, float]:
        sums, unread = Sums(self.metrics), Unread(self.metrics)
        with _evaluating(self.model):
            for batch in loader:
                x, y = self._on_device(batch)
                output = self.model(x)
                loss = self.loss(output, y)
                if device_of(loss.array) is not None:
                    unread.add(self.step, loss.array, output.array, y.array)
                    continue
                value = float(loss.item())
                if non_finite is not None and not math.isfinite(value):
                    non_finite(x, y)
                sums.add(value, host_array(output), host_array(y))
        for measured in unread.read():
            if non_finite is not None and not math.isfinite(measured.loss):
                self._stop("loss", f"the loss of a validation batch is {measured.loss}", self.step)
            sums.add_measured(measured.loss, measured.values, measured.samples)
        return sums.means()

    def predict(self, data: Any, batch_size: int = 256) -> Array:
        """The model's outputs, in evaluation mode, for an array (N, ...) or for the x of each batch of a loader."""
        if isinstance(data, Tensor) or hasattr(data, "dtype"):
            x = host_array(data)
            if x.ndim == 0 or batch_size < 1:
                raise ValueError(
                    f"predict: needs an array (N, ...) and batch_size >= 1, got {x.shape} and {batch_size}"
                )
            parts: Iterable[Any] = [x[i : i + batch_size] for i in range(0, max(1, len(x)), batch_size)]
        else:
            parts = (batch[0] if isinstance(batch, (tuple, list)) else batch for batch in data)
        with _evaluating(self.model):
            outputs = [np.asarray(self.model(self._tensor(x)).detach().cpu().numpy()) for x in parts]
        if not outputs:
            raise ValueError("predict: the loader gave no batches")
        return np.concatenate(outputs)

    # -- state -----------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """All that decides how training goes on, in arrays and plain values."""
        self._read()
        return {
            "about": self.about,
            "epoch": self.epoch,
            "step": self.step,
            "step_in_epoch": self.step_in_epoch,
            "steps_per_epoch": self._steps_per_epoch,
            "loader": self._loader,
            "sums": self._sums.state_dict(),
            "history": self.history,
            "best": self.best,
            "stopping": {"reference": self._reference, "stale": self._stale, "stopped": self.stopped},
            "seconds": self.seconds,
            "random": get_rng_state(),
            "kinds": kinds(self.optimizer, self.scheduler),
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a state; nothing is changed if it does not belong to this model, optimizer and scheduler."""
        check_state(state, self.model, self.optimizer, self.scheduler, self.metrics)
        stopping, sums = state["stopping"], Sums(self.metrics)
        sums.load_state_dict(state["sums"])
        position = {name: state[name] for name in ("epoch", "step", "step_in_epoch", "best", "seconds")}
        position |= {"_steps_per_epoch": state["steps_per_epoch"], "_loader": state["loader"], "_sums": sums}
        position |= {"_reference": stopping["reference"], "_stale": stopping["stale"], "stopped": stopping["stopped"]}
        position |= {"history": list(state["history"])}
        before = (self.optimizer.state_dict(), None if self.scheduler is None else self.scheduler.state_dict())
        random = get_rng_state()
        try:
            self._load_steppers(state["optimizer"], state["scheduler"])
            set_rng_state(state["random"])
            self.model.load_state_dict(state["model"])  # last, as it cannot be undone: all of it or nothing
        except BaseException:
            self._load_steppers(*before)
            set_rng_state(random)
            raise
        self.__dict__.update(position)

    def _load_steppers(self, optimizer: Any, scheduler: Any) -> None:
        self.optimizer.load_state_dict(optimizer)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(scheduler)

    def save(self) -> None:
        """Write ``last.safetensors``; refuses a model that is not finite, so that the last good one stays."""
        if self.out is None:
            return
        self._check_parameters()
        save_state(self.out / "last.safetensors", self.state_dict())

    def resume(self, path: str | Path | None = None) -> None:
        """Go back to a checkpoint of a run (by default ``last.safetensors`` in ``out``), and cut the log to fit."""
        if path is None and self.out is None:
            raise ValueError("resume: name a checkpoint, or give the Trainer an out directory")
        path = self.out / "last.safetensors" if path is None and self.out is not None else Path(path or "")
        state = load_state(path)
        if self.out is not None and not (self.out / "last.safetensors").exists():
            _take_directory(self.out)
        try:
            self.load_state_dict(state)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path} is not the state of a run of this trainer: {error!r}") from error
        if self.out is not None:
            for name in _FILES:
                remove_leftovers(self.out / name)
            log.rewind(self.out / "log.jsonl", self.epoch, self.step)

    # -- small parts -----------------------------------------------------------------------------------------------
    def _raise_non_finite(self, x: Tensor, y: Tensor) -> None:
        where, what = finite.explain(self.model, self.loss, x, y)
        self._stop(where, what, self.step + (1 if self.model.training else 0))

    def _check_parameters(self) -> None:
        found = finite.broken_parameter(self.model)
        if found is not None:
            self._stop(*found, self.step)

    def _stop(self, where: str, what: str, step: int) -> None:
        last = None if self.out is None else self.out / "last.safetensors"
        kept = f"; the state before is in {last}" if last is not None and last.exists() else ""
        raise finite.NonFiniteError(
            f"training stopped at step {step} (epoch {min(self.epoch, (step - 1) // self._steps_per_epoch) + 1}): "
            f"{what}; try a lower learning rate{kept}",
            step,
            where,
        )

    def _on_device(self, batch: Any) -> tuple[Tensor, Tensor]:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(f"a loader must give batches (x, y), this one gave a {type(batch).__name__}")
        x, y = self._tensor(batch[0]), self._tensor(batch[1])
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"step {self.step + 1}: the batch is empty, x has shape {x.shape}")
        return x, y

    def _tensor(self, x: Any) -> Tensor:
        x = x if isinstance(x, Tensor) else Tensor(x if device_of(x) else np.asarray(x))
        return x if self.device is None else x.to(device=self.device)

    def _log(self, record: dict[str, Any]) -> None:
        if self.out is not None:
            log.append(self.out / "log.jsonl", record)

    def _draw_curves(self, path: Path) -> None:
        from importlib.util import find_spec

        if find_spec("matplotlib") is not None:
            from ..viz import learning_curves

            learning_curves(self.history, path)


def describe(record: Mapping[str, Any], epochs: int) -> str:
    """An epoch's record in one line for people."""
    text = f"epoch {record['epoch']}/{epochs}  {_words(record['train'])}"
    if "validation" in record:
        text += f"  | validation {_words(record['validation'])}"
    return f"{text}  | {record['images_per_second']:,.0f} images/s"


def _words(means: Mapping[str, float]) -> str:
    percent = ("accuracy", "top5")
    return "  ".join(f"{k} {100 * v:.2f} %" if k in percent else f"{k} {v:.4f}" for k, v in means.items())


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode, without gradients; afterwards each module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _take_directory(path: Path) -> None:
    """Make the directory of a run, or take one that is there, unless its log is of something else."""
    log.check_own(path / "log.jsonl")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"cannot make the run's directory {path}: {error.strerror}") from None
