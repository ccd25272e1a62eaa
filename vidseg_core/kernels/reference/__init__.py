"""Operations in plain torch: what every implementation has to compute, and what devices without one take."""

from vidseg_core.threads import tell_torch

tell_torch()
