"""Run experiments, show their results, build the toy, make editions of the notebooks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvp_lite import __version__
from mvp_lite.experiments.grid import Grid, ToyGrid, run_grid
from mvp_lite.experiments.lambdas import LambdaSweep, run_lambdas
from mvp_lite.experiments.mechanism import Mechanism, run_mechanism
from mvp_lite.experiments.settings import Settings
from mvp_lite.experiments.sizes import SizesGrid, run_sizes
from mvp_lite.experiments.structured import StructuredGrid, run_structured
from mvp_lite.experiments.unlabeled import Study, run_study
from mvp_lite.paths import data_path
from mvp_lite.tasks import toy


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.func(arguments) or 0)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line. Each command sets `func`, and one that runs experiments also `settings`, its class of them."""
    parser = argparse.ArgumentParser(prog="python -m mvp_lite", description=__doc__)
    parser.add_argument("--version", action="version", version=f"mvp_lite {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    _experiment(commands, Grid, run_grid, "fine-prune a model on a task: methods x densities x seeds")
    toys = commands.add_parser("toy", help="the toy language").add_subparsers(metavar="COMMAND", required=True)
    build = toys.add_parser("build", help="remake the toy's examples and its pretrained encoder (resumable)")
    build.add_argument("--out", type=Path, help="folder (default: the toy's own in data/)")
    build.add_argument("--seed", type=int, default=0, help="seed of everything in it")
    build.set_defaults(func=_build)
    _experiment(toys, ToyGrid, run_grid, "the toy's grid: tasks x methods x densities x seeds")
    _experiment(toys, LambdaSweep, run_lambdas, "density as an outcome: soft movement at fixed lambdas")
    _experiment(toys, SizesGrid, run_sizes, "small dense encoders: pretrain each, fine-tune it on all tasks")
    _experiment(toys, StructuredGrid, run_structured, "groups of weights at equal numbers of weights")
    _experiment(commands, Study, run_study, "prune a dense model without labels: methods x budgets x samples of text")
    _experiment(commands, Mechanism, run_mechanism, "look inside fine-pruning runs, to see why they fail or succeed")

    speed = commands.add_parser(
        "speed", help="measure a saved model on this machine: dense, sparse, shrunk, in 8 bits …"
    )
    speed.add_argument("folder", type=Path, help="what save_pretrained wrote")
    speed.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="numbers of examples (default: 1 8)")
    speed.add_argument("--length", type=int, nargs="+", default=[32, 128], help="numbers of tokens (default: 32 128)")
    speed.add_argument("--threads", type=int, default=1)
    speed.add_argument("--rounds", type=int, default=20, help="runs of each variant, at most (default: 20)")
    speed.add_argument("--out", type=Path, help="JSON file; a picture (PNG) is written beside it")
    speed.set_defaults(func=_speed)
    figure = commands.add_parser("figure", help="draw score against density from a results file")
    figure.add_argument("--results", type=Path, help="results file (default: data/results/toy.csv)")
    figure.add_argument("--out", type=Path, help="PNG file (default: data/results/score_against_density.png)")
    figure.set_defaults(func=_figure)
    table = commands.add_parser(
        "table", help="print the table of docs/results.md that compares MiniLM's runs with the paper's"
    )
    table.add_argument(
        "--distill", "--distil", action="store_true", help="print the table of the runs with a teacher instead"
    )
    table.set_defaults(func=_table)

    again = commands.add_parser(
        "replay", help="repeat the run of a saved model and compare (exit code 1: it differs, 2: it cannot be repeated)"
    )
    again.add_argument("card", type=Path, help="card.json, or the folder of the saved model")
    again.add_argument("--model", metavar="NAME_OR_FOLDER", help="model to start from (default: the card's)")
    again.add_argument("--data-dir", type=Path, metavar="FOLDER", help="folder of the task's data")
    again.set_defaults(func=_replay)
    api = commands.add_parser("api", help="write the reference of the public names")
    api.add_argument("--out", type=Path, default=Path("docs") / "api.md", help="file (default: docs/api.md)")
    api.set_defaults(func=_api)

    for name, what in (("student", "write the notebooks without answers"), ("teacher", "write the teacher's guide")):
        edition = commands.add_parser(name, help=what)
        edition.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="folder of the notebooks")
        edition.add_argument("--out", type=Path, default=Path("build") / name, help=f"folder (default: build/{name})")
        edition.set_defaults(func=_edition, edition=name)
    address = commands.add_parser(
        "address", help="write the address of the published repository, and the version's tag, everywhere"
    )
    address.add_argument("url", nargs="?", help="https://github.com/OWNER/NAME (default: the one in pyproject.toml)")
    address.set_defaults(func=_address)
    execute = commands.add_parser("execute", help="run notebooks in place, as they are committed")
    execute.add_argument("notebook", type=Path, nargs="+")
    execute.set_defaults(func=_execute)
    sliders = commands.add_parser("sliders", help="write the widgets of notebooks as pages that need no Python")
    sliders.add_argument("notebook", type=Path, nargs="+")
    sliders.add_argument("--out", type=Path, default=Path("build") / "sliders", help="folder (default: build/sliders)")
    sliders.set_defaults(func=_sliders)
    return parser


def _experiment(commands: Any, settings: type[Settings], run: Callable[..., None], help: str) -> None:
    about = f"{help} (resumable)"
    parser = commands.add_parser(settings.command_name.split()[-1], help=about, description=about)
    settings.add_options(parser)
    parser.set_defaults(func=lambda arguments: run(settings.from_arguments(arguments), _log), settings=settings)


def _build(arguments: argparse.Namespace) -> None:
    toy.build(arguments.out or data_path("toy"), replace(toy.Recipe(), seed=arguments.seed))


def _speed(arguments: argparse.Namespace) -> None:
    from mvp_lite.latency import report

    options = (arguments.folder, arguments.batch, arguments.length, arguments.threads, arguments.rounds, arguments.out)
    for line in report.run(*options):
        _log(line)


def _figure(arguments: argparse.Namespace) -> None:
    import matplotlib
    import pandas as pd

    matplotlib.use("agg")
    from mvp_lite.course import analysis, figures
    from mvp_lite.course.notebook import setup

    setup()
    results = pd.read_csv(arguments.results or data_path("results", "toy.csv"))
    axes = figures.score_by_task(analysis.comparable(results))
    figures.save(axes, arguments.out or data_path("results", "score_against_density.png"))


def _table(arguments: argparse.Namespace) -> None:
    from mvp_lite.course import tables

    ours = sorted(data_path("results").glob("small_*.csv"))
    paper = data_path("paper", "movement_tables.csv")
    _log(tables.markdown(tables.compare_with_paper(ours, paper, distill=arguments.distill)))


def _replay(arguments: argparse.Namespace) -> int:
    from mvp_lite.replaying import replay

    outcome = replay(arguments.card, model=arguments.model, data_dir=arguments.data_dir)
    _log(str(outcome))
    return 0 if outcome.agrees else 1


def _api(arguments: argparse.Namespace) -> None:
    from mvp_lite.course.api import reference

    arguments.out.write_text(reference(), encoding="utf-8")


def _edition(arguments: argparse.Namespace) -> None:
    from mvp_lite.course import editions

    make = editions.student if arguments.edition == "student" else editions.teacher
    made = make(arguments.notebooks, arguments.out)
    _log(f"{len(made)} files in {arguments.out}")


def _address(arguments: argparse.Namespace) -> None:
    from mvp_lite.course import address, editions

    root = Path()
    published = address.publish(root, arguments.url or address.published(root).url)
    editions.publish(root / "notebooks", published)
    _log(f"{published.url}, tag v{published.version}")


def _execute(arguments: argparse.Namespace) -> None:
    from mvp_lite.course import editions

    for path in arguments.notebook:
        _log(f"{path.name}: {editions.execute(path):.0f} s")


def _sliders(arguments: argparse.Namespace) -> None:
    from mvp_lite.course import sliders

    for path in arguments.notebook:
        for made in sliders.write(path, arguments.out):
            _log(f"{made} ({made.stat().st_size / 1000:.0f} kB)")


def _log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    raise SystemExit(main())
