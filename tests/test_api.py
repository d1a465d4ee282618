"""docs/api.md is what the docstrings say."""

from pathlib import Path

import mvp_lite as mvp
from mvp_lite.__main__ import main
from mvp_lite.course.api import reference

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"


def test_the_page_is_up_to_date(tmp_path):
    assert main(["api", "--out", str(tmp_path / "api.md")]) == 0
    written = (tmp_path / "api.md").read_text(encoding="utf-8")
    assert written == PAGE.read_text(encoding="utf-8"), "docs/api.md is out of date: run `python -m mvp_lite api`"


def test_every_public_name_is_there_and_readable():
    text = reference()
    for name in mvp.__all__:
        assert f"`mvp.{name}`" in text
    assert "* `max_norm`: clip the joint gradient norm to this." in text
    assert "<object" not in text and "<function" not in text and " at 0x" not in text
    signatures = [block.split("\n```")[0] for block in text.split("```text\n")[1:]]
    assert max(len(line) for block in signatures for line in block.splitlines()) <= 110
