"""Hostile inputs: what is attacked (targets), with what (mutations), and what counts as a finding."""
