"""The toy: a small English-like language, four tasks written in it, and a small BERT pretrained on it.

Pruning during fine-tuning is only interesting where a *pretrained* model is fine-tuned a little, so the toy has a
pretraining of its own. It was built for that: the pretraining text pairs sentences with ordinary words that name
their relation ("ann washed the dog [SEP] so someone cleaned the animal"), with moods after reviews and with answers
after questions, and those words are masked more often than others. Guessing them teaches the encoder what the four
tasks need; a third of the time the word is left out and guessed from [CLS], much as BERT's second objective works.
What the toy shows is therefore a mechanism under favourable conditions; evidence needs real models and data.

Everything is a function of a seed: `task_rows` makes the labelled rows, `pretraining_batch` the text to fill in,
`pretrain` the encoder (it continues after a kill), `build` all files and a manifest of their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import BertForMaskedLM, PreTrainedTokenizerFast

Row = dict[str, Any]

PEOPLE = "ann ben cara dan eva finn gina hugo".split()
KINDS = {
    "animal": "dog cat horse".split(),
    "bird": "hen duck owl".split(),
    "vehicle": "car bus truck".split(),
    "fruit": "apple pear plum".split(),
    "tool": "hammer wrench drill".split(),
}
NOUNS = [noun for nouns in KINDS.values() for noun in nouns]
KIND_OF = {noun: kind for kind, nouns in KINDS.items() for noun in nouns}
THING_VERBS = ["washed cleaned", "fixed repaired", "bought purchased", "found discovered"]
PERSON_VERBS = ["called phoned", "helped assisted", "followed trailed", "teased mocked", "hugged embraced"]
ADJECTIVES = "big small dry wet old new".split()
OPPOSITE = {a: b for x, y in zip(ADJECTIVES[::2], ADJECTIVES[1::2], strict=True) for a, b in ((x, y), (y, x))}
TOPICS = "film plot cast music meal hotel book song".split()
PRAISE = "good great lovely superb charming clever".split()
BLAME = "bad awful dull boring weak silly".split()
MOODS = {"negative": ["sad"], "positive": ["happy"]}
LINKS = {"entailment": ["so"], "neutral": ["perhaps"], "contradiction": ["instead"]}
SAMENESS = {"different": ["besides"], "same": ["again"]}
FUNCTION_WORDS = "the was not never but though and by has who what someone ? . ,".split()
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

MAX_LENGTH = 32

# Fine-tuning on a toy task: steps of 32 rows, the rates that experiments choose from, and the one used by default.
STEPS, LRS, LR = 300, (1e-4, 3e-4, 1e-3), 3e-4

LABELS = {
    "sentiment": ["negative", "positive"],
    "inference": ["entailment", "neutral", "contradiction"],
    "paraphrase": ["different", "same"],
    "qa": [],
}


def vocabulary() -> list[str]:
    """All words in a fixed order; the index is the token id."""
    groups = [PEOPLE, list(KINDS), NOUNS, TOPICS, PRAISE, BLAME, FUNCTION_WORDS]
    groups += [*MOODS.values(), *LINKS.values(), *SAMENESS.values()]
    groups += [ADJECTIVES, *(pair.split() for pair in THING_VERBS + PERSON_VERBS)]
    words = SPECIALS + [word for group in groups for word in group]
    return list(dict.fromkeys(words))


@dataclass(frozen=True)
class Fact:
    """Somebody did something to a thing, or never did. `verb` is a group of synonyms."""

    who: str
    verb: str
    noun: str
    adjective: str | None = None
    never: bool = False

    def words(self, rng: random.Random) -> list[str]:
        adjective = [self.adjective] if self.adjective else []
        never = ["never"] if self.never else []
        return [self.who, *never, rng.choice(self.verb.split()), "the", *adjective, self.noun]


def _covers(general: Fact, special: Fact) -> bool:
    return (
        general.who in (special.who, "someone")
        and general.verb == special.verb
        and general.noun in (special.noun, KIND_OF.get(special.noun))
        and general.adjective in (special.adjective, None)
    )


def relation(premise: Fact, hypothesis: Fact) -> str:
    """Label of a pair of facts: "entailment", "neutral" or "contradiction".

    A fact entails a more general one; with "never" in both it is the other way round; with "never" in one of them,
    what would have been entailed is contradicted. "the" means one thing, so opposite adjectives contradict too.
    """
    if premise.never:
        if not _covers(premise, hypothesis):
            return "neutral"
        return "entailment" if hypothesis.never else "contradiction"
    if _covers(hypothesis, premise):
        return "contradiction" if hypothesis.never else "entailment"
    clash = premise.adjective and hypothesis.adjective == OPPOSITE[premise.adjective] and not hypothesis.never
    if clash and premise.who == hypothesis.who and _covers(replace(hypothesis, adjective=premise.adjective), premise):
        return "contradiction"
    return "neutral"


def _other(rng: random.Random, choices: list[str], *taken: str | None) -> str:
    return rng.choice([c for c in choices if c not in taken])


def _fact(rng: random.Random) -> Fact:
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.5 else None
    return Fact(rng.choice(PEOPLE), rng.choice(THING_VERBS), rng.choice(NOUNS), adjective)


def _changed(rng: random.Random, fact: Fact) -> Fact:
    """A fact near `fact`: perhaps more general, perhaps with one thing altered, perhaps denied."""
    new = fact
    if rng.random() < 0.3:
        new = replace(new, who="someone")
    if rng.random() < 0.4:
        new = replace(new, noun=KIND_OF[new.noun])
    if rng.random() < 0.4:
        new = replace(new, adjective=None)
    change = rng.choice(["", "", "who", "verb", "noun", "add", "opposite", "who verb", "verb noun"])
    if "who" in change:
        new = replace(new, who=_other(rng, PEOPLE, fact.who))
    if "verb" in change:
        new = replace(new, verb=_other(rng, THING_VERBS, fact.verb))
    if "noun" in change:
        new = replace(new, noun=_other(rng, NOUNS, fact.noun))
    if change == "add" and fact.adjective is None:
        new = replace(new, adjective=rng.choice(ADJECTIVES))
    if change == "opposite" and fact.adjective:
        new = replace(new, adjective=OPPOSITE[fact.adjective])
    return replace(new, never=rng.random() < 0.35)


def _inference(rng: random.Random, label: str) -> Row:
    while True:
        premise = _fact(rng)
        hypothesis = _changed(rng, premise)
        if rng.random() < 0.25:
            premise = replace(premise, never=True)
        first, second = " ".join(premise.words(rng)), " ".join(hypothesis.words(rng))
        if first != second and relation(premise, hypothesis) == label:
            return {"premise": first, "hypothesis": second, "label": LABELS["inference"].index(label)}


def _sentiment(rng: random.Random, label: str) -> Row:
    """The main clause decides: the one after "but", or the one before "though". "not" turns a clause round."""
    topics = rng.sample(TOPICS, 2)

    def clause(topic: str, positive: bool) -> list[str]:
        negated = rng.random() < 0.3
        words = PRAISE if positive != negated else BLAME
        return ["the", topic, "was", *(["not"] if negated else []), rng.choice(words)]

    positive = label == "positive"
    main, joint = clause(topics[0], positive), rng.choice(["", "", "but", "but", "though", "and"])
    side = clause(topics[1], positive == (joint == "and"))
    words = {"": main, "but": [*side, "but", *main]}.get(joint, [*main, joint, *side])
    return {"sentence": " ".join(words), "label": int(positive)}


def _question(rng: random.Random, agent: str, verb: str, patient: str, passive: bool) -> str:
    word = rng.choice(verb.split())
    return f"was {patient} {word} by {agent} ?" if passive else f"has {agent} {word} {patient} ?"


def _paraphrase(rng: random.Random, label: str) -> Row:
    agent, patient, third = rng.sample(PEOPLE, 3)
    verb, passive = rng.choice(PERSON_VERBS), rng.random() < 0.5
    first = _question(rng, agent, verb, patient, passive)
    if label == "different":
        changes = rng.choice([["swap"], ["verb"], ["agent"], ["patient"], ["verb", "agent"], ["verb", "patient"]])
        if "verb" in changes:
            verb = _other(rng, PERSON_VERBS, verb)
        if "agent" in changes:
            agent = third
        if "patient" in changes:
            patient = third
        if "swap" in changes:
            agent, patient = patient, agent
    second = _question(rng, agent, verb, patient, passive != (rng.random() < 0.7))
    return {"question1": first, "question2": second, "label": LABELS["paraphrase"].index(label)}


def _qa(rng: random.Random, label: str = "") -> Row:
    """Two facts and a question whose answer is a name ("who") or a thing ("what")."""
    facts = [_fact(rng), _fact(rng)]
    while facts[0].who == facts[1].who or KIND_OF[facts[0].noun] == KIND_OF[facts[1].noun]:
        facts[1] = _fact(rng)
    texts = [" ".join(fact.words(rng)) + " ." for fact in facts]
    which = rng.randrange(2)
    fact, verb = facts[which], rng.choice(facts[which].verb.split())
    if rng.random() < 0.5:
        question, answer = f"who {verb} the {rng.choice([fact.noun, KIND_OF[fact.noun]])} ?", fact.who
    else:
        question, answer = f"what has {fact.who} {verb} ?", " ".join(texts[which].split()[3:-1])
    context = " ".join(texts)
    start = which * (len(texts[0]) + 1) + (0 if answer == fact.who else texts[which].rindex(answer))
    answers = {"text": [answer], "answer_start": [start]}
    return {"context": context, "question": question, "answers": answers}


_MAKERS = {"sentiment": _sentiment, "inference": _inference, "paraphrase": _paraphrase, "qa": _qa}


def _part(task: str, row: Row) -> str:
    """Which part of the language a row belongs to: a hash keeps validation, train and pretraining apart."""
    texts = sorted(str(row[key]) for key in row if key not in ("label", "answers", "id"))
    bucket = hashlib.sha256("|".join([task, *texts]).encode()).digest()[0] % 8
    return "validation" if bucket == 0 else "train" if bucket < 4 else "pretraining"


def _draw(rng: random.Random, task: str, part: str, index: int | None = None) -> Row:
    labels = LABELS[task] or [""]
    label = rng.choice(labels) if index is None else labels[index % len(labels)]
    while True:
        row = _MAKERS[task](rng, label)
        # This small an encoder answers "what has ann washed ?" but not "who washed the dog ?": too hard for a task.
        too_hard = task == "qa" and row["question"].startswith("who") and part != "pretraining"
        if _part(task, row) == part and not too_hard:
            return row


def task_rows(task: str, split: str, count: int, seed: int = 0) -> list[Row]:
    """`count` different rows of one task, labels in equal shares and shuffled.

    Columns: sentiment `sentence, label`; inference `premise, hypothesis, label`; paraphrase `question1, question2,
    label`; qa `id, context, question, answers` as in SQuAD. `split` is "train" or "validation": they never meet, nor
    does either meet the pretraining text. Raises ValueError for another task or split, and for more rows
    than there are.
    """
    if task not in LABELS:
        raise ValueError(f"task must be one of {list(LABELS)}, got {task!r}")
    if split not in ("train", "validation"):
        raise ValueError(f"split must be 'train' or 'validation', got {split!r}")
    rng = random.Random(f"{seed} {task} {split}")
    rows: dict[str, Row] = {}
    repeats = 0
    while len(rows) < count:
        row = _draw(rng, task, split, len(rows))
        repeats = repeats + 1 if rows.setdefault(json.dumps(row), row) is not row else 0
        if repeats == 300:
            raise ValueError(f"count={count}: {task} has not many more than {len(rows)} different {split} rows")
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    if task == "qa":
        shuffled = [{"id": f"{split}-{i}", **row} for i, row in enumerate(shuffled)]
    return shuffled


# Pretraining text: a row with a word or two more, each with the chance that it is hidden.
OFTEN, SELDOM, RARE, LEFT_OUT = 0.7, 0.15, 0.05, 0.35
# Whether two questions ask the same is the hardest to learn, so later half of the text is about that.
MIX = ("sentiment", "inference", "paraphrase", "qa")
HARDER_MIX = ("paraphrase", "inference", "paraphrase", "qa", "paraphrase", "inference", "paraphrase", "sentiment")
HARDER_FROM = 4000
_FRAME = {"the", "was", "has", "by", "?", ".", ",", "who", "what"}


def _weigh(text: str, chance: float = SELDOM) -> list[tuple[str, float]]:
    return [(word, RARE if word in _FRAME else chance) for word in text.split()]


Words = list[tuple[str, float]]


def _pretraining_text(rng: random.Random, task: str) -> tuple[Words, Words, str | None]:
    """Two segments of (word, chance to be hidden), and a word to guess from [CLS] if there is one.

    An answer hides as a whole (chance 1 or 0). A link or mood is shown, hidden, or left out and guessed from [CLS].
    """
    row = _draw(rng, task, "pretraining")
    if task == "qa":
        answer, context = row["answers"]["text"][0], row["context"]
        start = row["answers"]["answer_start"][0]
        where = rng.choice(["question", "context", "neither"])
        question = _weigh(row["question"]) + [(word, float(where == "question")) for word in answer.split()]
        before, after = context[:start], context[start + len(answer) :]
        chance = 0.0 if where == "question" else SELDOM
        inside = [(word, 1.0 if where == "context" else chance) for word in answer.split()]
        return question, _weigh(before, chance) + inside + _weigh(after, chance), None
    words = {"sentiment": MOODS, "inference": LINKS, "paraphrase": SAMENESS}[task]
    link = rng.choice(words[LABELS[task][row["label"]]])
    first, *rest = (_weigh(row[key]) for key in row if key != "label")
    second = rest[0] if rest else []
    if rng.random() < LEFT_OUT:
        return first, second, link
    if task == "sentiment":
        remark = [(rng.choice(PEOPLE), 0.0), ("was", 0.0), (link, OFTEN)]
        return (first, remark, None) if rng.random() < 0.5 else (remark, first, None)
    hidden = [(link, OFTEN)]
    if rng.random() < 0.5:
        hidden, second = [(link, 0.0)], _weigh(row[list(row)[1]], 0.5)
    return (first, hidden + second, None) if rng.random() < 0.5 else (hidden + first, second, None)


def pretraining_batch(seed: int, step: int, batch_size: int) -> dict[str, torch.Tensor]:
    """The masked batch of one step, the kinds of text in turn.

    `input_ids, attention_mask, token_type_ids, labels, telling`, each (batch_size, length). It depends on the arguments
    alone, so a resumed run sees what the killed one would have seen. `labels` is -100 where nothing is to be guessed;
    `telling` is 1 where the word guessed is a link, a mood or an answer. A hidden word becomes [MASK] (80 %), a random
    word (10 %) or stays (10 %).
    """
    import torch

    words = vocabulary()
    ids = {word: i for i, word in enumerate(words)}
    rng = random.Random(f"{seed} pretraining {step}")
    tasks = MIX if step < HARDER_FROM else HARDER_MIX
    rows: list[list[tuple[int, int, int, int, int]]] = []
    for i in range(batch_size):
        first, second, left_out = _pretraining_text(rng, tasks[i % len(tasks)])
        row = [(ids["[CLS]"], 1, 0, ids[left_out] if left_out else -100, int(left_out is not None))]
        for segment, text in enumerate([first, second] if second else [first]):
            for word, chance in [*text, ("[SEP]", 0.0)]:
                shown, wanted = ids[word], -100
                if rng.random() < chance:
                    wanted, kind = ids[word], rng.random()
                    if kind < 0.9:
                        shown = ids["[MASK]"] if kind < 0.8 else rng.randrange(len(SPECIALS), len(words))
                row.append((shown, 1, segment, wanted, int(chance >= OFTEN)))
        rows.append(row)
    longest = max(map(len, rows))
    padded = torch.tensor([row + [(ids["[PAD]"], 0, 0, -100, 0)] * (longest - len(row)) for row in rows])
    names = ("input_ids", "attention_mask", "token_type_ids", "labels", "telling")
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
    telling_weight: float = 20.0
    layers: int = 4
    width: int = 128
    train_rows: int = 3000
    validation_rows: int = 500


TINY = Recipe(steps=8, batch_size=8, layers=1, width=16, train_rows=24, validation_rows=12)


def new_model(recipe: Recipe) -> BertForMaskedLM:
    """A BERT with random weights, drawn from `recipe.seed` without touching the global generator.

    It has no dropout: the text never ends, so nothing can be learnt by heart, and a step is a fifth faster.
    """
    import torch
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
        # BERT's 0.02 is for a width of 768; so narrow a model would sit on a plateau with it.
        initializer_range=0.07,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = BertForMaskedLM(config)
        for name, weight in model.bert.named_parameters():
            if name.endswith("output.dense.weight"):  # small steps away from the identity keep a fast rate stable
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
    import torch
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
    """Masked-language modelling for `recipe.steps` steps: AdamW, gradients clipped at 1, a rate that
    rises for `warmup_steps`, stays, and falls to 0 in the last `cooldown` of the steps.

    With a `checkpoint` path the state is written there every `checkpoint_every` steps, and a killed run called again
    goes on from it to the same weights (same machine and thread count). Raises ValueError if the checkpoint found
    there is of another recipe.
    """
    import torch
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
        wanted, telling = batch.pop("labels").to(device), batch.pop("telling").to(device)
        states = model.bert(**{name: tensor.to(device) for name, tensor in batch.items()}).last_hidden_state
        hidden = wanted >= 0
        losses = cross_entropy(model.cls(states[hidden]), wanted[hidden], reduction="none")
        weight = 1 + (recipe.telling_weight - 1) * telling[hidden]
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file under `folder` but manifest.json, by its path in it (with forward slashes)."""
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file() and path != root / "manifest.json")
    return {path.relative_to(root).as_posix(): _sha256(path) for path in files}


def write_rows(folder: str | Path, recipe: Recipe = Recipe()) -> None:
    """Write `<task>/<split>.jsonl` for all four tasks."""
    for task in LABELS:
        for split, count in (("train", recipe.train_rows), ("validation", recipe.validation_rows)):
            path = Path(folder) / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(row) + "\n" for row in task_rows(task, split, count, recipe.seed)]
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
    """Make the toy: rows, tokenizer, pretrained encoder and manifest.json, in `out_dir`; returns that folder.

    A killed build continues where it was when called again: the checkpoint (default: `<out_dir>.checkpoint`, beside
    the folder) is removed at the end. Other settings: `build(out, replace(Recipe(), steps=...))`.
    """
    root = Path(out_dir)
    state = Path(checkpoint) if checkpoint is not None else root.with_name(root.name + ".checkpoint")
    root.mkdir(parents=True, exist_ok=True)
    write_rows(root, recipe)
    make_tokenizer().save_pretrained(root / "encoder")
    model: Any = pretrain(recipe, checkpoint=state, checkpoint_every=checkpoint_every, device=device, progress=progress)
    model.to("cpu").save_pretrained(root / "encoder")
    about = {"recipe": asdict(recipe), "files": manifest(root)}
    (root / "manifest.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8", newline="\n")
    state.unlink(missing_ok=True)
    return root
