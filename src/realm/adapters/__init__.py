"""Realm inside of other systems: thin, one module a system, each behind an extra of its name."""
