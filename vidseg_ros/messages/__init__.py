"""Serialized messages as they are on the wire, and the pictures in them."""
