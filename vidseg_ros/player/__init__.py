"""A camera that plays images, videos, recordings or the synthetic street."""
