"""Everything, as tables: `python bench/report.py [--quick]`, 15 minutes, or 3.

Runs compare.py in parts (all threads; one thread; older instruction sets; beside a busy process) and memory.py, writes
bench/results/DATE-cpu-ISA.md, and the short table into the README between its markers. `--keep DIR` keeps what was
measured as JSON; `--read DIR` makes the tables of that again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare import PEER_LIMITS, heading, line, means
from memory import line as memory_line

HERE = Path(__file__).parent
MARKERS = ("<!-- speed -->\n", "<!-- /speed -->\n")


@dataclass(frozen=True)
class Part:
    """A run of compare.py; ``quick`` and ``full`` are its minutes, None to leave it out."""

    name: str
    title: str
    options: list[str]
    full: float
    quick: float | None = None


BOTH = ["--peer", "torch", "--peer", "numpy"]
PARTS = [
    Part("all", "All threads", BOTH, full=8.5, quick=1.8),
    Part("one", "One thread", ["--threads", "1", "--group", "gemm", "--group", "conv2d"], full=2.0),
    Part("hog", "Beside one busy process", ["--hog", "--group", "training step", "lenet5"], full=0.5, quick=0.2),
]
QUICK_SKIPS = ["op", "arithmetic", "shaping", "loss", "random", "inference"]

HOW = """\
Sides take turns; ratio: peer / fastnn, median and quartiles of the ratios turn by turn (above 1, fastnn is faster);
times are the best of the turns. PyTorch runs with fused optimizers and the faster of its memory formats (or of `out=`
and a new array), named at the end of a row beside the other, its time and ratio. Share: of the FMA peak, or for arrays
beyond the caches of the memory bandwidth, measured in the same run; Winograd's convolutions are counted with a plain
convolution's operations. CONTENDED: while the row was measured all threads reached less than 0.9 of as many times one
thread's peak: others worked on the machine."""

# What the README shows: part, case, and its words for it.
SHORT = [
    ("all", "training step: lenet5 batch 64", "LeNet training step, batch 64"),
    ("hog", "training step: lenet5 batch 64", "the same beside one busy process"),
    ("all", "training step: alexnet_small batch 64", "AlexNet-small training step, batch 64"),
    ("all", "conv2d: alexnet-small conv1 forward", "convolution, 3 to 64 maps of 32x32, forward"),
    ("all", "conv2d: alexnet-small conv3 forward", "convolution 3x3, 192 to 384 maps of 8x8, forward"),
    ("all", "conv2d: alexnet-small conv3 dw", "its weights' gradient"),
    ("all", "conv2d: alexnet conv1 forward", "convolution 11x11 stride 4, 3 to 64 maps of 224x224"),
    ("all", "max_pool2d: lenet pool1 forward", "max-pooling of 64x6x28x28, forward"),
    ("all", "gemm: 1024x1024x1024", "sgemm 1024, all threads"),
    ("one", "gemm: 1024x1024x1024", "sgemm 1024, one thread"),
    ("all", "optimizer: adam on 12.6 million", "Adam's step, 12.6 million parameters"),
    ("all", "activation: relu of 7680", "relu of 7,680 elements"),
    ("all", "activation: gelu of 1000000", "gelu of a million"),
]


def older_sets() -> list[Part]:
    """The same tables on the instruction sets below the best one, PyTorch held to the same."""
    from fastnn import _core

    usable = [isa for isa, supported in _core.built_isas().items() if supported and isa in PEER_LIMITS]
    skips = ["--skip", "op", "--skip", "beyond caches", "--skip", "random"]
    return [
        Part(isa, f"Both sides held to {isa}", ["--isa", isa, *skips], full=3.0) for isa in usable if isa != _core.isa()
    ]


def measure(parts: list[Part], quick: bool, folder: Path) -> None:
    for part in parts:
        minutes = part.quick if quick else part.full
        if minutes is None:
            continue
        options = [
            *part.options,
            "--turns",
            "15",
            "--minutes",
            str(minutes),
            "--json",
            str(folder / f"{part.name}.json"),
        ]
        if quick and part.name == "all":
            options += [word for group in QUICK_SKIPS for word in ("--skip", group)]
        print(f"\n== {part.title}", flush=True)
        subprocess.run([sys.executable, str(HERE / "compare.py"), *options], check=True)
    if not quick:
        print("\n== Memory", flush=True)
        subprocess.run([sys.executable, str(HERE / "memory.py"), "--json", str(folder / "memory.json")], check=True)


def machine() -> dict[str, str]:
    """Where it was measured, with what."""
    import numpy
    import torch

    from fastnn import __version__, _core

    cpu = next(
        (text.split(":")[1].strip() for text in Path("/proc/cpuinfo").read_text().split("\n") if "model name" in text),
        platform.machine(),
    )
    versions = f"fastnn {__version__} ({_core.compiler}), PyTorch {torch.__version__}, NumPy {numpy.__version__}"
    return {
        "date": str(datetime.date.today()),
        "cpu": cpu,
        "isa": _core.isa(),
        "versions": f"{versions}, Python {platform.python_version()}",
    }


def table(result: dict[str, Any], title: str) -> list[str]:
    """A part of the results file: means, then every row."""
    rows, peers = result["rows"], result["peers"]
    memory = ", ".join(f"{name} {speed / 1e9:.1f}" for name, speed in result["memory"].items())
    contended = sum(row["contended"] for row in rows)
    found = {f"{peer} / fastnn": means(rows, peer) for peer in peers}
    if any(row["ways"] for row in rows):
        found["PyTorch's default layout / fastnn"] = means(rows, "torch", default=True)
    text = [
        f"## {title}",
        "",
        f"{result['threads']} threads, {result['isa']}. Peaks measured in this run: FMA "
        f"{result['fma_one'] / 1e9:.0f} GFLOP/s one thread, {result['fma_all'] / 1e9:.0f} all; memory GB/s: {memory}. "
        f"Contended: {contended} of {len(rows)} rows.",
        "",
        "| geometric means | rows | " + " | ".join(found) + " |",
        "| --- " * (len(found) + 2) + "|",
    ]
    for group in found["torch / fastnn"]:
        count = sum(group in ("all rows", row["group"]) and peers[0] in row["ratio"] for row in rows)
        cells = [f"{column[group]:.2f}" if group in column else "" for column in found.values()]
        text.append(f"| {group} | {count} | " + " | ".join(cells) + " |")
    return [*text, "", "```", heading(peers), *(line(row, peers) for row in rows), "```", ""]


def results(measured: dict[str, Any], parts: list[Part], about: dict[str, str]) -> str:
    """The results file."""
    text = [
        f"# CPU, {about['isa']}, {about['date']}",
        "",
        f"{about['cpu']}. {about['versions']}. Made by `python bench/report.py`.",
        "",
        HOW,
        "",
    ]
    for part in parts:
        if part.name in measured:
            text += table(measured[part.name], part.title)
    if "memory" in measured:
        text += [
            "## Memory of a training step",
            "",
            "The most held beyond libraries, model and data; page faults a step once twenty have passed.",
            "",
            "```",
            *map(memory_line, measured["memory"]),
            "```",
            "",
        ]
    return "\n".join(text)


def short(measured: dict[str, Any], about: dict[str, str], file: str) -> str:
    """The README's table."""
    text = [
        f"{about['cpu']}, {measured['all']['threads']} threads, {about['isa']}, {about['date']}; {about['versions']}.",
        "PyTorch in its best configuration, turn by turn; above 1, fastnn is faster. Medians, quartiles in brackets;",
        "last beside PyTorch's default layout (NCHW, as fastnn's), where channels_last is faster. Every row, losses",
        f"included, with its share of this machine's peak: [bench/results](bench/results/{file}).",
        "",
        "| | fastnn | PyTorch / fastnn | default layout |",
        "| --- | --- | --- | --- |",
    ]
    contended = False
    for part, title, words in SHORT:
        rows = measured.get(part, {"rows": []})["rows"]
        for row in rows:
            if f"{row['group']}: {row['name']}" == title and "torch" in row["ratio"]:
                seconds, (low, high) = row["seconds"]["fastnn"], row["quartiles"]["torch"]
                time = f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
                mark = "*" if row["contended"] and part != "hog" else ""
                contended = contended or bool(mark)
                tried = row["ways"].get("torch", {"contiguous": 0})
                other = "" if next(iter(tried)) == "contiguous" else f"{tried['contiguous'] / seconds:.2f}"
                text.append(
                    f"| {words} | {time} | {row['ratio']['torch']:.2f} [{low:.2f} {high:.2f}]{mark} | {other} |"
                )
    found = means(measured["all"]["rows"], "torch")
    groups = ", ".join(f"{group} {mean:.2f}" for group, mean in found.items() if group != "all rows")
    text += ["", f"Geometric mean over all {len(measured['all']['rows'])} rows: {found['all rows']:.2f}: {groups}."]
    if contended:
        text.append("\\* measured while others worked on the machine.")
    return "\n".join(text) + "\n"


def write_readme(text: str) -> None:
    path = HERE.parent / "README.md"
    before, rest = path.read_text().split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    path.write_text(before + MARKERS[0] + text + MARKERS[1] + after)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure everything; write bench/results and the README's table.")
    parser.add_argument("--quick", action="store_true", help="3 minutes instead of 15: fewer cases, turns and parts")
    parser.add_argument("--keep", metavar="DIR", type=Path, help="keep what was measured there, as JSON")
    parser.add_argument("--read", metavar="DIR", type=Path, help="measure nothing: read what --keep kept")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the tables there, and leave the README alone")
    given = parser.parse_args()
    parts = [*PARTS, *older_sets()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.read or given.keep or Path(temporary)
        if given.read is None:
            folder.mkdir(parents=True, exist_ok=True)
            measure(parts, given.quick, folder)
            (folder / "about.json").write_text(json.dumps(machine()))
        measured = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    about = measured.pop("about")
    path = given.out or HERE / "results" / f"{about['date']}-cpu-{about['isa']}.md"
    path.write_text(results(measured, parts, about))
    if given.out is None:
        write_readme(short(measured, about, path.name))
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
