"""A synthetic street: the embedded source of demo, tests and training."""

from vidseg_core.data.street.config import TRAIN_SEEDS, StreetConfig
from vidseg_core.data.street.sequence import Street

__all__ = ["TRAIN_SEEDS", "Street", "StreetConfig"]
