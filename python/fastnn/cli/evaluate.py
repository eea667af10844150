"""``fastnn eval``."""

from __future__ import annotations

import json
import time
from typing import Any

from .recipes import DATASETS
from .runs import check_fit, load_dataset, load_trained, set_threads


def run(args: Any) -> int:
    set_threads(args)
    from ..data import ArrayDataset, DataLoader
    from ..nn import CrossEntropyLoss
    from ..train import Trainer

    model, about, path = load_trained(args.checkpoint, args.model)
    name = args.dataset or about["dataset"]
    check_fit(about["model"], name)
    own = about["dataset"] == name and name in DATASETS
    data_dir = args.data_dir or (about.get("data_dir") if own else None)
    dataset = load_dataset(name, args.split == "train", data_dir)
    # The pixels are scaled as in training, whatever dataset they come from.
    mean, std = about.get("mean", dataset.mean), about.get("std", dataset.std)
    dataset = ArrayDataset(dataset.images, dataset.labels, mean, std, dataset.classes)
    trainer = Trainer(model, CrossEntropyLoss(), None, metrics=("accuracy", "top5"), device=args.device)
    started = time.monotonic()
    result = trainer.evaluate(DataLoader(dataset, args.batch_size))
    rate = len(dataset) / max(1e-9, time.monotonic() - started)
    if args.json:
        facts = {"checkpoint": str(path), "model": about["model"], "dataset": name, "split": args.split}
        print(json.dumps({**facts, "samples": len(dataset), **result, "images_per_second": round(rate, 1)}))
    else:
        print(
            f"{about['model']} on {name} ({args.split}, {len(dataset)} images): accuracy "
            f"{100 * result['accuracy']:.2f} %, top-5 {100 * result['top5']:.2f} %, loss {result['loss']:.4f}; "
            f"{rate:,.0f} images/s; {path}"
        )
    return 0
