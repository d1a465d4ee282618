"""The toy: a small English-like language, four tasks written in it, and a small BERT pretrained on it.

Pruning during fine-tuning is only interesting where a *pretrained* model is fine-tuned a little, so the toy has a
pretraining of its own. It was built for that: the pretraining text pairs sentences with ordinary words that name
their relation ("ann washed the dog [SEP] so someone cleaned the animal"), with moods after reviews and with answers
after questions, and those cue words are masked more often than others. Predicting them teaches the encoder what the
four tasks need; a third of the time the word is left out and predicted from [CLS], much as BERT's second objective
works. What the toy shows is therefore a mechanism under favorable conditions; evidence needs real models and data.

Everything is a function of a seed: `task_examples` makes the labeled examples, `pretraining_batch` the masked text,
`pretrain` the encoder (it continues after a kill), `build` all files and a manifest of their SHA-256.
"""

from mvp_lite.tasks.toy.language import LABELS, task_examples, vocabulary
from mvp_lite.tasks.toy.pretraining import (
    MAX_LENGTH,
    TINY,
    Recipe,
    build,
    make_tokenizer,
    manifest,
    new_model,
    pretrain,
    pretraining_batch,
)

__all__ = [
    "LABELS",
    "LR",
    "LRS",
    "MAX_LENGTH",
    "STEPS",
    "TINY",
    "Recipe",
    "build",
    "make_tokenizer",
    "manifest",
    "new_model",
    "pretrain",
    "pretraining_batch",
    "task_examples",
    "vocabulary",
]

# Fine-tuning on a toy task: optimizer steps, the learning rates that experiments choose from, the one used by default.
STEPS, LRS, LR = 300, (1e-4, 3e-4, 1e-3), 3e-4
