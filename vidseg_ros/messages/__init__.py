"""What is on the wire: serialized messages, and the pictures in them."""
