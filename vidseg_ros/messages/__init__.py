"""Messages that the node makes of what the core reads."""
