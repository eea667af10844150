"""Training: the Trainer (fit, evaluate, predict, exact resume), its metrics, checkpoints, log and progress bar."""

from .checkpoint import CheckpointError, load_state, load_weights, save_state, save_weights
from .finite import NonFiniteError
from .metrics import METRICS, accuracy, top5
from .trainer import Trainer

__all__ = [
    "METRICS",
    "CheckpointError",
    "NonFiniteError",
    "Trainer",
    "accuracy",
    "load_state",
    "load_weights",
    "save_state",
    "save_weights",
    "top5",
]
