"""What is read of a PDF, and the bounds of it."""

from __future__ import annotations

import base64
import subprocess
import sys

import pytest

from proxyd.proxy import pdf_reader
from proxyd.proxy.pdf_reader import ALL, NONE, TEXTLESS, read_pages
from tests.support.paths import ROOT
from tests.support.pdf_files import LOCKED, pdf_of

pytest.importorskip("pypdfium2")
PIL_Image = pytest.importorskip("PIL.Image")

LONG = "A page full of words"


def image_of(page: dict[str, str]) -> bytes:
    return base64.b64decode(page["image"])


@pytest.mark.parametrize(("drawn", "shown"), [(ALL, [0, 1, 2]), (TEXTLESS, [1]), (NONE, [])])
def test_pages_are_drawn_as_asked_for(drawn: str, shown: list[int]) -> None:
    result = read_pages(pdf_of(LONG, "", f"{LONG} again"), drawn)
    assert result["count"] == 3
    assert [page["text"] for page in result["pages"]] == [LONG, "", f"{LONG} again"]
    assert [page["is_textless"] for page in result["pages"]] == [False, True, False]
    assert [number for number, page in enumerate(result["pages"]) if "image" in page] == shown


def test_a_drawn_page_shows_what_is_on_it() -> None:
    import io

    (page,) = read_pages(pdf_of(""), TEXTLESS)["pages"]
    picture = PIL_Image.open(io.BytesIO(image_of(page)))
    assert picture.format == "JPEG"
    width, height = picture.size
    assert picture.getpixel((width // 2, height // 2)) == pytest.approx((128, 128, 128), abs=4)
    assert picture.getpixel((5, 5)) == pytest.approx((255, 255, 255), abs=4)


@pytest.mark.parametrize(
    ("size", "pixels"),
    [
        ((595, 842), (1108, 1568)),
        ((14_400, 14_400), (1568, 1568)),
        ((14_400, 3), (1568, 1)),
        ((72, 72), (200, 200)),
    ],
)
def test_an_image_is_bounded_in_pixels(size: tuple[float, float], pixels: tuple[int, int]) -> None:
    import io

    (page,) = read_pages(pdf_of("", size=size), ALL)["pages"]
    assert PIL_Image.open(io.BytesIO(image_of(page))).size == pytest.approx(pixels, abs=1)


def test_pages_images_and_text_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf_reader, "MAX_PAGES", 5)
    monkeypatch.setattr(pdf_reader, "MAX_IMAGES", 2)
    result = read_pages(pdf_of(*[""] * 7), ALL)
    assert (result["count"], len(result["pages"])) == (7, 5)
    assert ["image" in page for page in result["pages"]] == [True, True, False, False, False]
    monkeypatch.setattr(pdf_reader, "MAX_TEXT", 30)
    result = read_pages(pdf_of(LONG, LONG, LONG), NONE)
    assert [page["text"] for page in result["pages"]] == [LONG, LONG[:10]]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (pdf_of(LONG, trailer=LOCKED), "it is protected by a password"),
        (b"<html>", "it is no valid PDF"),
        (b"", "it is no valid PDF"),
        (pdf_of(LONG)[:60], "it is no valid PDF"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes, error: str) -> None:
    assert read_pages(data, ALL) == {"error": error}


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit memory so")
def test_the_process_has_limits() -> None:
    script = (
        "import resource as r; from proxyd.proxy.pdf_reader import limit_process; limit_process(); "
        "print([r.getrlimit(each)[0] for each in (r.RLIMIT_CPU, r.RLIMIT_AS, r.RLIMIT_CORE)])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == f"[60, {1 << 30}, 0]\n"
