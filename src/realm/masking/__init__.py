"""Passages -> masked examples: what is asked of the encoder."""
