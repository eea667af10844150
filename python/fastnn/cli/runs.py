"""Run directories: what lies in them, and the model, data and settings that a run or a checkpoint stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from . import UsageError
from .recipes import DATASETS, MODELS

__all__ = ["Trained", "build_model", "load_dataset", "load_trained", "matmul_precision", "read_settings", "set_threads"]


class Trained(NamedTuple):
    model: Any
    about: dict[str, Any]  # "model", "dataset", "input_shape", "mean", "std", "classes", "data_dir"
    path: Path


def build_model(name: str) -> Any:
    """A new model by its name on the command line."""
    from .. import models

    return models.create(name)


def load_dataset(name: str, train: bool, data_dir: str | None) -> Any:
    """A dataset by its name on the command line, at the size that the models take."""
    from .. import data

    if name == "digits":
        return data.digits(train=train, size=28)
    kind = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}[name]
    return getattr(data, kind)(data_dir, train=train)


def check_fit(model: str, dataset: str) -> None:
    """Raise unless the dataset's images have the shape that the model takes."""
    need, have = MODELS[model].input_shape, DATASETS[dataset].image_shape
    if need != have:
        fitting = ", ".join(name for name, entry in DATASETS.items() if entry.image_shape == need)
        raise UsageError(f"{model} takes images {need}, {dataset} has {have}; use --dataset with one of {fitting}")


def set_threads(args: Any) -> None:
    """Apply --threads and check --device, before anything is computed."""
    from ..kernels._backend import here

    try:
        here("--device", args.device)
    except (ImportError, RuntimeError, ValueError) as error:
        raise UsageError(str(error)) from None
    if args.threads is not None:
        from .. import set_num_threads

        set_num_threads(args.threads)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """--precision: how precisely a GPU computes matrix products and convolutions in the block."""
    from .. import autocast, get_float32_matmul_precision, set_float32_matmul_precision

    before = get_float32_matmul_precision()
    set_float32_matmul_precision("highest" if name == "bfloat16" else name)
    try:
        with autocast(enabled=name == "bfloat16"):
            yield
    finally:
        set_float32_matmul_precision(before)


def read_settings(directory: Path) -> dict[str, Any]:
    """The settings that ``fastnn train`` stored in a run's directory."""
    path = directory / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        if not isinstance(settings, dict) or settings["model"] not in MODELS or settings["dataset"] not in DATASETS:
            raise ValueError("it names no model and dataset that this version knows")
    except FileNotFoundError:
        raise FileNotFoundError(f"{directory} is no run of fastnn train: it has no config.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); start a new run in another --out") from None
    return settings


def load_trained(checkpoint: str, model_name: str | None) -> Trained:
    """The model of a run's best checkpoint (its last if there is no best), or of a file."""
    from ..train import CheckpointError, load_weights

    path = Path(checkpoint)
    if path.is_dir():
        found = [path / name for name in ("best.safetensors", "last.safetensors") if (path / name).exists()]
        if not found:
            raise FileNotFoundError(f"{path} holds no best.safetensors or last.safetensors; train first")
        path = found[0]
    weights, about = load_weights(path)
    name = model_name or about.get("model")
    if name not in MODELS:
        raise UsageError(f"{path} does not say which model it is of; name it: --model {'|'.join(MODELS)}")
    model = build_model(name)
    try:
        model.load_state_dict(weights)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path} does not hold the weights of {name}: {error}") from None
    model.eval()
    return Trained(model, {"dataset": MODELS[name].dataset, **about, "model": name}, path)
