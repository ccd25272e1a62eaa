"""Operations on pictures, flow and logits, one file for each."""

PADDINGS = ("zeros", "border")
"""What lies outside an image that is warped: nothing, or its nearest pixel."""
