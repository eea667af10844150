"""``fastnn train``: settings from options, recipes or the run that is resumed; then a Trainer does the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import UsageError
from .recipes import DATASETS, MODELS, defaults
from .runs import build_model, check_fit, load_dataset, matmul_precision, read_settings, set_threads

SETTINGS = (
    "model", "dataset", "data_dir", "epochs", "batch_size", "lr", "momentum", "weight_decay", "optimizer", "schedule",
    "augment", "seed", "early_stopping", "min_delta", "validation", "precision",
)  # fmt: skip


def run(args: Any) -> int:
    set_threads(args)
    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    out = _resumed_directory(args, given) if args.resume is not None else None
    if out is None:
        settings = _settings(given)
    else:
        settings = _stored_settings(out, given)
    _check(settings, given)

    with _interruptible() as note, matmul_precision(settings.get("precision", "highest")):
        from .. import manual_seed

        manual_seed(settings["seed"])
        training, validation, test = _data(settings, args.device)
        model = build_model(settings["model"])
        out = out or _new_directory(args.out, settings)
        note["resume"] = out
        trainer, loader = _assemble(args, settings, model, training, test, out)
        check = _in_order(test if validation is None else validation, settings)
        trainer.fit(loader, check, epochs=settings["epochs"], resume=True)
        if validation is None and trainer.history:
            result = trainer.history[-1]["validation"]
        else:
            result = trainer.evaluate(_in_order(test, settings))
    if not args.quiet and trainer.history and find_spec("matplotlib") is None:
        print("learning curves are drawn where matplotlib is: pip install 'fastnn-kernels[viz]'", file=sys.stderr)
    _report(args, settings, trainer, result, out)
    return 0


# -- settings ----------------------------------------------------------------------------------------------------------
def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """Every setting of a new run: as given, else the recipe's."""
    if "model" not in given:
        raise UsageError(f"name a model: fastnn train {'|'.join(MODELS)}")
    model = given["model"]
    dataset = given.get("dataset", MODELS[model].dataset)
    settings = {"model": model, "dataset": dataset, "data_dir": None, "seed": 0, "early_stopping": None}
    settings["precision"] = "highest"
    settings |= {"min_delta": 0.0, "validation": 0.1 if "early_stopping" in given else 0.0}
    settings |= defaults(model, dataset, given.get("optimizer")) | given
    if settings["data_dir"] is not None:
        settings["data_dir"] = str(Path(settings["data_dir"]).expanduser().absolute())
    return settings


def _stored_settings(out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run in ``out``; what is given must agree, except for where the data lie now."""
    settings = read_settings(out)
    if "data_dir" in given:
        settings["data_dir"] = given["data_dir"]
    clash = [
        f"--{name.replace('_', '-')} {given[name]} ({settings.get(name)})"
        for name in given
        if given[name] != settings.get(name)
    ]
    if clash:
        raise UsageError(
            f"the run in {out} has other settings than given: {', '.join(clash)}; leave them out to resume it, "
            "or start a new run"
        )
    return settings


def _check(settings: dict[str, Any], given: dict[str, Any]) -> None:
    check_fit(settings["model"], settings["dataset"])
    if settings["optimizer"] != "sgd" and "momentum" in given:
        raise UsageError(f"--momentum is of sgd; {settings['optimizer']} has none")
    if not settings["validation"] < 1:
        raise UsageError(f"--validation must be a share below 1, got {settings['validation']}")
    if "min_delta" in given and settings["early_stopping"] is None:
        raise UsageError("--min-delta needs --early-stopping")


# -- directories -------------------------------------------------------------------------------------------------------
def _resumed_directory(args: Any, given: dict[str, Any]) -> Path:
    """The directory of the run to continue: named, or the latest of this model and dataset."""
    if args.resume and args.out and Path(args.resume) != Path(args.out):
        raise UsageError(f"--resume {args.resume} and --out {args.out} name two runs; a resumed run stays where it is")
    if args.resume in MODELS and not given.get("model") and not Path(args.resume).exists():
        raise UsageError(f"--resume took {args.resume!r} for a directory; write: fastnn train {args.resume} --resume")
    if args.resume or args.out:
        return Path(args.resume or args.out)
    if "model" not in given:
        raise UsageError("--resume: name the run's directory, or the model whose latest run is meant")
    name = f"{given['model']}-{given.get('dataset', MODELS[given['model']].dataset)}"
    found = [
        path
        for path in Path("runs").glob(f"{name}*/config.json")
        if path.parent.name[len(name) :].strip("-").isdigit() or path.parent.name == name
    ]
    if not found:
        raise FileNotFoundError(f"no run to resume: there is no runs/{name}; name its directory with --resume DIR")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent


def _new_directory(out: str | None, settings: dict[str, Any]) -> Path:
    """Make the run's directory, with its settings inside."""
    from ..io import write_atomic
    from ..train.log import check_own

    if out is not None:
        path = Path(out)
        if (path / "config.json").exists() or (path / "last.safetensors").exists():
            raise FileExistsError(f"{path} holds a run: continue it with --resume, or choose another --out")
        check_own(path / "log.jsonl")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(f"cannot make the directory {path}: {error.strerror}; choose another --out") from None
    else:
        path = _numbered(Path("runs"), f"{settings['model']}-{settings['dataset']}")
    from .. import __version__

    config = {"format": 1, "fastnn": __version__, "settings": settings}
    write_atomic(path / "config.json", json.dumps(config, indent=2) + "\n")
    return path


def _numbered(parent: Path, name: str) -> Path:
    """parent/name, or the first free of parent/name-2, -3, ...; made here, so that no other run can take it."""
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            raise type(error)(f"cannot make the directory {path}: {error.strerror}; choose another --out") from None


@contextmanager
def _interruptible() -> Iterator[dict[str, Any]]:
    """Ctrl-C in the block leaves with a word on how to go on."""
    note: dict[str, Any] = {}
    try:
        yield note
    except KeyboardInterrupt:
        hint = f"continue with: fastnn train --resume {note['resume']}" if note else "nothing was written"
        raise KeyboardInterrupt(hint) from None


# -- what the trainer is made of ---------------------------------------------------------------------------------------
def _data(settings: dict[str, Any], device: str | None) -> tuple[Any, Any, Any]:
    """The datasets to train on, to choose the best epoch by (None: the test data), and to test on."""
    from ..data import random_split

    training = load_dataset(settings["dataset"], True, settings["data_dir"])
    test = load_dataset(settings["dataset"], False, settings["data_dir"])
    if device is not None:
        training, test = training.to(device), test.to(device)
    share = settings["validation"]
    if share == 0:
        return training, None, test
    training, validation = random_split(training, [1 - share, share], seed=settings["seed"])
    return training, validation, test


def _assemble(args: Any, settings: dict[str, Any], model: Any, training: Any, test: Any, out: Path) -> tuple[Any, Any]:
    """The trainer, and the loader it trains on."""
    from ..data import DataLoader
    from ..nn import CrossEntropyLoss
    from ..train import Trainer

    transform = _augmentation(settings["dataset"]) if settings["augment"] else None
    loader = DataLoader(
        training,
        settings["batch_size"],
        shuffle=True,
        seed=settings["seed"],
        transform=transform,
        num_workers=1 if args.device in (None, "cpu") else 0,  # a GPU makes its batches itself, behind Python's back
    )
    optimizer = _optimizer(settings, model)
    entry = MODELS[settings["model"]]
    trainer = Trainer(
        model,
        CrossEntropyLoss(),
        optimizer,
        scheduler=_scheduler(settings, optimizer, len(loader)),
        scheduler_every="step" if settings["schedule"] == "onecycle" else "epoch",
        metrics=("accuracy", "top5"),
        patience=settings["early_stopping"],
        min_delta=settings["min_delta"],
        out=out,
        checkpoint_every=args.checkpoint_every,
        log_every=args.log_every,
        about={
            "model": settings["model"],
            "dataset": settings["dataset"],
            "data_dir": settings["data_dir"],
            "input_shape": list(entry.input_shape),
            "mean": test.mean,
            "std": test.std,
            "classes": list(test.classes),
        },
        device=args.device,
        quiet=args.quiet,
    )
    return trainer, loader


def _in_order(dataset: Any, settings: dict[str, Any]) -> Any:
    """The loader for measuring: in large batches, as no gradients are kept."""
    from ..data import DataLoader

    return DataLoader(dataset, max(settings["batch_size"], 256))


def _augmentation(dataset: str) -> list[Any]:
    from ..data import RandomCrop, RandomHorizontalFlip

    entry = DATASETS[dataset]
    height, width = entry.image_shape[1:]
    crop = RandomCrop((height, width), padding=4 if height == 32 else 2)
    return [crop, RandomHorizontalFlip()] if entry.flip else [crop]


def _optimizer(settings: dict[str, Any], model: Any) -> Any:
    from .. import optim

    lr, decay = settings["lr"], settings["weight_decay"]
    if settings["optimizer"] == "sgd":
        return optim.SGD(model.parameters(), lr, momentum=settings["momentum"], weight_decay=decay)
    kind = optim.Adam if settings["optimizer"] == "adam" else optim.AdamW
    return kind(model.parameters(), lr, weight_decay=decay)


def _scheduler(settings: dict[str, Any], optimizer: Any, steps_per_epoch: int) -> Any:
    """Cosine and step schedules move once an epoch, as PyTorch's users have them; one cycle moves every step."""
    from ..optim import lr_scheduler

    epochs = settings["epochs"]
    if settings["schedule"] == "constant":
        return None
    if settings["schedule"] == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    if settings["schedule"] == "step":
        return lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    cycle = settings["optimizer"] != "sgd" or settings["momentum"] > 0
    total = epochs * steps_per_epoch + 1  # the step after the last one asks for a rate, too
    return lr_scheduler.OneCycleLR(optimizer, settings["lr"], total_steps=total, cycle_momentum=cycle)


# -- the end -----------------------------------------------------------------------------------------------------------
def _report(args: Any, settings: dict[str, Any], trainer: Any, result: dict[str, float], out: Path) -> None:
    """One line, or one JSON object: how well the last weights do on the test data."""
    if args.json:
        summary = {"model": settings["model"], "dataset": settings["dataset"], "epochs": trainer.epoch}
        summary |= {"test": result, "best": trainer.best, "seconds": round(trainer.seconds, 3), "out": str(out)}
        print(json.dumps(summary))
        return
    best = f"; best {100 * trainer.best['value']:.2f} % in epoch {trainer.best['epoch']}" if trainer.best else ""
    early = " (stopped early)" if trainer.stopped else ""
    print(
        f"{settings['model']} on {settings['dataset']}: test accuracy {100 * result['accuracy']:.2f} % "
        f"(loss {result['loss']:.4f}) after {trainer.epoch} epochs{early} in {trainer.seconds:.1f} s{best}; {out}"
    )
