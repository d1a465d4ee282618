"""`python -m mvp_lite …`: run grids of experiments, build and measure the toy, make editions of the notebooks."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mvp_lite", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="fine-prune a model on a task: methods x densities x seeds, into a CSV")
    run.add_argument("--model", required=True, help='"toy", a local folder or a hub name')
    run.add_argument("--model-name", help="name to record in the CSV (default: --model, of a folder its last part)")
    run.add_argument("--task", required=True, help="toy/…, or sst2, mnli, qqp, mrpc, qnli, stsb, squad, squad_v2")
    run.add_argument("--data-dir", help="folder of JSON lines; without it the hub's data set is read")
    run.add_argument("--max-length", type=int, help="tokens per row (default: the task's)")
    run.add_argument("--doc-stride", type=int, help="context tokens that neighbouring windows share (SQuAD: 128)")
    run.add_argument("--score-rows", type=int, help="score so many rows of validation, drawn once (default: all)")
    run.add_argument("--methods", type=_words, default=_words("dense,magnitude,movement,soft_movement,l0"))
    run.add_argument("--out", type=Path, help="results file (default: data/results/small_TASK.csv)")
    _grid_options(run, densities="0.1,0.03", seeds="0", steps=1500, lrs="3e-5,1e-4,3e-4", tune_steps=500)

    toy = commands.add_parser("toy", help="the toy language").add_subparsers(dest="action", required=True)
    build = toy.add_parser("build", help="remake the toy's rows and its pretrained encoder (resumable)")
    build.add_argument("--out", type=Path, help="folder (default: the toy's own in data/)")
    build.add_argument("--seed", type=int, default=0)
    measure = toy.add_parser("measure", help="the toy's grid: tasks x methods x densities x seeds (resumable)")
    measure.add_argument("--tasks", type=_words, default=_words("sentiment,inference,paraphrase,qa"))
    measure.add_argument("--methods", type=_words, default=_words("dense,scratch,magnitude,movement"))
    measure.add_argument("--out", type=Path, help="results file (default: data/results/toy.csv)")
    _grid_options(measure, densities="0.7,0.1,0.03", seeds="0,1,2,3,4", steps=None, lrs=None, tune_steps=None)

    sweep = toy.add_parser("lambda", help="density as an outcome: soft movement at fixed lambdas (resumable)")
    sweep.add_argument("--task", default="inference", help="sentiment, inference, paraphrase or qa")
    sweep.add_argument("--lams", type=_words, default=_words("1,10,30,100,300,1000"))
    sweep.add_argument("--lr", type=float, default=1e-4, help="rate of the weights")
    sweep.add_argument("--score-lr", type=float, default=0.1, help="rate of the scores; 1e-2 is too slow for 300 steps")
    sweep.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--out", type=Path, help="results file (default: data/results/toy_lambda.csv)")

    sizes = toy.add_parser("sizes", help="small dense encoders: pretrain each, fine-tune it on all tasks (resumable)")
    sizes.add_argument("--tasks", type=_words, default=_words("sentiment,inference,paraphrase,qa"))
    sizes.add_argument("--only", type=_words, help="of the sizes 2x32,3x48,4x72 (layers x width) only these")
    sizes.add_argument("--folder", type=Path, default=Path("build/toy_sizes"), help="where the encoders are put")
    sizes.add_argument("--out", type=Path, help="results file (default: data/results/toy_sizes.csv)")
    _grid_options(sizes, densities="1.0", seeds="0,1,2,3,4", steps=None, lrs=None, tune_steps=None)
    sizes.set_defaults(methods=["dense"])

    structured = toy.add_parser("structured", help="groups of weights at equal numbers of weights (resumable)")
    structured.add_argument("--tasks", type=_words, default=_words("inference,paraphrase"))
    structured.add_argument("--methods", type=_words, default=_words("movement,magnitude"))
    structured.add_argument("--groups", type=_words, default=_words("weights,heads+neurons,blocks"))
    structured.add_argument("--out", type=Path, help="results file (default: data/results/toy_structured.csv)")
    _grid_options(structured, densities="0.3,0.1", seeds="0,1,2", steps=None, lrs=None, tune_steps=None)

    unlabeled = commands.add_parser(
        "unlabeled", help="prune a dense model without labels: methods x budgets x samples of text (resumable)"
    )
    unlabeled.add_argument("--model", default="toy", help='"toy", a local folder or a hub name')
    unlabeled.add_argument(
        "--model-name", help="name to record in the CSV (default: --model, of a folder its last part)"
    )
    unlabeled.add_argument("--task", required=True, help="toy/…, sst2, mnli, squad, …")
    unlabeled.add_argument("--data-dir", help="folder of JSON lines; without it the hub's data set is read")
    unlabeled.add_argument("--max-length", type=int, help="tokens per row (default: the task's)")
    unlabeled.add_argument("--doc-stride", type=int, help="context tokens that neighbouring windows share")
    unlabeled.add_argument("--score-rows", type=int, help="score so many rows of validation, drawn once (default: all)")
    unlabeled.add_argument("--methods", type=_words, help="each perhaps with +scale, +labels, +heads (default: all)")
    unlabeled.add_argument("--flops", type=_numbers(float), default=[0.6, 0.7, 0.8], help="operations that stay")
    unlabeled.add_argument("--seeds", type=_numbers(int), default=list(range(10)), help="samples of the text")
    unlabeled.add_argument("--sequences", type=int, default=2000, help="rows of train in a sample")
    unlabeled.add_argument(
        "--labels", type=int, default=512, help="rows that keep their labels for methods with labels"
    )
    unlabeled.add_argument("--options", default="", help='of prune_neurons, for instance "sigma=0.5 stop=entrywise"')
    unlabeled.add_argument("--source", help="take the text from this task's train rows instead")
    unlabeled.add_argument("--source-dir", help="folder of the source's JSON lines")
    unlabeled.add_argument("--steps", type=int, help="of the dense fine-tuning (default: the task's)")
    unlabeled.add_argument("--lr", type=float, help="of the dense fine-tuning (default: the task's)")
    unlabeled.add_argument("--batch-size", type=int, default=32)
    unlabeled.add_argument("--bf16", action="store_true", help="fine-tune under bfloat16 autocast; all else is float32")
    unlabeled.add_argument("--folder", type=Path, default=Path("build/unlabeled"), help="where the dense model is kept")
    unlabeled.add_argument("--out", type=Path, help="results file (default: data/results/unlabeled_TASK.csv)")

    figure = commands.add_parser("figure", help="draw score against density from a results file")
    figure.add_argument("--results", type=Path, help="results file (default: data/results/toy.csv)")
    figure.add_argument("--out", type=Path, help="PNG file (default: data/results/score_against_density.png)")

    table = commands.add_parser("table", help="print the front page's table: MiniLM's runs beside the paper's numbers")
    table.add_argument("--distil", action="store_true", help="the one of the runs with a teacher")

    for name, what in (("student", "write the notebooks without answers"), ("teacher", "write the teacher's guide")):
        edition = commands.add_parser(name, help=what)
        edition.add_argument("--notebooks", type=Path, default=Path("notebooks"))
        edition.add_argument("--out", type=Path, default=Path("build") / name)
    execute = commands.add_parser("execute", help="run notebooks in place, as they are committed")
    execute.add_argument("notebook", type=Path, nargs="+")

    args = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    try:
        if args.command == "run":
            _run(args, words)
        elif args.command == "unlabeled":
            _unlabeled(args, words)
        elif args.command == "figure":
            _figure(args)
        elif args.command == "table":
            _table(args)
        elif args.command in ("student", "teacher"):
            _edition(args)
        elif args.command == "execute":
            _execute(args)
        elif args.action == "build":
            _build(args)
        elif args.action == "lambda":
            _lambda(args, words)
        elif args.action == "sizes":
            _sizes(args, words)
        elif args.action == "structured":
            _structured(args, words)
        else:
            _measure(args, words)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(kind: type) -> Any:
    return lambda text: [kind(word) for word in _words(text)]


def _grid_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    parser.add_argument("--densities", type=_numbers(float), default=_numbers(float)(defaults["densities"]))
    parser.add_argument("--seeds", type=_numbers(int), default=_numbers(int)(defaults["seeds"]), help="reported seeds")
    parser.add_argument("--steps", type=int, default=defaults["steps"], help="optimizer steps of every run")
    lrs = defaults["lrs"]
    parser.add_argument(
        "--lrs", type=_numbers(float), default=lrs and _numbers(float)(lrs), help="rates to choose from"
    )
    parser.add_argument("--tune-steps", type=int, default=defaults["tune_steps"], help="steps of a tuning run")
    parser.add_argument("--tune-seeds", type=_numbers(int), default=[100], help="seeds of the tuning runs")
    parser.add_argument("--holdout", type=int, default=1000, help="rows taken out of train for tuning")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--scope", choices=("local", "global"), default="local")
    parser.add_argument("--distil", action="store_true", help="with a teacher: the dense model, fine-tuned alike")
    parser.add_argument("--plain-rates", action="store_true", help="with --distil: the rates chosen without a teacher")
    parser.add_argument("--layers", type=Path, help="file for the entries kept in each matrix")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")


def _grid(args: argparse.Namespace, words: list[str], **fixed: Any) -> Any:
    from mvp_lite.experiments.grid import Grid

    names = "methods densities seeds steps lrs tune_steps tune_seeds holdout batch_size scope distil bf16".split()
    names.append("plain_rates")
    return Grid(**{name: getattr(args, name) for name in names}, command=_recorded(words), **fixed)


def _recorded(words: list[str]) -> str:
    """The command with public names: paths are of no use to others."""
    words = list(words)
    if "--folder" in words:
        at = words.index("--folder")
        del words[at : at + 2]
    given = {
        option: words.index(option) + 1
        for option in ("--data-dir", "--source-dir", "--out", "--layers", "--model")
        if option in words
    }
    for option, name in {"--data-dir": "DATA_DIR", "--source-dir": "SOURCE_DIR"}.items():
        if option in given:
            words[given[option]] = name
    for option in given.keys() & {"--out", "--layers"}:
        words[given[option]] = Path(words[given[option]]).name
    if "--model" in given and Path(words[given["--model"]]).is_dir():
        words[given["--model"]] = Path(words[given["--model"]]).name
    if "--model-name" in words:
        at = words.index("--model-name")
        words[given["--model"]] = words[at + 1]
        del words[at : at + 2]
    return shlex.join(["python", "-m", "mvp_lite", *words])


def _results(name: str) -> Path:
    from mvp_lite.paths import data_path

    return data_path("results", name)


def _run(args: argparse.Namespace, words: list[str]) -> None:
    from mvp_lite.experiments.grid import run_grid

    fixed = {"model": args.model, "model_name": args.model_name, "task": args.task, "data_dir": args.data_dir}
    fixed |= {name: getattr(args, name) for name in ("max_length", "doc_stride", "score_rows")}
    out = args.out or _results(f"small_{args.task.replace('/', '_')}.csv")
    run_grid(_grid(args, words, **fixed), out, _log, args.layers)


def _build(args: argparse.Namespace) -> None:
    from dataclasses import replace

    from mvp_lite.paths import data_path
    from mvp_lite.tasks import toy

    toy.build(args.out or data_path("toy"), replace(toy.Recipe(), seed=args.seed))


def _toy_grid(args: argparse.Namespace, words: list[str]) -> Any:
    """With the toy's own steps and rates where none are given; the task is still to be set."""
    from mvp_lite.tasks import toy

    args.steps = args.steps or toy.STEPS
    args.lrs = args.lrs or list(toy.LRS)
    args.tune_steps = args.tune_steps or args.steps
    return _grid(args, words, model="toy", task="")


def _measure(args: argparse.Namespace, words: list[str]) -> None:
    from mvp_lite.experiments.grid import run_grid, task_grids

    grid = _toy_grid(args, words)
    for part in task_grids(grid, [f"toy/{name}" for name in args.tasks]):
        run_grid(part, args.out or _results("toy.csv"), _log, args.layers)


def _lambda(args: argparse.Namespace, words: list[str]) -> None:
    from mvp_lite.experiments.grid import run_lambdas
    from mvp_lite.tasks import toy

    out = args.out or _results("toy_lambda.csv")
    run_lambdas(
        f"toy/{args.task}", [float(lam) for lam in args.lams], out, steps=toy.STEPS, lr=args.lr,
        score_lr=args.score_lr, seed=args.seed, command=_recorded(words), log=_log,
    )  # fmt: skip


def _sizes(args: argparse.Namespace, words: list[str]) -> None:
    from mvp_lite.experiments.sizes import SIZES, run_sizes

    if unknown := sorted(set(args.only or ()) - set(SIZES)):
        raise ValueError(f"--only {unknown[0]}: one of {', '.join(SIZES)}")
    sizes = {name: shape for name, shape in SIZES.items() if not args.only or name in args.only}
    tasks = [f"toy/{name}" for name in args.tasks]
    grid = _toy_grid(args, words)
    run_sizes(grid, tasks, args.folder, args.out or _results("toy_sizes.csv"), sizes=sizes, log=_log)


def _structured(args: argparse.Namespace, words: list[str]) -> None:
    from mvp_lite.experiments.grid import task_grids
    from mvp_lite.experiments.structured import run_structured

    grid = _toy_grid(args, words)
    for part in task_grids(grid, [f"toy/{name}" for name in args.tasks]):
        run_structured(part, args.groups, args.out or _results("toy_structured.csv"), _log)


def _unlabeled(args: argparse.Namespace, words: list[str]) -> None:
    from mvp_lite.experiments.unlabeled import ALL_METHODS, Study, run_study

    given = {name: value for name, value in vars(args).items() if name not in ("command", "out", "methods")}
    study = Study(**given, methods=args.methods or ALL_METHODS, command=_recorded(words))
    kind = "toy" if args.task.startswith("toy/") else args.task
    run_study(study, args.out or _results(f"unlabeled_{kind}.csv"), _log)


def _figure(args: argparse.Namespace) -> None:
    import matplotlib
    import pandas as pd

    matplotlib.use("agg")
    from mvp_lite.course import analysis, figures
    from mvp_lite.course.notebook import setup

    setup()
    axes = figures.score_by_task(analysis.comparable(pd.read_csv(args.results or _results("toy.csv"))))
    figures.save(axes, args.out or _results("score_against_density.png"))


def _table(args: argparse.Namespace) -> None:
    from mvp_lite.course import tables
    from mvp_lite.paths import data_path

    ours = sorted(data_path("results").glob("small_*.csv"))
    paper = data_path("paper", "movement_tables.csv")
    _log(tables.markdown(tables.beside_the_paper(ours, paper, distil=args.distil)))


def _edition(args: argparse.Namespace) -> None:
    from mvp_lite.course import editions

    make = editions.student if args.command == "student" else editions.teacher
    made = make(args.notebooks, args.out)
    _log(f"{len(made)} files in {args.out}")


def _execute(args: argparse.Namespace) -> None:
    from mvp_lite.course import editions

    for path in args.notebook:
        _log(f"{path.name}: {editions.execute(path):.0f} s")


def _log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    raise SystemExit(main())
