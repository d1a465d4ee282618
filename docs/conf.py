"""The website (`make site`), made from the committed notebooks and pages: nothing is run, nothing is fetched.

The sources stay where they are: the site has the folders of the repository, and links between files hold in both. What
a page on the screen needs and a notebook does not is added here while it is read.
"""

import os
import re
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
from docutils import nodes
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mvp_lite.course import address, editions  # noqa: E402

project = "mvp_lite"
html_title = project
copyright = "the mvp_lite authors; code: Apache-2.0, text and figures: CC BY 4.0"

extensions = ["myst_nb", "sphinx.ext.mathjax"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "data/**README.md",
    "docs/*.md",
    "notebooks/*.ipynb",
    "notebooks/guide/notation.md",
]
exclude_patterns = [".*", "build", "mvp_lite", "tests"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_output_stderr = "remove"

html_theme = "furo"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"  # without one, browsers ask for a file that is not there
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_theme_options = {"navigation_with_keys": False, "top_of_page_buttons": []}
# MathJax typesets the notebooks in JupyterLab too. This package has its files, so nothing comes from another host.
mathjax_path = "mathjax/tex-chtml.js"
MATHJAX = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0]) / "static" / "mathjax"

EDITIONS = {"student": "student edition", "teacher": "teacher's guide"}
#: made by `make site` before it reads the notebooks
SLIDER_PAGES = Path(os.environ.get("MVP_LITE_SLIDERS", ROOT / "build" / "sliders"))
SLIDERS = "*The sliders of this cell work in JupyterLab, in the notebook that you can download above.*"
CHECKED = re.compile(r'^course\.(exercises\.)?check\("(\d+\.\d+)"', flags=re.M)


def setup(app):
    app.connect("source-read", read)
    app.connect("doctree-read", display)
    app.connect("doctree-read", describe)
    app.connect("build-finished", finish)


def read(app, name, source):
    if app.env.doc2path(name).suffix == ".ipynb":
        notebook = nbformat.reads(source[0], as_version=4)
        notebook.cells = [shown for cell in notebook.cells for shown in on_screen(cell)]
        head, file = notebook.cells[0], f"{Path(name).name}.ipynb"
        colab = re.search(r"\[!\[Open in Colab\]\(.+?\)\]\((.+?)\)", head.source)
        ways = f"{{download}}`download this notebook <{file}>`"
        if colab:
            ways += f", or [open it in Colab]({colab[1]})"
        head.source = f"{address.without_badge(head.source).rstrip()}\n* **To run it**: {ways}"
        source[0] = nbformat.writes(notebook)
    elif name == "README":
        source[0] += "\n\n" + contents(source[0])
    downloads = " and ".join(f'<a href="{{0}}downloads/{name}.zip">{title}</a>' for name, title in EDITIONS.items())
    if name == "README":
        links = f"**[Start the course](notebooks/00_start_here.ipynb)**, or download it: {downloads.format('')}."
        source[0] = source[0].replace("\n## Install\n", f"\n{links}\n\n## Install\n", 1)
    if name == "docs/teaching":
        source[0] = source[0].replace("\n## Editions\n", f"\n## Editions\n\nDownload: {downloads.format('../')}.\n", 1)


def contents(readme):
    """The sidebar: notebooks as the README lists them, pages as docs/README.md lists them."""
    notebooks = re.findall(r"^\| (\d\d) \| \[(.+?)\]\((.+?)\.ipynb\)", readme, flags=re.M)
    pages = re.findall(r"^\| \[(.+?)\]\((.+?)\.md\)", (ROOT / "docs/README.md").read_text("utf-8"), flags=re.M)
    parts = {
        "Course": [f"{number} · {title} <{path}>" for number, title, path in notebooks]
        + ["Notation <notebooks/guide/notation>"],
        "Documentation": [
            "All pages <docs/README>",
            *(f"{title} <docs/{path}>" for title, path in pages),
            "Contributing <CONTRIBUTING>",
        ],
        "Data": ["data/README", "data/results/README", "data/paper/README"],
    }
    return "\n\n".join(
        "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```"])
        for caption, lines in parts.items()
    )


def on_screen(cell):
    """The cells that the site shows for one of a notebook: checks and answers are folded up, sliders are explained."""
    if cell.cell_type == "code" and editions.blank(cell.source) != cell.source:
        answer = new_code_cell(editions.filled(cell.source), outputs=cell.outputs)
        fold(answer, "hide-input", "Answer")
        return [new_code_cell(editions.blank(cell.source)), answer]
    if cell.source == address.published(ROOT).install_cell:
        fold(cell, "hide-input", "Installation")
    if cell.cell_type == "code" and (checks := CHECKED.findall(cell.source)):
        texts = "".join(out.get("text", "") for out in cell.outputs)
        numbers = ", ".join(number if exercise else f"({number})" for exercise, number in checks)
        short = all("text" in out for out in cell.outputs) and re.fullmatch(r"(\(\d+\.\d+\) holds\n)+", texts)
        if short:
            fold(cell, "hide-cell", f"Check: {' and '.join(texts.splitlines())}")
        else:
            fold(cell, "hide-input", f"Check of {'exercise ' if checks[0][0] else ''}{numbers}")
    if cell.cell_type == "code" and "course.widgets." in cell.source:
        for page in SLIDER_PAGES.glob(f"*-{cell.id}.html"):
            cell.outputs = [new_output("display_data", {"text/html": page.read_text("ascii")})]
            return [cell]
        return [cell, new_markdown_cell(SLIDERS)]
    return [cell]


def fold(cell, tag, title):
    cell.metadata.tags = [*cell.metadata.get("tags", []), tag]
    cell.metadata.mystnb = {"code_prompt_show": title, "code_prompt_hide": title}


def display(app, doctree):
    """Displayed equations go to MathJax as they are; Sphinx would wrap some in `split`, which forbids `\\tag`."""
    for block in doctree.findall(nodes.math_block):
        block["no-wrap"] = True
        block.children = [nodes.Text(rf"\[{block.astext()}\]")]


def describe(app, doctree):
    """Pictures that cells draw get their alt texts, which myst-nb does not read from the outputs."""
    path = app.env.doc2path(app.env.docname)
    if path.suffix != ".ipynb":
        return
    outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    drawn = [image for image in doctree.findall(nodes.image) if "jupyter_execute" in image["uri"]]
    for image, out in zip(drawn, pictures, strict=True):
        image["alt"] = out.metadata.get("image/png", {}).get("alt", "")


def finish(app, error):
    if error:
        return
    site = Path(app.outdir)
    # The root page of Sphinx has the name of its source; a web server looks for this one.
    shutil.copyfile(site / "README.html", site / "index.html")
    mathjax = site / "_static" / "mathjax"
    fonts = Path("output/chtml/fonts/woff-v2")
    shutil.copytree(MATHJAX / fonts, mathjax / fonts, dirs_exist_ok=True)
    shutil.copyfile(MATHJAX / "tex-chtml.js", mathjax / "tex-chtml.js")
    (site / "downloads").mkdir(exist_ok=True)
    for name in EDITIONS:
        with tempfile.TemporaryDirectory() as folder:
            getattr(editions, name)(ROOT / "notebooks", Path(folder) / name)
            shutil.make_archive(str(site / "downloads" / name), "zip", folder)
