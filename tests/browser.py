"""JupyterLab in a real headless Chromium, for test_browser.py: find, start, open a notebook, run it, move sliders."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"]
SETTINGS = {
    # No pop-up over the page; every cell is in the page, on the screen or off it.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
PATIENCE = 300  # seconds; a loaded machine is slow, not wrong
# Only its red color distinguishes a traceback from text on stderr.
ERROR = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']:has(.ansi-red-fg)"
RUN = """error => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.innerText.trim());
    return document.querySelector(error) || (prompts.length && prompts.every(text => /^\\[\\d+\\]:?$/.test(text)));
}"""


def chromium() -> str:
    """Path of a Chromium; without one (or without Playwright) the test is skipped, or fails where it must not be."""
    reason = ""
    try:
        import playwright  # noqa: F401
    except ImportError:
        reason = "Playwright is not installed: pip install playwright (no browser download is needed)"
    named = os.environ.get("MVP_LITE_CHROMIUM", "")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if not found:
        looked = f"MVP_LITE_CHROMIUM={named!r}" if named else f"{', '.join(CHROMIUMS)} on PATH"
        reason = reason or f"no Chromium: looked for {looked}; install one, or name it in MVP_LITE_CHROMIUM"
    if reason and os.environ.get("MVP_LITE_NEEDS_BROWSER") == "1":
        pytest.fail(f"MVP_LITE_NEEDS_BROWSER=1, but {reason}")
    if reason:
        pytest.skip(reason)
    assert found
    return found


def put(notebook: Any, path: Path) -> None:
    """Write a notebook without counts and outputs (stored ones look like a finished run), and with its kernel named."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    # Without a name JupyterLab asks for the kernel.
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait(what: str, ready: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, f"{what} after {PATIENCE} s"
        time.sleep(0.2)


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A JupyterLab on that folder, apart from any settings of the user; gives its address."""
    own = folder / ".jupyter"
    for name, body in SETTINGS.items():
        file = own / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(body))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--LabApp.extension_manager=readonly"]
    with (folder / "lab.log").open("w+") as log:
        lab = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=os.environ | {name: str(own / place) for name, place in places.items()},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        address = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            assert lab.poll() is None, f"JupyterLab ended:\n{(folder / 'lab.log').read_text()[-3000:]}"
            try:
                return bool(ask(f"{address}/api"))
            except OSError:
                return False

        try:
            wait("JupyterLab does not answer", answers)
            yield address
        finally:
            lab.terminate()  # it ends its kernels itself
            try:
                lab.wait(60)
            except subprocess.TimeoutExpired:
                lab.kill()


@contextmanager
def browser(path: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=path, args=FLAGS + ["--no-sandbox"] * root, timeout=1000 * PATIENCE
        )
        yield opened
        opened.close()


def open_notebook(browser: Any, address: str, name: str) -> Any:
    """The page of a notebook alone, its kernel ready."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{address}/doc/tree/{name}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")

    def joined() -> bool:
        kernels = [session["kernel"] for session in ask(f"{address}/api/sessions") if session["path"] == name]
        return bool(kernels) and kernels[0]["execution_state"] == "idle" and bool(kernels[0]["connections"])

    # "Run" before the page has joined its kernel asks which kernel to take.
    wait("the kernel is not idle", joined)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
    return page


def run_all(page: Any) -> None:
    """Run all cells from the menu; one that raises is an AssertionError."""
    page.click("li.lm-MenuBar-item:has-text('Run')")
    page.click(".lm-Menu-item[data-command='runmenu:run-all']")
    page.wait_for_function(RUN, arg=ERROR)
    if page.locator(ERROR).count():
        raise AssertionError(f"a cell raised\n{page.locator(ERROR).first.inner_text()}")


def move_slider(page: Any, cell: Any, place: int = 0, key: str = "ArrowRight") -> tuple[str, str]:
    """Press a key on the cell's slider; its picture before and after (as data addresses). Waits until it changes."""
    picture = cell.locator(".widget-interact .jp-OutputArea img").first
    picture.wait_for()
    before = picture.get_attribute("src")
    handle = cell.locator(".widget-interact .noUi-handle").nth(place)
    handle.scroll_into_view_if_needed()
    handle.focus()
    page.keyboard.press(key)
    end = time.monotonic() + PATIENCE
    while (after := picture.get_attribute("src")) == before:
        assert time.monotonic() < end, f"{key} on the slider changed nothing"
        page.wait_for_timeout(100)
    return before, after


def math_errors(page: Any, notebook: Any) -> list[str]:
    """Waits until MathJax has drawn every displayed equation; what it could not read, and names it does not know."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    displayed = len(re.findall(r"\$\$.+?\$\$", text, flags=re.S))
    assert displayed, "no displayed equation"
    drawn = "count => document.querySelectorAll('mjx-container[display=\"true\"]').length >= count"
    page.wait_for_function(drawn, arg=displayed)
    found = page.locator("mjx-merror, mjx-mtext[style*='color: red']")
    return [found.nth(place).inner_text() for place in range(found.count())]
