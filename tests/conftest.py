"""Options and paths of the test suite; scripts/test builds first and then starts pytest here."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests" / "boot")]
sys.dont_write_bytecode = True


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="every combination; longer fuzzing")


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): tests that one worker runs in a row")
    config.addinivalue_line("markers", "long: only with --long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        dropped = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def long(request):
    return request.config.getoption("--long")
