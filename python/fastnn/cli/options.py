"""All options of all subcommands. argparse is imported here alone; heavy things only by the subcommand that runs."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from .. import __version__
from .recipes import ALIASES, DATASETS, MODELS, defaults

__all__ = ["parser"]

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "step", "onecycle")


class Parser(argparse.ArgumentParser):
    """Errors in one line, with a suggestion where an option or command looks like another."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {message} ({self.prog} --help)", file=sys.stderr)
        sys.exit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Look for misspelt commands and options first: argparse would take the option's value for something else."""
        words = list(sys.argv[1:] if args is None else args)
        commands = next((a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction)), None)
        if commands is not None and words and not words[0].startswith("-"):
            if words[0] not in commands:
                near = _near(words[0], list(commands)) or f"; use {', '.join(commands)}"
                self.error(f"unknown command {words[0]!r}{near}")
        else:
            for word in words[: words.index("--") if "--" in words else None]:
                name = word.partition("=")[0]
                if name.startswith("--") and name not in self._option_string_actions:
                    self.error(f"unknown option {name!r}{_near(name, list(self._option_string_actions))}")
        return super().parse_known_args(words, namespace)


def _near(word: str, choices: Sequence[str]) -> str:
    close = get_close_matches(word, choices, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _choice(what: str, choices: Sequence[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        name = text.lower().replace("_", "-")
        name = ALIASES.get(name, name)
        if name in choices:
            return name
        near = _near(name, [*choices, *ALIASES])
        raise argparse.ArgumentTypeError(f"unknown {what} {text!r}{near or '; use ' + ', '.join(choices)}")

    return convert


def _number(kind: Callable[[str], Any], least: float, above: bool = False) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            whole = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {whole}, got {text!r}") from None
        if not math.isfinite(value) or value < least or (above and value == least):
            raise argparse.ArgumentTypeError(f"must be {'above' if above else 'at least'} {least:g}, got {text}")
        return value

    return convert


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"must be sizes such as 1x28x28, got {text!r}")
    return shape


def parser() -> Parser:
    """The command's parser."""
    top = Parser(
        prog="fastnn",
        description="Train, check and use neural networks on this machine's CPU or GPU.",
        epilog="examples:\n  fastnn train lenet                      on the digits that come with fastnn: seconds\n"
        "  fastnn train lenet --dataset mnist      downloads MNIST, or reads it from --data-dir\n"
        "  fastnn train lenet --resume             continue the last such run where it was stopped\n"
        "  fastnn eval runs/lenet-digits\n  fastnn predict runs/lenet-digits photo.png\n\n"
        "environment: FASTNN_NUM_THREADS, FASTNN_ISA, FASTNN_DATA (datasets), FASTNN_OFFLINE=1 (no downloads),\n"
        "FASTNN_DEBUG=1 (tracebacks). Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    top.add_argument("--version", action="version", version=f"fastnn {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def add(name: str, module: str, summary: str, **kwargs: Any) -> Parser:
        sub: Parser = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", **kwargs
        )
        sub.set_defaults(module=module)
        return sub

    _train(add)
    _evaluate(add)
    _predict(add)
    _summary(add)
    _bench(add)
    info = add("info", "info", "show instruction sets, threads, memory, CUDA and versions")
    info.add_argument("--json", action="store_true", help="print one JSON object")
    return top


def _train(add: Callable[..., Parser]) -> None:
    rows = []
    for model, entry in MODELS.items():
        for dataset, data in DATASETS.items():
            if data.image_shape == entry.input_shape:
                s = defaults(model, dataset)
                rows.append(
                    f"  {model:<14}{dataset:<15}{s['epochs']:>6}{s['batch_size']:>7}{s['lr']:>7g}"
                    f"{s['weight_decay']:>8g}  {'yes' if s['augment'] else 'no'}"
                )
    table = f"  {'model':<14}{'dataset':<15}{'epochs':>6}{'batch':>7}{'lr':>7}{'decay':>8}  augment"
    sub = add(
        "train",
        "train",
        "train a model; writes checkpoints, a log and learning curves to a directory of its own",
        epilog="models:\n"
        + "\n".join(f"  {name:<15}{entry.about}" for name, entry in MODELS.items())
        + "\ndatasets:\n"
        + "\n".join(f"  {name:<15}{entry.about}" for name, entry in DATASETS.items())
        + "\n\ndefaults (sgd with momentum 0.9, cosine; with adam and adamw lr is 0.001):\n"
        + "\n".join([table, *rows])
        + "\n\nexamples:\n  fastnn train lenet\n  fastnn train lenet --dataset mnist --data-dir ~/data --seed 1\n"
        "  fastnn train --resume runs/lenet-mnist     the same bits as if it had never been stopped",
    )
    sub.add_argument("model", metavar="MODEL", nargs="?", type=_choice("model", list(MODELS)), help=", ".join(MODELS))
    sub.add_argument(
        "--dataset", type=_choice("dataset", list(DATASETS)), help="default: digits; alexnet-small: cifar10"
    )
    sub.add_argument("--data-dir", metavar="DIR", help="where datasets lie (default: $FASTNN_DATA or ~/.cache/fastnn)")
    sub.add_argument("--epochs", type=_number(int, 1), metavar="N", help="passes over the training data (see below)")
    sub.add_argument("--batch-size", type=_number(int, 1), metavar="N", help="images per step (see below)")
    sub.add_argument("--lr", type=_number(float, 0), metavar="X", help="learning rate at its peak (see below)")
    sub.add_argument("--momentum", type=_number(float, 0), metavar="X", help="of SGD (default: 0.9)")
    sub.add_argument("--weight-decay", type=_number(float, 0), metavar="X", help="see below; adam 0, adamw 0.01")
    sub.add_argument("--optimizer", type=_choice("optimizer", OPTIMIZERS), help="sgd (default), adam, adamw")
    sub.add_argument(
        "--schedule",
        type=_choice("schedule", SCHEDULES),
        help="constant, cosine (default), step (a tenth after 1/2 and 3/4), onecycle",
    )
    sub.add_argument(
        "--augment", action=argparse.BooleanOptionalAction, help="shift (and mirror, where it makes sense)"
    )
    sub.add_argument("--seed", type=_number(int, 0), metavar="N", help="of weights, order, dropout (default: 0)")
    sub.add_argument(
        "--early-stopping", type=_number(int, 1), metavar="EPOCHS", help="stop after so many epochs without a gain"
    )
    sub.add_argument("--min-delta", type=_number(float, 0), metavar="X", help="the least gain that counts (default: 0)")
    sub.add_argument(
        "--validation",
        type=_number(float, 0),
        metavar="SHARE",
        help="hold out this share of the training data to choose the best epoch (default: 0, the test data are used; "
        "with --early-stopping 0.1)",
    )
    sub.add_argument("--out", metavar="DIR", help="the run's directory (default: runs/MODEL-DATASET)")
    sub.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="DIR",
        help="continue the run in DIR (default: in --out, or the latest one of this model and dataset)",
    )
    sub.add_argument("--checkpoint-every", type=_number(int, 1), metavar="STEPS", help="besides once an epoch")
    sub.add_argument("--log-every", type=_number(int, 1), metavar="STEPS", help="besides once an epoch")
    _common(sub)
    sub.add_argument(
        "--precision",
        choices=("highest", "high", "medium", "bfloat16"),
        help="of products on a GPU: float32 (default), 3xTF32, TF32 or bfloat16 operands; sums are float32",
    )
    sub.add_argument("--quiet", action="store_true", help="no progress bar (there is none without a terminal either)")


def _evaluate(add: Callable[..., Parser]) -> None:
    sub = add("eval", "evaluate", "measure loss and accuracy of a trained model on a dataset")
    _checkpoint(sub)
    sub.add_argument("--dataset", type=_choice("dataset", list(DATASETS)), help="default: what it was trained on")
    sub.add_argument("--data-dir", metavar="DIR", help="where datasets lie (default: as in training)")
    sub.add_argument("--split", choices=("test", "train"), default="test", help="default: test")
    sub.add_argument("--batch-size", type=_number(int, 1), default=256, metavar="N", help="default: 256")
    _common(sub)


def _predict(add: Callable[..., Parser]) -> None:
    sub = add(
        "predict",
        "predict",
        "classify images: files such as PNG or JPEG (needs the viz extra), or .npy and .npz arrays",
        epilog="Arrays hold one image (H, W) or (C, H, W), or many (N, H, W) or (N, C, H, W): uint8 0..255\n"
        "or floats 0..1.\n\n"
        "examples:\n  fastnn predict runs/lenet-digits digit.png\n  fastnn predict runs/lenet-mnist images.npy --json",
    )
    _checkpoint(sub)
    sub.add_argument("files", nargs="+", metavar="FILE", help="image files or arrays")
    sub.add_argument("--top", type=_number(int, 1), default=1, metavar="K", help="classes to show (default: 1)")
    sub.add_argument("--invert", choices=("auto", "yes", "no"), default="auto", help="dark on light to light on dark")
    _common(sub)


def _summary(add: Callable[..., Parser]) -> None:
    sub = add(
        "summary",
        "summary",
        "list a model's layers with shapes, parameters, multiply-adds and the matrix product each one is",
    )
    sub.add_argument("model", metavar="MODEL", type=_choice("model", list(MODELS)), help=", ".join(MODELS))
    sub.add_argument("--batch-size", type=_number(int, 1), default=1, metavar="N", help="default: 1")
    sub.add_argument("--input-shape", type=_shape, metavar="CxHxW", help="of one image (default: the model's)")
    sub.add_argument("--json", action="store_true", help="print one JSON object")


def _bench(add: Callable[..., Parser]) -> None:
    sub = add(
        "bench",
        "bench",
        "time each layer of a model and show how close it comes to this machine's limits (a roofline)",
        epilog="A layer can be no faster than its roof: the lesser of the machine's peak of multiply-adds and of its\n"
        "memory bandwidth times the layer's operations per byte (every array read or written once). Both peaks are\n"
        "measured first, on the same threads. 'share' is how much of its roof a layer reaches; above 100 % the\n"
        "arrays lie in the caches, or the layer needs fewer operations than it is counted for (Winograd).\n\n"
        "examples:\n  fastnn bench lenet\n  fastnn bench alexnet-small --batch-size 16 --backward --plot roofline.png",
    )
    sub.add_argument("model", metavar="MODEL", type=_choice("model", list(MODELS)), help=", ".join(MODELS))
    sub.add_argument("--batch-size", "--batch", type=_number(int, 1), default=64, metavar="N", help="default: 64")
    sub.add_argument("--backward", action="store_true", help="time each layer's gradients too")
    sub.add_argument("--plot", metavar="FILE", help="draw the roofline to a PNG file (needs the viz extra)")
    _common(sub)


def _checkpoint(sub: Parser) -> None:
    sub.add_argument("checkpoint", metavar="RUN_OR_CHECKPOINT", help="a run's directory (its best weights) or a file")
    sub.add_argument(
        "--model", type=_choice("model", list(MODELS)), help="for a safetensors file that does not say what it is"
    )


def _common(sub: Parser) -> None:
    sub.add_argument(
        "--threads", type=_number(int, 1), metavar="N", help="default: see fastnn info; never changes results"
    )
    sub.add_argument("--device", metavar="DEVICE", help="cpu (default), or cuda: see fastnn info")
    sub.add_argument("--json", action="store_true", help="print the result as one JSON object")
