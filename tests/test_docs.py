"""The documents point at what is there: links of every Markdown file lead to files, and to headings in them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "tests" / "golden").glob("*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Of headings, as GitHub names them: lower case, words joined by hyphens, other signs left out."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text("utf-8")
    for target in ("".join(groups) for groups in LINK.findall(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(file.read_text("utf-8")), f"{target}: no such heading"


def test_references_of_the_log_are_defined_and_used():
    text = (ROOT / "docs" / "log" / "README.md").read_text("utf-8")
    defined = set(re.findall(r"^\[(\d+)\]: ", text, re.MULTILINE))
    used = set(re.findall(r"\[(\d+)\](?!:)", text))
    assert defined == used


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CODE.md"])
def test_files_and_names_that_newcomers_are_sent_to_are_there(name):
    text = (ROOT / "docs" / name).read_text("utf-8")
    source = "\n".join(path.read_text("utf-8") for folder in ("codec", "tests") for path in (ROOT / folder).rglob("*.py"))
    for words in re.findall(r"`([^`]+)`", text):
        for word in words.split():
            if re.fullmatch(r"test_\w+\.py", word):
                assert (ROOT / "tests" / word).exists(), f"tests/{word} is not there"
            elif re.fullmatch(r"[\w/]+\.py", word):
                places = [ROOT, ROOT / "codec", *(path for path in (ROOT / "codec").iterdir() if path.is_dir())]
                assert any((place / word).exists() for place in places), f"{word} is not there"
        if re.fullmatch(r"[A-Z_]+|_\w+", words):
            assert re.search(rf"\b{words}\b", source), f"{words} is nowhere in the code"
