"""The loops; the only room with an optimizer."""
