"""A synthetic street: the embedded source of demo, tests and training."""

from vidseg_core.street.config import TRAIN_SEEDS, StreetConfig
from vidseg_core.street.sequence import Street

__all__ = ["TRAIN_SEEDS", "Street", "StreetConfig"]
