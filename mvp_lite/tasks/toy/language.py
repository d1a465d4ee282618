"""The toy language: a vocabulary of about a hundred words, facts about people and things, and four labeled tasks."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["CATEGORIES", "CATEGORY_OF", "LABELS", "Fact", "relation", "task_examples", "vocabulary"]

Example = dict[str, Any]

PEOPLE = "ann ben cara dan eva finn gina hugo".split()
CATEGORIES = {
    "animal": "dog cat horse".split(),
    "bird": "hen duck owl".split(),
    "vehicle": "car bus truck".split(),
    "fruit": "apple pear plum".split(),
    "tool": "hammer wrench drill".split(),
}
NOUNS = [noun for nouns in CATEGORIES.values() for noun in nouns]
CATEGORY_OF = {noun: category for category, nouns in CATEGORIES.items() for noun in nouns}
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

LABELS = {
    "sentiment": ["negative", "positive"],
    "inference": ["entailment", "neutral", "contradiction"],
    "paraphrase": ["different", "same"],
    "qa": [],
}


def vocabulary() -> list[str]:
    """All words in a fixed order; the index is the token id."""
    groups = [PEOPLE, list(CATEGORIES), NOUNS, TOPICS, PRAISE, BLAME, FUNCTION_WORDS]
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
        """The fact as a sentence; `rng` chooses between the synonyms."""
        adjective = [self.adjective] if self.adjective else []
        never = ["never"] if self.never else []
        return [self.who, *never, rng.choice(self.verb.split()), "the", *adjective, self.noun]


def _covers(general: Fact, special: Fact) -> bool:
    return (
        general.who in (special.who, "someone")
        and general.verb == special.verb
        and general.noun in (special.noun, CATEGORY_OF.get(special.noun))
        and general.adjective in (special.adjective, None)
    )


def relation(premise: Fact, hypothesis: Fact) -> str:
    """Label of a pair of facts: "entailment", "neutral" or "contradiction".

    A fact entails a more general one; with "never" in both, the more general entails the more special; with "never" in
    one of them, what would have been entailed is contradicted. "the" means one thing, so opposite adjectives
    contradict too.
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
        new = replace(new, noun=CATEGORY_OF[new.noun])
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


def _inference(rng: random.Random, label: str) -> Example:
    while True:
        premise = _fact(rng)
        hypothesis = _changed(rng, premise)
        if rng.random() < 0.25:
            premise = replace(premise, never=True)
        first, second = " ".join(premise.words(rng)), " ".join(hypothesis.words(rng))
        if first != second and relation(premise, hypothesis) == label:
            return {"premise": first, "hypothesis": second, "label": LABELS["inference"].index(label)}


def _sentiment(rng: random.Random, label: str) -> Example:
    """The main clause decides: the one after "but", or the one before "though". "not" reverses a clause."""
    topics = rng.sample(TOPICS, 2)

    def clause(topic: str, positive: bool) -> list[str]:
        negated = rng.random() < 0.3
        words = PRAISE if positive != negated else BLAME
        return ["the", topic, "was", *(["not"] if negated else []), rng.choice(words)]

    positive = label == "positive"
    main, conjunction = clause(topics[0], positive), rng.choice(["", "", "but", "but", "though", "and"])
    side = clause(topics[1], positive == (conjunction == "and"))
    words = {"": main, "but": [*side, "but", *main]}.get(conjunction, [*main, conjunction, *side])
    return {"sentence": " ".join(words), "label": int(positive)}


def _question(rng: random.Random, agent: str, verb: str, patient: str, passive: bool) -> str:
    word = rng.choice(verb.split())
    return f"was {patient} {word} by {agent} ?" if passive else f"has {agent} {word} {patient} ?"


def _paraphrase(rng: random.Random, label: str) -> Example:
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


def _qa(rng: random.Random, label: str = "") -> Example:
    """Two facts and a question whose answer is a name ("who") or a thing ("what")."""
    facts = [_fact(rng), _fact(rng)]
    while facts[0].who == facts[1].who or CATEGORY_OF[facts[0].noun] == CATEGORY_OF[facts[1].noun]:
        facts[1] = _fact(rng)
    texts = [" ".join(fact.words(rng)) + " ." for fact in facts]
    which = rng.randrange(2)
    fact, verb = facts[which], rng.choice(facts[which].verb.split())
    if rng.random() < 0.5:
        question, answer = f"who {verb} the {rng.choice([fact.noun, CATEGORY_OF[fact.noun]])} ?", fact.who
    else:
        question, answer = f"what has {fact.who} {verb} ?", " ".join(texts[which].split()[3:-1])
    context = " ".join(texts)
    start = which * (len(texts[0]) + 1) + (0 if answer == fact.who else texts[which].rindex(answer))
    answers = {"text": [answer], "answer_start": [start]}
    return {"context": context, "question": question, "answers": answers}


_MAKERS = {"sentiment": _sentiment, "inference": _inference, "paraphrase": _paraphrase, "qa": _qa}


def _split_of(task: str, example: Example) -> str:
    """The split an example belongs to: a hash of its texts keeps validation, train and pretraining apart."""
    texts = sorted(str(example[key]) for key in example if key not in ("label", "answers", "id"))
    bucket = hashlib.sha256("|".join([task, *texts]).encode()).digest()[0] % 8
    return "validation" if bucket == 0 else "train" if bucket < 4 else "pretraining"


def random_example(rng: random.Random, task: str, split: str, index: int | None = None) -> Example:
    """An example of one split ("train", "validation", "pretraining"); `index` cycles through the labels."""
    labels = LABELS[task] or [""]
    label = rng.choice(labels) if index is None else labels[index % len(labels)]
    while True:
        example = _MAKERS[task](rng, label)
        # This small an encoder answers "what has ann washed ?" but not "who washed the dog ?": too hard for a task.
        too_hard = task == "qa" and example["question"].startswith("who") and split != "pretraining"
        if _split_of(task, example) == split and not too_hard:
            return example


def task_examples(task: str, split: str, count: int, seed: int = 0) -> list[Example]:
    """`count` different examples of one task, labels in equal shares and shuffled.

    Columns: sentiment `sentence, label`; inference `premise, hypothesis, label`; paraphrase `question1, question2,
    label`; qa `id, context, question, answers` as in SQuAD. `split` is "train" or "validation": the two share no
    example with each other or with the pretraining text.

    Raises:
        ValueError: another task or split, or more examples than there are.
    """
    if task not in LABELS:
        raise ValueError(f"task must be one of {list(LABELS)}, got {task!r}")
    if split not in ("train", "validation"):
        raise ValueError(f"split must be 'train' or 'validation', got {split!r}")
    rng = random.Random(f"{seed} {task} {split}")
    examples: dict[str, Example] = {}
    repeats = 0
    while len(examples) < count:
        example = random_example(rng, task, split, len(examples))
        repeats = repeats + 1 if examples.setdefault(json.dumps(example), example) is not example else 0
        if repeats == 300:
            raise ValueError(f"count={count}: {task} has not many more than {len(examples)} different {split} examples")
    shuffled = list(examples.values())
    rng.shuffle(shuffled)
    if task == "qa":
        shuffled = [{"id": f"{split}-{i}", **example} for i, example in enumerate(shuffled)]
    return shuffled
