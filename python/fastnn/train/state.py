"""Whether the state in a checkpoint belongs to a trainer's model, optimizer, scheduler and metrics.

Next: trainer.py (what the state holds), checkpoint.py (its file).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .batches import host_array
from .checkpoint import CheckpointError

__all__ = ["check_state", "kinds"]


def kinds(optimizer: Any, scheduler: Any) -> dict[str, str | None]:
    """What the states in a checkpoint are of: those of one optimizer mean nothing to another."""
    return {
        "optimizer": type(optimizer).__name__,
        "scheduler": None if scheduler is None else type(scheduler).__name__,
    }


def check_state(state: Mapping[str, Any], model: Any, optimizer: Any, scheduler: Any, metrics: Collection[str]) -> None:
    """Raise a CheckpointError that names the first part of ``state`` that is of another trainer."""
    own = {name: host_array(value).shape for name, value in model.state_dict().items()}
    stored = {name: value.shape for name, value in state["model"].items()}
    for name in [*own, *stored]:
        if own.get(name) != stored.get(name):
            raise CheckpointError(
                f"the checkpoint is of another model: its '{name}' is {stored.get(name, 'missing')}, "
                f"this model's is {own.get(name, 'missing')}"
            )
    for part, kind in kinds(optimizer, scheduler).items():
        if state["kinds"][part] != kind:
            raise CheckpointError(
                f"the checkpoint's {part} is {state['kinds'][part]}, this trainer's is {kind}; resume with the same"
            )
    if set(state["sums"]["values"]) != {"loss", *metrics}:
        names = ", ".join(state["sums"]["values"])
        raise CheckpointError(f"the checkpoint measures {names}, this trainer loss, {', '.join(metrics)}")
    groups = [len(group["params"]) for group in state["optimizer"]["param_groups"]]
    if groups != [len(group["params"]) for group in optimizer.param_groups]:
        raise CheckpointError(f"the checkpoint's optimizer has groups of {groups} parameters, this one has others")
