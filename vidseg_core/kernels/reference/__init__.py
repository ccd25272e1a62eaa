"""Operations in plain torch: what every implementation has to compute, and what devices without one take."""

import torch  # noqa: F401  # it has to be there to be told

from vidseg_core.threads import tell_torch

tell_torch()
