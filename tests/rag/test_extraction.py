import io
import random
import zipfile
from collections.abc import Iterable

import pytest
from docx import Document
from docx.document import Document as WordDocument
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st

from rag.extraction import SUPPORTED, Extracted, ExtractionError, Section, extract, media_type
from rag.extraction.media_types import DOCX, HTML, MARKDOWN, PDF, PLAIN_TEXT, UNKNOWN


def outline(extracted: Extracted) -> list[tuple[str | None, str]]:
    return [(section.heading, section.text) for section in extracted.sections]


def from_html(body: str) -> Extracted:
    return extract(body.encode(), HTML)


def make_pdf(
    pages: Iterable[str] = ("Hello.",), *, title: str | None = None, chapters: Iterable[str] = ()
) -> bytes:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=12)
    if title:
        pdf.set_title(title)
    names = iter(chapters)
    for page in pages:
        pdf.add_page()
        if name := next(names, None):
            pdf.start_section(name)
        pdf.multi_cell(0, text=page)
    return bytes(pdf.output())


def saved(document: WordDocument) -> bytes:
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def make_docx() -> bytes:
    document = Document()
    document.core_properties.title = "Handbook"
    document.add_paragraph("Before.")
    document.add_heading("Pets", 1)
    document.add_paragraph("Cats sleep.")
    document.add_heading("Food", 2)
    document.add_paragraph("fish", style="List Bullet")
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ["Animal", "Legs", "Cat", "4"], strict=True):
        cell.text = text
    return saved(document)


def make_zip(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def replaced(data: bytes, name: str, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    return make_zip(files | {name: content})


# --- what a file is -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "filename", "declared", "expected"),
    [
        (make_pdf(), "a.txt", "text/plain", PDF),
        (b"rubbish\n" + make_pdf(), None, None, PDF),
        (make_docx(), "a.zip", "application/zip", DOCX),
        (make_zip({"a.txt": b"x"}), "a.docx", DOCX, UNKNOWN),
        (make_docx()[:500], "a.docx", DOCX, UNKNOWN),
        (b"# A", "A.MD", None, MARKDOWN),
        (b"# A", "a.markdown", "text/plain", MARKDOWN),
        (b"# A", None, "text/markdown; charset=utf-8", MARKDOWN),
        (b"<html>", "a.md", None, MARKDOWN),
        (b"\xef\xbb\xbf <?xml version='1.0'?><!-- x -->\n<!DOCTYPE html>", None, None, HTML),
        (b"<HTML lang=en>", "page", "text/plain", HTML),
        (b"<p>Hello", "a.html", None, HTML),
        (b"<p>Hello", None, "text/html; charset=utf-8", HTML),
        (b"<p>Hello", "a.txt", None, PLAIN_TEXT),
        (b"plain", None, None, PLAIN_TEXT),
        (b"", None, None, PLAIN_TEXT),
        (b"one \0 blemish" * 10, None, None, UNKNOWN),
        (b"one \0 blemish" + b"." * 200, None, None, PLAIN_TEXT),
        ("Grüße".encode("cp1252"), "a.txt", None, PLAIN_TEXT),
        ("Grüße".encode("utf-16"), "a.txt", None, PLAIN_TEXT),
        (random.Random(1).randbytes(5000), "a.txt", "text/plain", UNKNOWN),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1", "a.png", "image/png", UNKNOWN),
        (rb"{\rtf1 text}", "a.rtf", None, UNKNOWN),
    ],
)
def test_the_bytes_say_what_a_file_is(
    data: bytes, filename: str | None, declared: str | None, expected: str
) -> None:
    assert media_type(data, filename, declared) == expected


# --- plain text -----------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_is_decoded(encoding: str) -> None:
    data = "Grüße, “all”\r\nof you".encode(encoding)
    assert outline(extract(data, PLAIN_TEXT)) == [(None, "Grüße, “all”\nof you")]


def test_a_title_is_no_longer_than_a_heading() -> None:
    extracted = extract(b"<title>" + b"long " * 1000 + b"</title><p>Text.", HTML)
    assert len(extracted.title or "") == 200


def test_what_postgres_cannot_hold_is_left_out() -> None:
    assert outline(extract(b"a\0b\x81", PLAIN_TEXT)) == [(None, "ab\x81")]
    assert outline(extract(b"\xff\xfe\x00\xd8a\0", PLAIN_TEXT)) == [(None, "\ufffda")]


@pytest.mark.parametrize("mime_type", sorted(SUPPORTED))
@pytest.mark.parametrize("data", [b"", b" \n\t\0 "])
def test_a_file_without_text_is_an_error(mime_type: str, data: bytes) -> None:
    with pytest.raises(ExtractionError):
        extract(data, mime_type)


def test_an_unknown_type_is_an_error() -> None:
    with pytest.raises(ExtractionError, match="image/png"):
        extract(b"x", "image/png")


# --- Markdown -------------------------------------------------------------------------


def test_markdown_sections_stand_under_their_headings() -> None:
    text = b"""# Guide

Hello.

## Install ##
### On [Debian](https://debian.org) `12`

    # no heading

```sh
# nor this
```

## Empty
Usage
=====
Run it.

Options
---
| a |
|---|
"""
    extracted = extract(text, MARKDOWN)
    assert extracted.title == "Guide"
    assert outline(extracted) == [
        (None, "Hello."),
        ("Guide > Install > On Debian 12", "    # no heading\n\n```sh\n# nor this\n```"),
        (None, "Empty"),
        ("Usage", "Run it."),
        ("Usage > Options", "| a |\n|---|"),
    ]


def test_a_single_top_heading_is_the_title_and_no_part_of_the_path() -> None:
    extracted = extract(b"Before.\n\n# Guide\nHello.\n## Install\nRun.\n", MARKDOWN)
    assert outline(extracted) == [(None, "Before."), (None, "Hello."), ("Install", "Run.")]


def test_front_matter_is_only_good_for_a_title() -> None:
    extracted = extract(b"---\ntitle: 'The guide'\ntags: [a]\n---\nHello.\n", MARKDOWN)
    assert extracted.title == "The guide"
    assert outline(extracted) == [(None, "Hello.")]


def test_a_rule_is_no_front_matter() -> None:
    assert outline(extract(b"---\nHello.\n\n---\nBye.\n", MARKDOWN))[0][1].startswith("---\nHello.")


def test_a_heading_as_long_as_a_paragraph_is_a_paragraph() -> None:
    extracted = extract(b"# Title\n## " + b"word " * 100, MARKDOWN)
    assert outline(extracted) == [(None, ("word " * 100).strip())]


def test_headings_alone_are_text() -> None:
    assert outline(extract(b"# A\n## B\n## C", MARKDOWN)) == [(None, "B"), (None, "C")]
    assert outline(extract(b"# A", MARKDOWN)) == [(None, "A")]


# --- HTML -----------------------------------------------------------------------------

SPHINX = """<!DOCTYPE html>
<html><head><title>Sockets &#8212; Python documentation</title><style>p {}</style></head><body>
<div class="related" role="navigation"><ul><li>index</li></ul></div>
<div class="body" role="main"><section id="sockets">
<h1>Sockets<a class="headerlink" href="#sockets">¶</a></h1>
<p>A socket is an
<em>endpoint</em>.</p>
<div class="admonition note"><p class="admonition-title">Note</p><p>Mind it.</p></div>
<section><h2>Options<a class="headerlink" href="#o">¶</a></h2>
<dl><dt>timeout</dt><dd><p>In seconds.</p></dd></dl>
<div class="highlight"><pre><span>def</span> f():
    <span>return</span> 1 &lt; 2
</pre></div>
<table><thead><tr><th><p>Name</p></th><th>Value</th></tr></thead>
<tbody><tr><td>a|b</td><td>1<br>2</td></tr></tbody></table>
<ul><li><p>one</p></li><li>two</li></ul>
</section></section></div>
<div class="sphinxsidebar" role="navigation">Table of contents</div>
<script>alert(1)</script></body></html>"""

DOCBOOK = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "x.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>8.1. Types</title></head><body>
<div class="navheader"><table width="100%"><tr><th>8.1. Types</th></tr></table><hr></hr></div>
<div class="sect1"><div class="titlepage"><div><h2 class="title">8.1.\xa0Types</h2></div></div>
<div class="toc"><dl class="toc"><dt>8.1.1. Numbers</dt></dl></div>
<p>There are types.</p>
<div class="sect2"><div class="titlepage"><h3 class="title">8.1.1. Numbers</h3></div>
<div class="note"><h3 class="title">Note</h3><p>They count.</p></div><p>One.</p></div></div>
<div class="navfooter"><table><tr><td>Next</td></tr></table></div></body></html>"""


def test_a_sphinx_page_is_its_content() -> None:
    extracted = from_html(SPHINX)
    assert extracted.title == "Sockets"
    assert outline(extracted) == [
        (None, "A socket is an endpoint.\n\nNote\n\nMind it."),
        (
            "Options",
            "timeout\n\nIn seconds.\n\n```\ndef f():\n    return 1 < 2\n```\n\n"
            "| Name | Value |\n| --- | --- |\n| a\\|b | 1 2 |\n\n- one\n\n- two",
        ),
    ]


def test_a_docbook_page_is_its_content_and_notes_are_no_sections() -> None:
    extracted = from_html(DOCBOOK)
    assert extracted.title == "8.1. Types"
    assert outline(extracted) == [
        (None, "There are types."),
        ("8.1.1. Numbers", "Note\n\nThey count.\n\nOne."),
    ]


def test_a_page_without_headings_is_named_by_its_title() -> None:
    extracted = from_html("<title> A\n page </title><header>Menu</header><p>Hello<br>you")
    assert extracted.title == "A page"
    assert outline(extracted) == [(None, "Hello\nyou")]


def test_an_empty_main_is_passed_over() -> None:
    assert outline(from_html("<main></main><p>Hello.")) == [(None, "Hello.")]


def test_an_only_article_is_the_content_with_its_header() -> None:
    page = "<div>Menu</div><article><header><h1>News</h1></header><p>It rains.</p></article>"
    assert from_html(page) == Extracted("News", [Section("It rains.")])


def test_a_table_that_lays_out_a_page_is_no_table() -> None:
    page = "<table><tr><td>Menu<td><h1>News</h1><p>It rains.<table><tr><td>a<td>b</table></table>"
    assert outline(from_html(page)) == [
        (None, "Menu"),
        ("News", "It rains.\n\n| a | b |\n| --- | --- |"),
    ]


def test_the_encoding_is_the_pages() -> None:
    page = '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>日本語'
    assert outline(extract(page.encode("shift_jis"), HTML)) == [(None, "日本語")]


def test_a_fence_is_longer_than_those_within() -> None:
    assert outline(from_html("<pre>```\na</pre>")) == [(None, "````\n```\na\n````")]


@pytest.mark.parametrize("tag", ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<blockquote>"])
def test_nesting_is_read_or_refused(tag: str) -> None:
    assert "hello" in outline(from_html(tag * 1000 + "hello"))[0][1]
    with pytest.raises(ExtractionError, match="nested"):
        from_html(tag * 100_000)


# --- PDF ------------------------------------------------------------------------------


def test_a_pdf_has_pages() -> None:
    extracted = extract(make_pdf(["First page.", "", "Third page."], title="Report"), PDF)
    assert extracted == Extracted(
        "Report", [Section("First page.", None, 1), Section("Third page.", None, 3)]
    )


def test_bookmarks_name_the_pages() -> None:
    extracted = extract(make_pdf(["a", "b", "c"], chapters=["One", "", "Two"]), PDF)
    assert [section.heading for section in extracted.sections] == ["One", "One", "Two"]


@pytest.mark.parametrize("title", ["Microsoft Word - a.doc", "untitled", "report.pdf", " - "])
def test_a_title_that_a_program_made_up_is_none(title: str) -> None:
    assert extract(make_pdf(title=title), PDF).title is None


def test_a_word_that_is_broken_at_a_line_end_is_one_word() -> None:
    assert outline(extract(make_pdf(["exam-\nple"]), PDF)) == [(None, "example")]


def test_a_pdf_without_text_says_that_it_may_be_a_scan() -> None:
    with pytest.raises(ExtractionError, match="scan"):
        extract(make_pdf([""]), PDF)


@pytest.mark.parametrize("password", ["", "secret"])
def test_a_password_is_asked_for_only_where_there_is_one(password: str) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica")
    pdf.cell(text="Hello.")
    pdf.set_encryption(owner_password="owner", user_password=password or None)
    data = bytes(pdf.output())
    if password:
        with pytest.raises(ExtractionError, match="password"):
            extract(data, PDF)
    else:
        assert outline(extract(data, PDF)) == [(None, "Hello.")]


# --- Word -----------------------------------------------------------------------------


def test_a_word_file_is_read_by_its_styles() -> None:
    extracted = extract(make_docx(), DOCX)
    assert extracted.title == "Handbook"
    assert outline(extracted) == [
        (None, "Before."),
        ("Pets", "Cats sleep."),
        ("Pets > Food", "- fish\n\n| Animal | Legs |\n| --- | --- |\n| Cat | 4 |"),
    ]


@pytest.mark.parametrize("level", [0, 1])
def test_the_first_title_or_heading_is_the_title_where_there_is_no_other(level: int) -> None:
    document = Document()
    document.add_heading("Report", level)
    document.add_paragraph("Text.")
    assert extract(saved(document), DOCX) == Extracted("Report", [Section("Text.")])


def test_a_zip_bomb_is_refused() -> None:
    data = replaced(make_docx(), "word/media/image.bin", bytes(101 * 1024 * 1024))
    with pytest.raises(ExtractionError, match="too large"):
        extract(data, DOCX)


def test_entities_are_not_expanded() -> None:
    xml = b"""<?xml version="1.0"?><!DOCTYPE w [<!ENTITY a "%s"><!ENTITY b "%s"><!ENTITY c "%s">
<!ENTITY passwd SYSTEM "file:///etc/passwd">]>
<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">
<w:body><w:p><w:r><w:t>Hello &c; &passwd;</w:t></w:r></w:p></w:body></w:document>"""
    xml %= b"lol" * 1000, b"&a;" * 1000, b"&b;" * 1000
    data = replaced(make_docx(), "word/document.xml", xml)
    try:
        text = extract(data, DOCX).sections[0].text
    except ExtractionError:
        return
    assert "lol" not in text
    assert "root" not in text


def test_a_cell_that_claims_a_billion_columns_is_one_cell() -> None:
    document = Document()
    document.add_table(1, 1).cell(0, 0).text = "wide"
    with zipfile.ZipFile(io.BytesIO(saved(document))) as archive:
        xml = archive.read("word/document.xml")
    xml = xml.replace(b"<w:tcPr>", b'<w:tcPr><w:gridSpan w:val="1000000000"/>')
    assert b"gridSpan" in xml
    data = replaced(saved(document), "word/document.xml", xml)
    assert outline(extract(data, DOCX)) == [(None, "| wide |\n| --- |")]


# --- hostile files --------------------------------------------------------------------

GOOD = {
    PDF: make_pdf(["Hello."] * 3, title="T", chapters=["One"]),
    DOCX: make_docx(),
    HTML: SPHINX.encode(),
    MARKDOWN: b"# A\n\n```\nx\n",
}


@pytest.mark.parametrize("mime_type", sorted(GOOD))
@given(st.data())
def test_a_damaged_file_gives_text_or_an_error(mime_type: str, data: st.DataObject) -> None:
    good = GOOD[mime_type]
    file = bytearray(good[: data.draw(st.integers(0, len(good)))])
    for position, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(good)), st.integers(0, 255)), max_size=20)
    ):
        if position < len(file):
            file[position] = byte
    media_type(bytes(file), None, None)
    try:
        extracted = extract(bytes(file), mime_type)
    except ExtractionError:
        return
    assert extracted.sections
    assert all(section.text.strip() for section in extracted.sections)


@pytest.mark.parametrize("mime_type", sorted(SUPPORTED))
@given(st.binary(max_size=300))
def test_any_bytes_give_storable_text_or_an_error(mime_type: str, data: bytes) -> None:
    try:
        extracted = extract(data, mime_type)
    except ExtractionError:
        return
    for section in extracted.sections:
        section.text.encode()
        assert "\0" not in section.text
