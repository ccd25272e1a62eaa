"""See the node work: processes, results and pictures of a demonstration."""
