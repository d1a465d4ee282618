"""README.md and docs/: the code runs, links lead somewhere, commands exist, and the settings are those of the code."""

import copy
import functools
import inspect
import re
from pathlib import Path

import pytest
import torch
from nets import METHODS
from packaging.version import Version
from pages import CONTRIBUTING, GUIDES, README, ROOT, anchors, python_blocks, rows_of, said, text
from test_project import ORDER, PROJECT, pins
from transformers import PrinterCallback, TrainingArguments
from transformers.utils import logging

import mvp_lite as mvp
from mvp_lite.gradient_free import METHODS as NEURON_METHODS
from mvp_lite.structure.shrinking import sizes
from mvp_lite.structure.units import FAMILIES
from mvp_lite.tasks.task import SPECS

PAGES = [README, CONTRIBUTING, *GUIDES]
DATA = [ROOT / "data" / name / "README.md" for name in ("", "results", "paper")]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_the_readme_is_one_page() -> None:
    assert len(text(README).splitlines()) <= 150


@pytest.mark.parametrize("page", [*PAGES, *DATA], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}: no such heading"


def test_every_page_is_in_the_index() -> None:
    linked = re.findall(r"\]\((\w+\.md)\)", text("README.md"))
    assert sorted(linked) == sorted(page.name for page in GUIDES if page.name != "README.md")


def test_pictures_are_described() -> None:
    for page in PAGES:
        assert all(len(alt) > 20 for alt in re.findall(r"!\[(.*?)\]\(", text(page), flags=re.S))


def test_make_targets_exist() -> None:
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), flags=re.M)
    targets = {target for rule in rules for target in rule.split()}
    named = {page: set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text(page), flags=re.M)) for page in PAGES}
    assert {"lab", "test"} <= named[README] and "test-gpu" in named[ROOT / "docs" / "install.md"]
    assert set().union(*named.values()) <= targets


def test_pins_and_pythons_agree() -> None:
    for page in PAGES:
        for name, version in re.findall(r'"([a-z-]+)==([^"]+)"', text(page)):
            assert Version(version) == pins()[name], f"{page.name} installs {name}=={version}"
    supported = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert all(f"{supported[0]}–{supported[-1]}" in text(page) for page in (README, "install.md"))


def test_jupyterlab_is_rooted_at_the_project() -> None:
    """Else it is rooted at notebooks/, and the notebooks' links to the source lead nowhere."""
    commands = text("install.md") + (ROOT / "Makefile").read_text()
    started = re.findall(r"^.*jupyter ?lab .*notebooks/00_.*$", commands, flags=re.M)
    assert len(started) == 3 and all("--ServerApp.root_dir=. notebooks/" in line for line in started), started


def test_the_layout_names_every_folder() -> None:
    shown = {name for row in rows_of("layout.md", "| folder or file |") for name in re.findall(r"`([\w.]+)/`", row[0])}
    assert shown == {"mvp_lite", "notebooks", "docs", "data", "benchmarks", "tests", ".devcontainer"}
    table = " ".join(" ".join(row) for row in rows_of("layout.md", "| where | content |"))
    packages = {path.parent.name for path in (ROOT / "mvp_lite").glob("*/__init__.py")}
    assert set(re.findall(r"`(\w+)/", table)) == packages
    files = {path.name for path in (ROOT / "mvp_lite").glob("*.py")} - {"__init__.py", "__main__.py"}
    assert files <= set(re.findall(r"`(\w+\.py)`", table))


def test_the_layout_is_in_the_order_of_imports() -> None:
    """A file imports only from files above it in `ORDER`; each row of the table is a stretch of it."""
    row_of = {
        name: number
        for number, row in enumerate(rows_of("layout.md", "| where | content |"))
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", " ".join(row))
    }
    numbers = [
        next(row_of[key] for key in (f"{name.replace('.', '/')}.py", f"{name.partition('.')[0]}/") if key in row_of)
        for name in ORDER
        if name != "structure"  # only gathers the names of its files
    ]
    assert numbers == sorted(numbers)


@pytest.fixture(scope="module")
def run_page(tmp_path_factory: pytest.TempPathFactory):
    """Runs the Python of a page from top to bottom in an empty folder, on few examples and steps; returns the names."""

    @functools.cache
    def run(page: Path) -> tuple[dict, Path]:
        folder, names = tmp_path_factory.mktemp(page.stem), {}
        real_fine_prune = mvp.fine_prune

        def quick(model, task, *args, **options):
            return real_fine_prune(model, task, *args, **{"steps": 20, "progress": False} | options)

        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(mvp, "load_task", functools.partial(mvp.load_task, limit=200), raising=False)
            patch.setattr(mvp, "fine_prune", quick, raising=False)
            for code in python_blocks(page):
                exec(compile(code.replace("300", "20").replace("290", "10"), page.name, "exec"), names)
        return names, folder

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    yield run
    logging.set_verbosity(verbosity)


@every_page
def test_the_code_of_a_page_runs(page: Path, run_page) -> None:
    names, _ = run_page(page)
    assert bool(names) == bool(python_blocks(page))


@every_page
def test_what_is_pruned_is_fresh(page: Path) -> None:
    """Every block that prunes loads its model first."""
    for code in python_blocks(page):
        prunes = re.search(r"mvp\.(fine_prune|Pruner)\(", code)
        assert not prunes or "mvp.load_model(" in code[: prunes.end() + 40], code


def kept(model) -> float:
    weights = [module.weight for module in model.bert.encoder.modules() if isinstance(module, torch.nn.Linear)]
    return sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)


def test_what_the_readme_leaves_behind(run_page) -> None:
    names, folder = run_page(README)
    again = type(names["model"]).from_pretrained(folder / "pruned")
    for model in (again, names["model"], names["result"].model):
        assert kept(model) == pytest.approx(0.03, abs=0.005)
    assert names["trainer"].state.global_step == names["pruner"].steps_done == names["callback"].pruner.steps_done == 20


def test_what_the_guide_leaves_behind(run_page) -> None:
    names, _ = run_page(ROOT / "docs" / "guide.md")
    assert kept(names["model"]) == pytest.approx(0.1, abs=0.001) and names["pruner"].steps_done == 20


def test_what_the_page_on_data_leaves_behind(run_page) -> None:
    names, _ = run_page(ROOT / "docs" / "data.md")
    assert kept(names["model"]) == pytest.approx(0.03, abs=0.005) and set(names["result"].metrics) == {"score"}
    assert len(names["result"].history) == 20 and 0 < names["result"].score <= 100


def test_what_the_page_on_deployment_leaves_behind(run_page) -> None:
    names, _ = run_page(ROOT / "docs" / "deploy.md")
    assert sizes(names["again"]) == sizes(names["small"])
    before, after = sizes(names["result"].model), sizes(names["small"])
    assert all(after[kind] == [count // 4 for count in before[kind]] for kind in ("heads", "neurons"))


def test_what_the_page_on_label_free_pruning_leaves_behind(run_page) -> None:
    names, _ = run_page(ROOT / "docs" / "unlabeled.md")
    assert names["pruned"].flops == pytest.approx(0.6, abs=0.005)
    assert sizes(names["small"])["neurons"] == names["pruned"].report["kept"].tolist()


def test_the_trainers_recipe_is_the_plain_loop(tmp_path: Path, device: str) -> None:
    """The guide's `DistillationTrainer`: the loss of two micro-batches of 8 has the gradient of one batch of 16."""
    (code,) = (code for code in python_blocks("guide.md") if "class DistillationTrainer" in code)
    names: dict = {}
    exec(code, names)
    task = mvp.load_task("toy/inference", limit=200)
    encoder, dense = (mvp.load_model("toy", task, seed=seed) for seed in (0, 5))
    batch = next(task.encode(mvp.tokenizer_for(encoder)).batches("train", 16, seed=0))
    examples = [{name: value[i] for name, value in batch.items()} for i in range(16)]
    found = {}
    for micro in (16, 8):
        model = copy.deepcopy(encoder).to(device)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        args = TrainingArguments(
            str(tmp_path), max_steps=1, per_device_train_batch_size=micro, gradient_accumulation_steps=16 // micro,
            max_grad_norm=0.0, report_to="none", disable_tqdm=True, logging_strategy="no", save_strategy="no",
            use_cpu=device == "cpu", dataloader_pin_memory=False, lr_scheduler_type="constant",
        )  # fmt: skip
        trainer = names["DistillationTrainer"](
            model, args, train_dataset=examples, optimizers=(torch.optim.SGD(model.parameters(), lr=1.0), None),
            teacher=mvp.Teacher(dense.to(device)),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        found[micro] = {n: p.detach().cpu() - encoder.get_parameter(n).detach() for n, p in model.named_parameters()}
    model = copy.deepcopy(encoder).eval()
    mvp.Teacher(dense.cpu()).loss(model(**batch), batch).backward()
    for name, p in model.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else -p.grad
        for micro, moved in found.items():
            torch.testing.assert_close(moved[name], expected, rtol=1e-3, atol=1e-5, msg=f"{micro} {name}")


def test_the_defaults_in_the_guide() -> None:
    pruning = {"score_lr", "warmup_steps", "cooldown_steps"}  # in the other table
    for header, function, left_out in (
        ("| argument of `Pruner`", mvp.Pruner.__init__, {"self", "model"}),
        ("| argument of `fine_prune`", mvp.fine_prune, {"model", "task", "method", "density", "options"} | pruning),
    ):
        parameters = inspect.signature(function).parameters
        rows = {row[0].strip("`"): row[1].strip("`") for row in rows_of("guide.md", header)}
        assert set(rows) == set(parameters) - left_out
        for name, shown in rows.items():
            default = parameters[name].default
            expected = "required" if default is inspect.Parameter.empty else repr(default).replace("'", '"')
            assert shown == expected, name


def test_what_none_stands_for() -> None:
    model = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(8, 8)]))
    learned = ("movement", "soft_movement", "l0")
    pruner = {name: mvp.Pruner(model, name, density=0.5, total_steps=100) for name in learned}
    assert pruner["movement"].schedule == mvp.schedule.Schedule(100, 10, 30)
    for name, start in zip(learned, (0.0, 0.0, 2.197), strict=True):
        (scores,) = pruner[name].state_dict()["scores"].values()
        assert float(scores.detach().mean()) == pytest.approx(start, abs=1e-6)
        assert bool((scores == scores[0, 0]).all()) == (name != "movement")
    assert [pruner[name].method.magnitude_init for name in learned] == [0.2, 0.0, 0.0]
    assert [pruner[name].score_lr for name in learned] == [1e-2, 30 / 100, 30 / 100]
    fixed = [mvp.Pruner(model, name, density=0.5, total_steps=100, penalty=1.0).score_lr for name in learned[1:]]
    assert fixed == [1e-2, 1e-1]
    assert mvp.load_task("toy/inference", limit=64).recipe(32) == (300, 3e-4)
    teacher = mvp.Teacher(model)
    sentence = r"([\d.]+) times the loss on the labels plus ([\d.]+) times the distillation loss at temperature (\d)"
    found = said("guide.md", sentence)
    assert list(map(float, found)) == [teacher.alpha_ce, teacher.alpha_kd, teacher.temperature]


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_hard_movement_does_not_depend_on_the_learning_rate_of_the_scores(optimizer) -> None:
    masks = []
    for score_lr in (2.0**-10, 2.0**3):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.ModuleList([torch.nn.Linear(16, 16)]))
        layer, own = model[0][0], optimizer(model.parameters(), lr=1e-2)
        pruner = mvp.Pruner(model, density=0.3, total_steps=20, warmup_steps=2, score_lr=score_lr).attach(own)
        for _ in range(20):
            x = torch.randn(32, 16)
            (layer(x) - x.flip(1)).square().mean().backward()
            own.step()
            own.zero_grad()
        masks.append(pruner.finalize()[0][0].weight.ne(0))
    assert 0.2 < masks[0].float().mean() < 0.4 and masks[0].eq(masks[1]).float().mean() > 0.99


def test_methods_groups_tasks_and_families_are_named() -> None:
    assert [row[0].strip('`"') for row in rows_of("guide.md", "| `method` | score")] == list(METHODS)
    assert {row[0].strip('`"') for row in rows_of("unlabeled.md", "| `method` |")} == set(NEURON_METHODS)
    cells = [row[0] for row in rows_of("guide.md", "| `groups` | one")]
    shown = [name for cell in cells if "mvp." not in cell for name in re.findall(r'"(\w+)"', cell)]
    with pytest.raises(ValueError, match=f"one of {', '.join(shown)}, or"):
        mvp.Pruner(torch.nn.Linear(2, 2), density=0.5, total_steps=10, groups="none of them")
    columns = {
        name: set(re.findall(r"`(\w+)`", row[1]))
        for row in rows_of("data.md", "| tasks | columns |")
        for name in re.findall(r"`(\w+)`", row[0])
    }
    assert columns == {name: set(spec.columns) for name, spec in SPECS.items() if not name.startswith("toy/")}
    assert all(f'`"{name}"`' in text(README) for name in (*columns, *METHODS))
    (listed,) = said("deploy.md", r"Heads and neurons are known for (.*?)\.")
    families = {re.sub(r"\W", "", family) for family in FAMILIES}
    assert {re.sub(r"\W", "", name.lower()) for name in re.split(r", | and ", listed)} == families
