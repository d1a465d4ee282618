"""The website: built once; links, pictures and downloads read from its files, every page opened in a real Chromium."""

import functools
import os
import re
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser as lab
import nbformat
import pytest
from bs4 import BeautifulSoup

from mvp_lite.course import sliders

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "data").rglob("README.md"))]
SOURCES = [*PAGES, *NOTEBOOKS, ROOT / "notebooks/guide/notation.md"]
WIDTH = 390  # of a phone, in pixels
#: a picture of one pixel
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="

pytestmark = pytest.mark.slow

#: What is wrong with an open page: its equations, its visible text, its pictures, what sticks out of the screen.
LOOK = """async () => {
    await window.MathJax?.startup?.promise;
    const all = query => [...document.querySelectorAll(query)];
    await Promise.all(all('img').map(img => { img.loading = 'eager'; return img.decode().catch(() => {}); }));
    const scrolls = (element, article) => {
        for (let box = element; box && box !== article; box = box.parentElement)
            if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return true;
        return false;
    };
    const article = document.querySelector('article');
    const text = article.cloneNode(true);
    text.querySelectorAll('pre, code, mjx-container, script, style').forEach(element => element.remove());
    const wide = [...article.querySelectorAll('*')].filter(
        element => element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element, article));
    return {
        typeset: all('article mjx-container').length,
        errors: all("mjx-merror, mjx-mtext[style*='color: red']").map(element => element.innerText),
        raw: text.textContent.match(/.{0,20}(\\$|\\\\[a-zA-Z]+).{0,20}/g) || [],
        broken: all('img').filter(img => !img.naturalWidth).map(img => img.src),
        wide: wide.map(element => element.outerHTML.slice(0, 60)),
        overflow: document.documentElement.scrollWidth - innerWidth,
    };
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    (folder / "sliders").mkdir()
    (cell,) = [cell for cell in nbformat.read(NOTEBOOKS[1], as_version=4).cells if has_widget(cell)][:1]
    drawn = {"sliders": [{"label": "x", "values": ["1", "2"], "start": 1}], "pictures": [DOT, DOT]}
    (folder / "sliders" / f"{NOTEBOOKS[1].stem}-{cell.id}.html").write_text(sliders.page(drawn, cell.id))
    options = ["-q", "-W", "--keep-going", "-c", ROOT / "docs", "-d", folder / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, ROOT, folder / "site"]
    env = os.environ | {"MVP_LITE_SLIDERS": str(folder / "sliders")}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "site"


def has_widget(cell) -> bool:
    return cell.cell_type == "code" and "course.widgets." in cell.source


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def page_of(site: Path, source: Path) -> Path:
    return site / source.relative_to(ROOT).with_suffix(".html")


@functools.cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


# --- from the files alone -----------------------------------------------------------------------------------------


def dead(site: Path) -> list[str]:
    """Links, anchors, pictures, scripts and styles that lead nowhere; all but links must be files of the site."""
    parsed = {page: soup(page) for page in pages(site)}
    ids = {page: {tag["id"] for tag in html.find_all(id=True)} | {""} for page, html in parsed.items()}
    found = []
    for page, html in parsed.items():
        name = page.relative_to(site)
        for tag in html.find_all(["a", "img", "script", "link"]):
            url = tag.get("href") if tag.name in ("a", "link") else tag.get("src")
            if url is None:
                continue
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if tag.name != "a" and parts.scheme != "data":
                    found.append(f"{name}: {tag.name} from another host: {url}")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file():
                found.append(f"{name}: no file {url}")
            elif target in ids and unquote(parts.fragment) not in ids[target]:
                found.append(f"{name}: no anchor {url}")
    return found


def test_every_link_anchor_and_picture_leads_somewhere(site):
    assert dead(site) == []
    assert all(page_of(site, source).is_file() for source in SOURCES)
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()


def test_dead_links_are_seen(tmp_path):
    links = '<a href="b.html#here"></a><a href="b.html#gone"></a><a href="gone.py"></a><a href="#gone"></a>'
    (tmp_path / "a.html").write_text(links + '<img src="gone.png"><script src="https://cdn.example/x.js"></script>')
    (tmp_path / "b.html").write_text('<p id="here"></p><a href="https://example.org"></a>')
    seen = ["no anchor b.html#gone", "no file gone.py", "no anchor #gone", "no file gone.png", "script from another"]
    for found, expected in zip(dead(tmp_path), seen, strict=True):
        assert found.startswith(f"a.html: {expected}")


def test_every_page_is_in_the_sidebar(site):
    sidebar = soup(site / "index.html").select(".sidebar-tree a")
    linked = {urlsplit(a["href"]).path for a in sidebar}
    expected = {page_of(site, source).relative_to(site).as_posix() for source in SOURCES}
    assert expected - linked == {"README.html"}
    course = [a.get_text()[:2] for a in sidebar if "/guide/" not in a["href"] and "notebooks/" in a["href"]]
    assert course == [path.name[:2] for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:2])
def test_a_notebook_page_has_every_cell_with_checks_and_answers_folded(site, path):
    cells = nbformat.read(path, as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    answers = [source for source in sources if "### BEGIN SOLUTION" in source]
    html = soup(page_of(site, path))
    pictures = [out for cell in cells for out in cell.get("outputs", []) if "image/png" in out.get("data", {})]
    drawn = html.select(".cell_output img[src*=_images]")
    assert [img["alt"] for img in drawn] == [out.metadata.get("image/png", {}).get("alt", "") for out in pictures]

    (download,) = (a for a in html.select("a.download") if a.get_text() == "download this notebook")
    assert (page_of(site, path).parent / download["href"]).read_bytes() == path.read_bytes()

    folded = html.select("details.hide")
    titles = [block.summary.p.get_text() for block in folded]
    assert titles.count("Answer") == len(answers)
    code = "\n".join(block.get_text() for block in html.select(".cell_input"))
    for source in sources:
        shown = re.sub(r"^ *### (BEGIN|END) SOLUTION\n?", "", source, flags=re.M).rstrip()
        assert shown in code
    visible = "\n".join(block.get_text() for block in html.select(".cell_input") if not block.find_parent("details"))
    assert not re.search(r"^course\.(exercises\.)?check\(", visible, flags=re.M)
    assert visible.count("raise NotImplementedError()") >= len(answers)
    assert "### BEGIN SOLUTION" not in code
    working = len(html.select("div.sliders"))
    assert working == (path == NOTEBOOKS[1])
    assert len(html.find_all("em", string=re.compile("sliders"))) == sum(map(has_widget, cells)) - working


def test_editions_can_be_downloaded(site):
    for page in ("index.html", "docs/teaching.html"):
        linked = [
            a["href"].rpartition("/")[2] for a in soup(site / page).find_all("a", href=re.compile(r"(^|/)downloads/"))
        ]
        assert linked == ["student.zip", "teacher.zip"]
    with zipfile.ZipFile(site / "downloads/student.zip") as student:
        names = [name for name in student.namelist() if not name.endswith("/")]
        assert sorted(names) == [f"student/{path.name}" for path in NOTEBOOKS]
        assert not any(b"BEGIN SOLUTION" in student.read(name) for name in names)
    with zipfile.ZipFile(site / "downloads/teacher.zip") as teacher:
        guide = sorted(name for name in teacher.namelist() if not name.endswith("/"))
    assert guide == [*(f"teacher/{path.name[:2]}.md" for path in NOTEBOOKS), "teacher/notation.md"]


# --- in a browser -------------------------------------------------------------------------------------------------


def equations(source: Path) -> int:
    """Number of equations in a page's source, displayed and inline."""
    if source.suffix == ".ipynb":
        cells = nbformat.read(source, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = source.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.S | re.M)
    return len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, flags=re.S))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def chromium():
    with lab.browser(lab.chromium()) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(site):
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def new_page(chromium):
    """An empty page as wide as a phone; `complaints` are the errors of its console."""
    page = chromium.new_page(viewport={"width": WIDTH, "height": 800})
    page.set_default_timeout(1000 * lab.PATIENCE)
    page.complaints = []
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    page.close()


@pytest.fixture
def screen(chromium):
    with new_page(chromium) as page:
        yield page


def look(chromium, url: str, host: str) -> dict:
    """What LOOK finds on a page, and `complaints`: errors of the console, requests to other hosts.

    In a page of its own, as the errors of an earlier one may come late.
    """
    with new_page(chromium) as page:

        def elsewhere(request):
            if not request.url.startswith((host, "data:", "blob:")):
                page.complaints.append(f"another host: {request.url}")

        page.on("request", elsewhere)
        page.goto(url)
        return page.evaluate(LOOK) | {"complaints": page.complaints}


def clean(number: int) -> dict:
    return {"typeset": number, "errors": [], "raw": [], "broken": [], "wide": [], "overflow": 0, "complaints": []}


def test_every_page_reads_on_a_phone(site, address, chromium):
    counts = {page_of(site, source): equations(source) for source in SOURCES}
    assert sum(counts.values()) > 1000
    counts[site / "index.html"] = counts[site / "README.html"]
    wrong = {}
    for page in pages(site):
        name = page.relative_to(site).as_posix()
        expected = clean(counts.get(page, 0))
        seen = look(chromium, f"{address}/{name}", address)
        wrong |= {name: {key: seen[key] for key in seen if seen[key] != expected[key]}} if seen != expected else {}
    assert wrong == {}


def test_what_is_wrong_with_a_page_is_seen(site, address, chromium):
    page = site / "wrong.html"
    body = r"""<article>\(\frac{1\) \(\unheardof\) and $$x$$ \frac <img src="gone.png">
        <p style="width: 600px">wide</p> <script src="http://elsewhere.invalid/x.js"></script></article>"""
    page.write_text(f'<html><body>{body}<script src="_static/mathjax/tex-chtml.js"></script></body></html>')
    try:
        seen = look(chromium, f"{address}/wrong.html", address)
    finally:
        page.unlink()
    assert all(seen[key] for key in clean(0)), seen
    assert any("another host" in text for text in seen["complaints"])


@pytest.mark.parametrize("served", [True, False], ids=["served", "from a folder"])
def test_search_finds_and_the_page_found_opens(site, address, chromium, screen, served):
    root = address if served else site.as_uri()
    screen.goto(f"{root}/search.html?q=cubic+schedule")
    found = screen.locator("#search-results li a")
    found.first.wait_for()
    titles = found.all_inner_texts()
    assert any(title.startswith("04 ") for title in titles), titles
    if served:  # Chromium lets no page read another one from a folder: there the results have no excerpts
        screen.locator("#search-results .context").first.wait_for()
        assert screen.complaints == []
    name = "notebooks/04_movement_during_training"
    assert look(chromium, f"{root}/{name}.html", root) == clean(equations(ROOT / f"{name}.ipynb"))


def test_dark_mode_keeps_figures_on_white(address, screen):
    color = "query => getComputedStyle(document.querySelector(query)).{}.match(/[\\d.]+/g).map(Number)"
    screen.emulate_media(color_scheme="dark")
    screen.goto(f"{address}/notebooks/03_gradient_of_movement_scores.html")
    assert max(screen.evaluate(color.format("backgroundColor"), "body")[:3]) < 60
    assert min(screen.evaluate(color.format("color"), "article p")[:3]) > 180
    assert screen.evaluate(color.format("backgroundColor"), "article img") == [255, 255, 255]
    screen.emulate_media(color_scheme="light")
    assert min(screen.evaluate(color.format("backgroundColor"), "body")[:3]) > 240
