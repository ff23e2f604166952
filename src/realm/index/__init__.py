"""Maximum inner product search: build, publish, refresh, search."""
