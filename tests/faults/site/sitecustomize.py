"""Python imports this at its start: files that fail, where the environment asks for them."""

from tests.faults.layer import install_from_environment

install_from_environment()
