"""Equations and modules: tensors only, no files, no logging."""
