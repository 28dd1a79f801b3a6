"""Tests of the container image and the compose file. They need a Docker engine, and run only where `--docker` asks for them.

No test pulls an image: where one is missing, the tests skip and say which.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import compose_set
from compose_set import ComposeSet, running_set


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> None:
    """Docker, compose and the images that the set needs."""
    if not request.config.getoption("--docker"):
        pytest.skip("needs --docker")
    if (reason := compose_set.missing()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def running(images: None) -> Iterator[ComposeSet]:
    """The default set, up and healthy."""
    with running_set() as made:
        yield made
