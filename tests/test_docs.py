"""What the documents list is what the tree has."""

import re

import pytest

from umbra_tools import mutate
from umbra_tools.base import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "tests/README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths(document):
    """Files named in the text exist; patterns and what is made by building are left out."""
    for name in re.findall(r"`((?:boot|hv|guest|include|tests|scripts|docs)/[\w./-]+)`",
                           document.read_text()):
        if "NAME" not in name:
            assert (ROOT / name).exists() or (document.parent / name).exists(), name


def test_configuration_keys():
    """Every key of the loader's tables has its row."""
    tables = re.findall(r"_keys\[\] = \{\n(.*?)\n\};", (ROOT / "boot/config_values.c").read_text(),
                        re.S)
    keys = re.findall(r'^\t\{"(\w+)"', "\n".join(tables), re.M)
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/configuration.md").read_text(), re.M)
    assert len(tables) == 2 and sorted(keys) == sorted(rows)


def test_features():
    names = re.findall(r"^\tFEAT_\w+,\s*/\* (\w+):", (ROOT / "include/umbra/features.h").read_text(),
                       re.M)
    options = (ROOT / "docs/portability.md").read_text().split("## Options")[1].split("\n## ")[0]
    rows = [name for row in re.findall(r"^\| (`.*?`) \|", options, re.M)
            for name in re.findall(r"`(\w+)`", row)]
    assert sorted(names) == sorted(rows)


def test_mutations():
    """`scripts/mutate --list` was copied after the last change."""
    mutations = map(mutate.read, sorted(mutate.FOLDER.glob("*.txt")))
    assert mutate.markdown(mutations) in (ROOT / "tests/README.md").read_text()
