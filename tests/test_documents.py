"""The documents: internal links lead somewhere, and the code of README and tutorial runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = [*ROOT.glob("*.md"), ROOT / "recipes" / "README.md", *sorted(DOCS.rglob("*.md"))]
#: Pages that a hook writes when the site is built, and pages that hold a file of the root.
GENERATED = {DOCS / "reference" / "cli.md"}
INCLUDED = {DOCS / "contributing.md": ROOT / "CONTRIBUTING.md", DOCS / "changelog.md": ROOT / "CHANGELOG.md"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")


def _prose(path: Path) -> str:
    """Return the text of a document without its code."""
    text = INCLUDED.get(path, path).read_text(encoding="utf-8")
    return re.sub(r"^( *)```.*?^\1```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", INCLUDED.get(path, path).read_text(encoding="utf-8"), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_internal_links_lead_somewhere(path: Path) -> None:
    for target in ("".join(found) for found in LINK.findall(_prose(path))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked in GENERATED or linked.exists(), f"{path.name} links to {target}"
        if anchor and linked.suffix == ".md" and linked not in GENERATED:
            assert anchor in _anchors(linked), f"{path.name} links to {target}"
