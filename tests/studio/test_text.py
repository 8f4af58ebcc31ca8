"""Text on the page is escaped; sessions are bounded, and created again when they are unknown."""

from types import SimpleNamespace

import pytest
import torch
from markdown_it import MarkdownIt

from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import Recipe, StyleCode
from ldm.studio.session import MAX_HISTORY, Result
from ldm.studio.text import escaped, is_unicode
from ldm.studio.visitors import SessionExpiredError, Visitors


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a & b",
        "**bold** [link](javascript:x)",
        "# head",
        "`code` \\ $x$",
        "<!--",
    ],
)
def test_text_is_shown_as_it_is_in_html_and_markdown(text) -> None:
    from html import unescape

    assert unescape(escaped(text)) == text and "<" not in escaped(text)
    assert unescape(MarkdownIt().render(escaped(text))) == f"<p>{text}</p>\n"


def test_lone_surrogates_are_found_and_never_shown() -> None:
    assert not is_unicode({"a": ["\ud800"]}) and not is_unicode({"\udfff": 1}) and is_unicode(["ä", 1, None])
    escaped("\ud800").encode()


def asked(name: str) -> SimpleNamespace:
    return SimpleNamespace(session_hash=name)


def result() -> Result:
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    style = StyleCode(torch.zeros(len(CELEBAMASK_HQ), 8), CELEBAMASK_HQ, "encoder")
    return Result(torch.zeros(3, 64, 64), None, bytes(1000), Recipe(style, labels, {}))


def test_a_session_is_created_again_after_many_visitors_and_after_a_restart() -> None:
    visitors = Visitors(max_sessions=3)
    first = visitors.begin(asked("first"))
    assert visitors.of(asked("first")) is first
    for number in range(3):
        visitors.begin(asked(str(number)))
    for page in ("first", "older than the server"):
        with pytest.raises(SessionExpiredError, match="new one"):
            visitors.of(asked(page))
        assert visitors.of(asked(page)).face is None


def test_kept_images_are_bounded_in_bytes() -> None:
    visitors = Visitors(limit=4 * result().nbytes)
    for name in ("anna", "bert"):
        session = visitors.begin(asked(name))
        for _ in range(MAX_HISTORY + 5):
            session.remember(result())
        assert len(session.results) == MAX_HISTORY
    visitors.trim()
    kept = [visitors.of(asked(name)).results for name in ("anna", "bert")]
    assert sum(one.nbytes for results in kept for one in results) <= visitors.limit
    assert (
        len(kept[0]) == 1 and len(kept[1]) == 3
    )  # the image on display stays; the older visitor loses first
