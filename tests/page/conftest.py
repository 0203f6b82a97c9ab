"""A real Chromium, where there is one, and real swarms for it to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from gptnode.demo.bundled import MODEL_NAME, bundled_model_folder
from tests.node.conftest import write_tiny_model

from .swarms import Swarm, swarm_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = "GPTNODE_TEST_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = os.environ.get(CHROMIUM) or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium: install one, or name its program in {CHROMIUM}")
    # Chromium's own sandbox refuses to run as root, as in a container.
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if root else []
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def bundled(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """The bundled model on two servers; tests leave the swarm as they find it."""
    model = {"name": MODEL_NAME, "path": str(bundled_model_folder())}
    with swarm_of(tmp_path_factory.mktemp("bundled"), model, ("0-3", "4-7")) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def endless(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """A random model on two servers: its answers are long. Tests start again what they kill."""
    folder = tmp_path_factory.mktemp("endless")
    write_tiny_model(folder / "tiny", n_blocks=4, max_positions=4096)
    model = {"name": "tiny", "path": str(folder / "tiny"), "dtype": "f32"}
    with swarm_of(folder, model, ("0-1", "2-3")) as swarm:
        yield swarm
