"""A hook of mkdocs: READMEs that lie outside docs/ are pages of the site too.

In the repository their links are those that a reader of the repository needs; on the site they
are turned to where the pages lie there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# In the repository -> on the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "prompts/README.md": "prompts/README.md",
    "prompts/refusalkit-166/README.md": "prompts/refusalkit-166/README.md",
    "prompts/contrast-146/README.md": "prompts/contrast-146/README.md",
    "prompts/hard-lines-180/README.md": "prompts/hard-lines-180/README.md",
    "prompts/languages-300/README.md": "prompts/languages-300/README.md",
    "prompts/starter/README.md": "prompts/starter/README.md",
}
# Files that are not pages: named, not linked.
NOT_PAGES = ("CITATION.cff", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for source, place in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Turn the repository's links into the site's."""
    place = page.file.src_uri
    source = next((s for s, p in PAGES.items() if p == place), f"docs/{place}")
    up = "../" * place.count("/")
    here = Path(source).parent
    lines = []
    for line in markdown.splitlines():
        for other, there in PAGES.items():
            line = line.replace(f"]({_relative(here, other)}", f"]({up}{there}")
        line = (
            line.replace(f"]({_relative(here, 'docs/')}", f"]({up}")
            if here != Path("docs")
            else line
        )
        for name in NOT_PAGES:
            line = line.replace(f"[{name}]({_relative(here, name)})", f"`{name}`")
        lines.append(line)
    return "\n".join(lines)


def _relative(here: Path, path: str) -> str:
    """`path` as a link from a file in the folder `here`."""
    text = "../" * len(here.parts) + path
    inside = f"{here.as_posix()}/"
    return path.removeprefix(inside) if path.startswith(inside) else text
