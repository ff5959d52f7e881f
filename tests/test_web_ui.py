"""The files of the page against the server: no foreign host, the same wire, texts and names that exist."""

from __future__ import annotations

import json
import re

from web_client import UI

from alerts.model import Kind
from web import wire


def test_pages_name_no_foreign_host_and_hold_nothing_inline() -> None:
    """The policy would break what it forbids: no inline script or style, no address of another host in the pages."""
    for file in UI.glob("*.html"):
        html = file.read_text()
        assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", html), file.name
        assert not re.search(r"https?://", html), file.name
    for file in [*UI.glob("*.css"), *UI.glob("*.js")]:
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", file.read_text()), file.name


def test_wire_fields_are_the_same_on_both_sides() -> None:
    """The page decodes each message by the field names and order of the server."""
    text = (UI / "wire.js").read_text()
    block = re.search(r"FIELDS = (\{.*?\n\});?", text, re.DOTALL).group(1)
    quoted = re.sub(r"(?m)^  (\w+):", r'  "\1":', block.removesuffix(";"))
    fields = json.loads(re.sub(r",(\s*[\]}])", r"\1", quoted))
    ours = {str(kind.__struct_config__.tag): list(kind.__struct_fields__) for kind in wire.ALL}
    assert fields == ours


def test_every_alarm_kind_has_a_text() -> None:
    """Staff never read the code of an alarm."""
    text = (UI / "vocabulary.js").read_text()
    block = re.search(r"KINDS = \{(.*?)\n\};", text, re.DOTALL).group(1)
    assert set(re.findall(r"(?m)^  (\w+):", block)) == {kind.value for kind in Kind}


def test_modules_import_only_what_is_there() -> None:
    """Each name that a module of the page imports is exported by the module that it names."""
    for file in UI.glob("*.js"):
        for names, source in re.findall(r"import \{([^}]*)\} from \"\./([\w.]+)\"", file.read_text()):
            exported = (UI / source).read_text()
            for name in (part.strip() for part in names.split(",")):
                assert re.search(rf"export (async )?(class|const|function\*?|let) {name}\b", exported), (
                    file.name,
                    name,
                )


def test_every_act_of_the_trail_has_its_words() -> None:
    """An admin reads what was done, not the name that programs have for it."""
    known = set(re.findall(r'"?([a-z_.]+)"?: "', (UI / "vocabulary.js").read_text().split("ACTS = {")[1]))
    written = "".join(file.read_text() for file in UI.parent.glob("*.py"))
    acts = set(re.findall(r'audit\(request, "([a-z_.]+)"', written))
    assert len(acts) > 20
    assert acts <= known
