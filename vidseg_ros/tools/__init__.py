"""Programs around the node: they measure, play and show."""
