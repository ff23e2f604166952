"""Hostile inputs: what is attacked, with what, and what counts as a finding."""
