"""Plain English: words that a reader of the field would stumble over stand in no notebook, code or page."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: pattern -> what to write instead
INSTEAD = {
    r"\bguess(es|ed|ing)?\b": "at chance level, chance; predict",
    r"(?<!learning )\brates? of the (weights|scores)\b|\bweight rates?\b": "learning rate",
    r"\bcut(s|ting)?\b": "selection, threshold, to prune, to remove",
    r"\bsizes? of (a|the) weights?\b|\bsize of weights\b": "magnitude, absolute value",
    r"(?<!residual )\bstreams?\b": "hidden states, the residual stream",
    r"\b(train|training|validation|text|data set|labell?ed|unlabell?ed|sampled) rows\b|"
    r"\brows of (train|validation|text|the task|a task|a data set|the data|data)\b": "examples",
    r"\bslips?\b|\bfound out\b": "planted error, caught",
    r"\bwanted\b": "expected",
    r"\bwhole numbers?\b": "integer",
    r"\btold (by|apart by)\b": "identified by",
    r"\blearnt\b|\bby heart\b|\bmended\b|\bjoints\b": "learned, memorized, fixed, hooks",
    r"\bas good as\b|\bis worth\b|\bcomes to\b|\blies at\b|\bturns? round\b": "almost, gains, is, reverses",
    r"\bdear\b|\bshall\b|\ba draw\b|\b(they|two|both|runs|curves|methods) part\b": "expensive, want to, arbitrary, "
    "differ",
    r"\bfirst by far\b": "clearly the best",
    r"\bthe index's\b|\bten lines\b|\bbeside the paper\b|\bwhat lies where\b": "the default PyPI wheel, quick start, "
    "comparison with the paper, repository layout",
    r"\b\w*(colour|behaviour|neighbour|favour|honour)\w*\b|\bcentred?\b|\bgrey\b|\bcatalogue\b|"
    r"\bartefacts?\b": "color, behavior, neighbor, center, gray, catalog, artifact",
    r"\b\w*(normalis|summaris|tokenis|initialis|memoris|generalis|regularis|minimis|maximis|recognis|organis|realis|"
    r"serialis|penalis|standardis|vectoris|visualis|optimis(e|ation)|customis|emphasis(e|ing))\w*\b": "-ize",
    r"\blabelled\b|\bunlabelled\b|\bmodelling\b|\bcancelled\b|\banalys(e|ed|ing)\b|\blicence\b": "labeled, modeling, "
    "analyze, license",
}
#: columns of committed results, an option of recorded commands, an output of a notebook as nbformat calls it
ALLOWED = re.compile(
    r"[\"'`]labelled[\"'`]|\bscale,? labelled\b|[\"'`]normalisation[\"'`]|normalisation=|\"stream\"|`slip`"
)
#: names that do not say what happens
VAGUE = set("kind kinds follow adopt recover catch_up fresh spread land prepare cut cuts wanted slip slips".split())


def texts() -> list[Path]:
    folders = [("mvp_lite", "*.py"), ("tests", "*.py"), ("benchmarks", "*.py"), ("docs", "*.md"), ("data", "*.md"),
               ("notebooks", "*.md"), ("notebooks", "*.ipynb"), ("docs", "*.svg"), ("docs", "*.py"),
               (".github", "*.*")]  # fmt: skip
    found = [path for folder, pattern in folders for path in sorted((ROOT / folder).rglob(pattern))]
    others = "README.md CONTRIBUTING.md CITATION.cff Makefile conftest.py .ci/run .ci/turn pyproject.toml"
    # A source archive has no .ci.
    found += [path for name in others.split() if (path := ROOT / name).is_file() or not name.startswith(".")]
    return [path for path in found if path != Path(__file__).resolve() and "answers" not in path.parts]


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plain_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":  # what its authors wrote, not what it printed
        cells = json.loads(text)["cells"]
        text = "\n\n".join(f"{''.join(cell['source'])}\n{cell['metadata'].get('alt', '')}" for cell in cells)
    found = []
    for pattern, instead in INSTEAD.items():
        for match in re.finditer(pattern, text, flags=re.IGNORECASE):
            line = text[text.rfind("\n", 0, match.start()) + 1 : (text + "\n").find("\n", match.end())]
            if match.group() not in ALLOWED.sub("", line):
                continue
            found.append(f"{text.count(chr(10), 0, match.start()) + 1}: {match.group()!r} ({instead}): {line.strip()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "mvp_lite").rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_names_say_what_happens(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    assert not {name for name in found if name.strip("_") in VAGUE}


@pytest.mark.parametrize(
    "sentence",
    [
        "whose accuracy is a guess",
        "the rate of the scores",
        "where the cut lies",
        "a whole number is wanted",
        "three slips found out",
        "train rows",
        "what the stream holds",
        "the weights' colour",
        "normalised by",
    ],
)
def test_a_stumbling_block_is_noticed(sentence: str) -> None:
    assert any(re.search(pattern, sentence, flags=re.IGNORECASE) for pattern in INSTEAD)
    assert not any(re.search(p, "the learning rate of the scores, in the residual stream", flags=re.I) for p in INSTEAD)
