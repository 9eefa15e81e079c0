"""What the documents point at is there."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:")
IN_CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def documents() -> list[str]:
    """Return every Markdown file of the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"],  # noqa: S607 - whichever git made the checkout
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.split()


def prose(document: Path) -> str:
    """Return a document without its blocks of code, in which # is a comment."""
    return IN_CODE.sub("", document.read_text())


def anchors(document: Path) -> set[str]:
    """Return what a link may name behind the #: every heading, as renderers write it."""
    headings = re.findall(r"^#+ (.*)", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def broken(document: Path) -> Iterator[str]:
    """Yield every link of *document* that leads nowhere in this repository."""
    for target in LINK.findall(prose(document)):
        path, _, anchor = target.partition("#")
        to = document.parent / path if path else document
        if ELSEWHERE.match(target):
            continue
        if not to.exists() or (anchor and anchor not in anchors(to)):
            yield target


@pytest.mark.parametrize("name", documents())
def test_links_lead_somewhere(name: str) -> None:
    """Files and headings that a document links to exist."""
    assert not list(broken(ROOT / name))


def test_what_is_said_to_show_a_feature_does_exist() -> None:
    """Every test that docs/features.md names is one, in the file that stands before it."""
    table = (ROOT / "docs" / "features.md").read_text()
    named, file = 0, ""
    for target, name in re.findall(r"\]\(([^)]+)\)|`(test_\w+)`", table):
        file = target or file
        if name:
            named += 1
            assert f"def {name}(" in (ROOT / "docs" / file).read_text(), (file, name)

    assert named > 40
