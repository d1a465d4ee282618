"""Names on the Hugging Face Hub: loaded quietly, and without half a minute of retries where there is no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["ADVICE", "connection", "quiet"]

ADVICE = (
    "Offline, give a local folder with config.json, model.safetensors, tokenizer.json and tokenizer_config.json (what "
    'save_pretrained writes), or "toy" for the encoder in the package.'
)
#: seconds that the Hub may take to answer the first request
_PATIENCE = 2.0


@contextmanager
def connection() -> Iterator[None]:
    """Load by Hub names inside; if the Hub does not answer one request, only the local cache is used.

    Without this, `from_pretrained` and `load_dataset` try each file six times, which takes 23 seconds or more.

    Raises:
        OSError: the Hub does not answer, and the cache has not got what is needed.
    """
    from huggingface_hub import constants

    problem = None if constants.HF_HUB_OFFLINE else _problem()
    if problem is None:
        yield
        return
    constants.HF_HUB_OFFLINE = True  # read at each request, by transformers and datasets too
    try:
        yield
    except OSError as error:
        raise OSError(f"no answer from {constants.ENDPOINT} ({problem}), and not in the cache") from error
    finally:
        constants.HF_HUB_OFFLINE = False


def _problem() -> str | None:
    """Why the Hub cannot be reached: None if it answers, with whatever status."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # of the HTTP library, which huggingface_hub chooses
        return str(error) or type(error).__name__
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no report of new heads; what matters in that report is checked after loading."""
    import transformers

    logging: Any = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
