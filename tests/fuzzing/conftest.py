"""What the room starts is stopped at its end."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _closed() -> Iterator[None]:
    yield
    from hostile.web import close_site

    close_site()
