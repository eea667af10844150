"""``fastnn predict``: image files and arrays, brought to what the model takes, and its answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .recipes import MODELS
from .runs import load_trained, set_threads

Array = NDArray[Any]
# How the ink lies in a dataset's images: the share of the side that its longer side takes, and whether its centre of
# mass or the centre of its box is in the middle.
INK = {"mnist": (20 / 28, True), "digits": (24 / 28, False)}


def run(args: Any) -> int:
    set_threads(args)
    from ..data import ArrayDataset
    from ..functional import softmax
    from ..train import Trainer

    model, about, _ = load_trained(args.checkpoint, args.model)
    shape = tuple(about.get("input_shape") or MODELS[about["model"]].input_shape)
    ink = INK.get(about["dataset"])
    trainer = Trainer(model, _no_loss, None, metrics=(), device=args.device)
    read = [_read(Path(name), shape, args.invert, ink) for name in args.files]  # all, before the first answer
    answers = []
    for name, (images, notes) in zip(args.files, read):
        if notes and not args.json:
            print(f"{name}: {'; '.join(notes)}", file=sys.stderr)
        inputs = ArrayDataset(images, np.zeros(len(images), np.int64), about.get("mean"), about.get("std"))
        probabilities = softmax(trainer.predict(inputs.normalize(images)), -1)
        names = about.get("classes") or [str(i) for i in range(probabilities.shape[1])]
        for number, row in enumerate(probabilities):
            order = np.argsort(-row, kind="stable")[: args.top]
            top = [{"class": names[i], "probability": float(row[i])} for i in order]
            label = name if len(images) == 1 else f"{name}[{number}]"
            answers.append({"file": name, "index": number, "top": top, "notes": notes})
            if not args.json:
                print(f"{label}: " + ", ".join(f"{t['class']} {100 * t['probability']:.1f} %" for t in top))
    if args.json:
        print(json.dumps(answers))
    return 0


def _no_loss(output: Any, target: Any) -> Any:
    raise TypeError("predicting has no loss")


def _read(path: Path, shape: tuple[int, ...], invert: str, ink: tuple[float, bool] | None) -> tuple[Array, list[str]]:
    """Images (N, *shape), uint8 or float32 of 0..1, and what was done to them."""
    if path.suffix.lower() in (".npy", ".npz"):
        images = _from_array(path, shape)
        if invert != "yes":
            return images, []
        return (255 - images if images.dtype == np.uint8 else 1 - images), ["inverted"]
    return _from_picture(path, shape, invert, ink)


def _from_array(path: Path, shape: tuple[int, ...]) -> Array:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found as archive:
                names = archive.files
                name = names[0] if len(names) == 1 else next((n for n in ("images", "x") if n in names), None)
                if name is None:
                    raise ValueError(f"it holds {', '.join(names) or 'nothing'}; name the array of images 'images'")
                found = archive[name]
    except Exception as error:  # zip, zlib, header and value errors: whatever NumPy meets in a damaged file
        raise ValueError(f"cannot read {path}: {error}") from None
    C, H, W = shape
    if found.shape == (H, W) and C == 1:
        images = found[None, None]
    elif found.ndim == 3 and found.shape[1:] == (H, W) and C == 1:
        images = found[:, None]
    elif found.shape == shape:
        images = found[None]
    elif found.ndim == 4 and found.shape[1:] == shape:
        images = found
    else:
        wanted = f"{H}x{W}, N x {H}x{W} or N x " if C == 1 else f"{C}x{H}x{W} or N x "
        raise ValueError(f"{path}: the array has shape {found.shape}; the model takes {wanted}{C}x{H}x{W}")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise ValueError(f"{path}: pixels must be uint8 (0..255) or floats (0..1), got {images.dtype}")
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"{path}: floating-point pixels must be in 0..1, got {images.min():g}..{images.max():g}; "
            "for 0..255 store uint8"
        )
    return images.astype(np.float32)


def _from_picture(
    path: Path, shape: tuple[int, ...], invert: str, ink: tuple[float, bool] | None
) -> tuple[Array, list[str]]:
    """One image file; grey models take light ink on a dark ground, so dark on light is turned over."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise ImportError(
            "reading image files needs Pillow: pip install 'fastnn-kernels[viz]' (or pass .npy)"
        ) from None
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except FileNotFoundError:
        raise FileNotFoundError(f"no such file: {path}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        what = (
            "is no image that Pillow reads" if isinstance(error, UnidentifiedImageError) else f"cannot be read: {error}"
        )
        raise ValueError(f"{path} {what}") from None
    C, H, W = shape
    notes = []
    paper = Image.new("RGBA", picture.size, "white")  # what is transparent shows paper
    picture = Image.alpha_composite(paper, picture).convert("L" if C == 1 else "RGB")
    if C == 1:
        pixels = np.asarray(picture)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        if invert == "yes" or (invert == "auto" and np.median(border) > 127):
            picture = ImageOps.invert(picture)
            notes.append("inverted to light on dark")
    if picture.size != (W, H):
        notes.append(f"{picture.width}x{picture.height} brought to {W}x{H}")
        if ink is not None:
            picture = _centred(picture, H, ink, Image)
            notes[-1] += ", the ink centred"
        else:
            picture = ImageOps.fit(picture, (W, H), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return (pixels[None, None] if C == 1 else pixels.transpose(2, 0, 1)[None]).copy(), notes


def _centred(picture: Any, size: int, ink: tuple[float, bool], image: Any) -> Any:
    """The ink of a light-on-dark picture, as large and as central as in the dataset's images."""
    pixels = np.asarray(picture).astype(np.float32)
    pixels = np.maximum(0, pixels - np.median(pixels))  # the ground to black
    peak = float(pixels.max())
    canvas = image.new("L", (size, size))
    if peak == 0:
        return canvas
    pixels *= 255 / peak
    rows, columns = (np.flatnonzero(pixels.max(axis) > 64) for axis in (1, 0))
    cut = image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8))
    share, by_mass = ink
    scale = share * size / max(cut.size)
    cut = cut.resize(tuple(max(1, round(side * scale)) for side in cut.size), image.Resampling.LANCZOS)
    strokes = np.asarray(cut).astype(np.float64) + 1e-9
    cut = image.fromarray((strokes * (255 / strokes.max())).astype(np.uint8))  # thin lines fade as they shrink
    weights = strokes if by_mass else np.ones_like(strokes)
    corner = []
    for axis, side in ((0, cut.width), (1, cut.height)):
        profile = weights.sum(axis)
        centre = float((profile * np.arange(side)).sum() / profile.sum())
        corner.append(min(max(0, round((size - 1) / 2 - centre)), size - side))
    canvas.paste(cut, tuple(corner))
    return canvas
