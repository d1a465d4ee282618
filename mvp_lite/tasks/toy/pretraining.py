"""The toy's encoder: masked text with cue words, a recipe, its pretraining, and all files of the toy from a seed."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mvp_lite.tasks.toy.language import (
    LABELS,
    LINKS,
    MOODS,
    PEOPLE,
    SAMENESS,
    SPECIALS,
    random_example,
    task_examples,
    vocabulary,
)

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, PreTrainedTokenizerFast

MAX_LENGTH = 32
# Chances that a word is hidden (a cue word, an ordinary word, a word of the frame) and that a cue word is left out.
OFTEN, SELDOM, RARE, LEFT_OUT = 0.7, 0.15, 0.05, 0.35
_FRAME = {"the", "was", "has", "by", "?", ".", ",", "who", "what"}
# Whether two questions ask the same is the hardest to learn, so later half of the text is about that.
MIX = ("sentiment", "inference", "paraphrase", "qa")
HARDER_MIX = ("paraphrase", "inference", "paraphrase", "qa", "paraphrase", "inference", "paraphrase", "sentiment")
HARDER_FROM = 4000

Words = list[tuple[str, float]]


def _with_chances(text: str, chance: float = SELDOM) -> Words:
    return [(word, RARE if word in _FRAME else chance) for word in text.split()]


def _pretraining_text(rng: random.Random, task: str) -> tuple[Words, Words, str | None]:
    """Two segments of (word, chance to be hidden), and a word to predict from [CLS] if there is one.

    An answer hides as a whole (chance 1 or 0). A link or mood is shown, hidden, or left out and predicted from [CLS].
    """
    example = random_example(rng, task, "pretraining")
    if task == "qa":
        answer, context = example["answers"]["text"][0], example["context"]
        start = example["answers"]["answer_start"][0]
        where = rng.choice(["question", "context", "neither"])
        question = _with_chances(example["question"]) + [(word, float(where == "question")) for word in answer.split()]
        before, after = context[:start], context[start + len(answer) :]
        chance = 0.0 if where == "question" else SELDOM
        inside = [(word, 1.0 if where == "context" else chance) for word in answer.split()]
        return question, _with_chances(before, chance) + inside + _with_chances(after, chance), None
    words = {"sentiment": MOODS, "inference": LINKS, "paraphrase": SAMENESS}[task]
    cue = rng.choice(words[LABELS[task][example["label"]]])
    first, *rest = (_with_chances(example[key]) for key in example if key != "label")
    second = rest[0] if rest else []
    if rng.random() < LEFT_OUT:
        return first, second, cue
    if task == "sentiment":
        remark = [(rng.choice(PEOPLE), 0.0), ("was", 0.0), (cue, OFTEN)]
        return (first, remark, None) if rng.random() < 0.5 else (remark, first, None)
    hidden = [(cue, OFTEN)]
    if rng.random() < 0.5:
        hidden, second = [(cue, 0.0)], _with_chances(example[list(example)[1]], 0.5)
    return (first, hidden + second, None) if rng.random() < 0.5 else (hidden + first, second, None)


def pretraining_batch(seed: int, step: int, batch_size: int) -> dict[str, Tensor]:
    """The masked batch of one step, the four types of text in turn.

    `input_ids, attention_mask, token_type_ids, labels, cues`, each (batch_size, length). It depends on the arguments
    alone, so a resumed run sees what the killed one would have seen. `labels` is -100 where nothing is predicted;
    `cues` is 1 where the word to predict is a link, a mood or an answer. A hidden word becomes [MASK] (80 %), a random
    word (10 %) or stays (10 %).
    """
    words = vocabulary()
    ids = {word: i for i, word in enumerate(words)}
    rng = random.Random(f"{seed} pretraining {step}")
    tasks = MIX if step < HARDER_FROM else HARDER_MIX
    sequences: list[list[tuple[int, int, int, int, int]]] = []
    for i in range(batch_size):
        first, second, left_out = _pretraining_text(rng, tasks[i % len(tasks)])
        sequence = [(ids["[CLS]"], 1, 0, ids[left_out] if left_out else -100, int(left_out is not None))]
        for segment, text in enumerate([first, second] if second else [first]):
            for word, chance in [*text, ("[SEP]", 0.0)]:
                shown, label = ids[word], -100
                if rng.random() < chance:
                    label, u = ids[word], rng.random()
                    if u < 0.9:
                        shown = ids["[MASK]"] if u < 0.8 else rng.randrange(len(SPECIALS), len(words))
                sequence.append((shown, 1, segment, label, int(chance >= OFTEN)))
        sequences.append(sequence)
    longest = max(map(len, sequences))
    padding = (ids["[PAD]"], 0, 0, -100, 0)
    padded = torch.tensor([sequence + [padding] * (longest - len(sequence)) for sequence in sequences])
    names = ("input_ids", "attention_mask", "token_type_ids", "labels", "cues")
    return {name: padded[:, :, i].contiguous() for i, name in enumerate(names)}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level tokenizer: lower case, split at spaces and punctuation, [CLS] A [SEP] B [SEP] with token types."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary())}
    core = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(word, ids[word]) for word in ("[CLS]", "[SEP]")],
    )
    make: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = make(
        tokenizer_object=core,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{word[1:-1].lower()}_token": word for word in SPECIALS},
    )
    return tokenizer


@dataclass(frozen=True)
class Recipe:
    """Everything `build` depends on. `TINY` makes a miniature in seconds, for tests."""

    seed: int = 0
    steps: int = 9000
    batch_size: int = 48
    lr: float = 7e-4
    warmup_steps: int = 300
    cooldown: float = 0.25
    cue_weight: float = 20.0
    layers: int = 4
    width: int = 128
    train_examples: int = 3000
    validation_examples: int = 500


TINY = Recipe(steps=8, batch_size=8, layers=1, width=16, train_examples=24, validation_examples=12)


def new_model(recipe: Recipe) -> BertForMaskedLM:
    """A BERT with random weights, drawn from `recipe.seed` without touching the global generator.

    It has no dropout: the text never ends, so nothing can be memorized, and a step is a fifth faster.
    """
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        intermediate_size=4 * recipe.width,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # BERT's 0.02 is for a width of 768; so narrow a model would stay on a plateau with it.
        initializer_range=0.07,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = BertForMaskedLM(config)
        for name, weight in model.bert.named_parameters():
            if name.endswith("output.dense.weight"):  # blocks near the identity keep a large learning rate stable
                weight.data *= 0.5
        return model


def _save_checkpoint(
    path: Path, model: BertForMaskedLM, optimizer: torch.optim.Optimizer, about: dict[str, str]
) -> None:
    from safetensors.torch import save_file

    names: dict[Any, str] = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"weight/{name}": parameter.detach() for parameter, name in names.items()}
    for parameter, state in optimizer.state.items():
        tensors |= {f"{key}/{names[parameter]}": value for key, value in state.items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=about)
    part.replace(path)


def _load_checkpoint(
    path: Path, model: BertForMaskedLM, optimizer: torch.optim.Optimizer, about: dict[str, str]
) -> int:
    """Number of steps done, 0 without a checkpoint. One of another recipe is refused, not overwritten."""
    from safetensors import safe_open

    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        found = file.metadata()
        if found["recipe"] != about["recipe"]:
            raise ValueError(
                f"{path} belongs to recipe {found['recipe']}, not {about['recipe']}; remove it to start anew"
            )
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(file.get_tensor(f"weight/{name}"))
                keys = ("step", "exp_avg", "exp_avg_sq")
                optimizer.state[parameter] = {
                    key: file.get_tensor(f"{key}/{name}").to(parameter.device) for key in keys
                }
    return int(found["step"])


def pretrain(
    recipe: Recipe,
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    device: str = "cpu",
    progress: bool = True,
) -> BertForMaskedLM:
    """Masked-language modeling for `recipe.steps` steps: AdamW, gradients clipped at 1.

    The learning rate rises for `warmup_steps`, stays, and falls to 0 in the last `cooldown` of the steps. With a
    `checkpoint` path the state is written there every `checkpoint_every` steps, and a killed run called again goes on
    from it to the same weights (same machine and thread count).

    Raises:
        ValueError: the checkpoint at that path is of another recipe.
    """
    from torch.nn.functional import cross_entropy
    from tqdm.auto import tqdm

    trained = new_model(recipe)
    model: Any = trained.train()
    model.to(device)
    weights = list(model.parameters())
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": 0.01},
        {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.99), fused=True)
    about = {"recipe": json.dumps(asdict(recipe))}
    path = Path(checkpoint) if checkpoint is not None else None
    done = _load_checkpoint(path, model, optimizer, about) if path else 0

    bar = tqdm(range(done, recipe.steps), initial=done, total=recipe.steps, desc="pretraining", disable=not progress)
    for step in bar:
        rise, fall = (step + 1) / recipe.warmup_steps, (recipe.steps - step) / (recipe.cooldown * recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1.0, rise, fall)
        batch = pretraining_batch(recipe.seed, step, recipe.batch_size)
        labels, cues = batch.pop("labels").to(device), batch.pop("cues").to(device)
        states = model.bert(**{name: tensor.to(device) for name, tensor in batch.items()}).last_hidden_state
        predicted = labels >= 0
        losses = cross_entropy(model.cls(states[predicted]), labels[predicted], reduction="none")
        weight = 1 + (recipe.cue_weight - 1) * cues[predicted]
        loss = (weight * losses).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if path and ((step + 1) % checkpoint_every == 0 or step + 1 == recipe.steps):
            _save_checkpoint(path, model, optimizer, about | {"step": str(step + 1)})
    model.eval()
    return trained


def manifest(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file under `folder` but manifest.json, by its path in it (with forward slashes)."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path != root / "manifest.json")
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def write_examples(folder: str | Path, recipe: Recipe = Recipe()) -> None:
    """Write `<task>/<split>.jsonl` for all four tasks."""
    for task in LABELS:
        for split, count in (("train", recipe.train_examples), ("validation", recipe.validation_examples)):
            path = Path(folder) / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(example) + "\n" for example in task_examples(task, split, count, recipe.seed)]
            path.write_text("".join(lines), encoding="utf-8", newline="\n")


def build(
    out_dir: str | Path,
    recipe: Recipe = Recipe(),
    *,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    device: str = "cpu",
    progress: bool = True,
) -> Path:
    """Make the toy: examples, tokenizer, pretrained encoder and manifest.json, in `out_dir`; returns that folder.

    A killed build continues where it was when called again: the checkpoint (default: `<out_dir>.checkpoint`, beside
    the folder) is removed at the end. Other settings: `build(out, replace(Recipe(), steps=...))`.
    """
    root = Path(out_dir)
    state = Path(checkpoint) if checkpoint is not None else root.with_name(root.name + ".checkpoint")
    root.mkdir(parents=True, exist_ok=True)
    write_examples(root, recipe)
    make_tokenizer().save_pretrained(root / "encoder")
    model: Any = pretrain(recipe, checkpoint=state, checkpoint_every=checkpoint_every, device=device, progress=progress)
    model.to("cpu").save_pretrained(root / "encoder")
    about = {"recipe": asdict(recipe), "files": manifest(root)}
    (root / "manifest.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8", newline="\n")
    state.unlink(missing_ok=True)
    return root
