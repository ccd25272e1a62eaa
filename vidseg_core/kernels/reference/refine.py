"""Edges of labels and the guided sum in plain torch, as the network itself computes them."""

from vidseg_core.networks.guided_refine import guided_sum, label_edges

__all__ = ["guided_sum", "label_edges"]
