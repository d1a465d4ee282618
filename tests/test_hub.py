"""Hub names without a network: one short request, then the cache alone; and tokenizers that are not there."""

import huggingface_hub
import pytest
from huggingface_hub import constants

import mvp_lite as mvp
from mvp_lite.hub import connection


class Session:
    """Stands for the network: counts the requests, and answers them or not."""

    def __init__(self, answers):
        self.answers, self.requests = answers, []

    def head(self, url, timeout):
        self.requests.append((url, timeout))
        if not self.answers:
            raise RuntimeError("name not known")


@pytest.fixture
def network(monkeypatch):
    def with_answers(answers):
        session = Session(answers)
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example")
        return session

    return with_answers


def test_without_an_answer_only_the_cache_is_asked(network):
    session = network(answers=False)
    task = mvp.load_task("toy/sentiment", limit=20)
    model = mvp.load_model("toy", task)
    assert session.requests == []
    model.name_or_path = "some/name"
    problem = r"no answer from https://mirror\.example \(name not known\), and not in the cache"
    for load in (lambda: mvp.load_model("some/name", task), lambda: mvp.tokenizer_for(model)):
        with pytest.raises(OSError, match=rf"name_or_path='some/name'.*Offline, give a local folder.*{problem}"):
            load()
    with pytest.raises(OSError, match=rf"stanfordnlp/sst2.*{problem}.*data_dir="):
        mvp.load_task("sst2")
    assert session.requests == [("https://mirror.example", 2.0)] * 3
    assert constants.HF_HUB_OFFLINE is False


def test_with_an_answer_everything_stays_as_it_is(network):
    session = network(answers=True)
    with connection():
        assert constants.HF_HUB_OFFLINE is False
    with pytest.raises(OSError, match=r"^from the Hub$"), connection():
        raise OSError("from the Hub")
    assert len(session.requests) == 2


def test_offline_on_purpose_sends_nothing(network, monkeypatch):
    session = network(answers=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with connection():
        pass
    assert session.requests == [] and constants.HF_HUB_OFFLINE is True


def test_a_model_without_its_tokenizer_is_not_trained(tmp_path):
    task = mvp.load_task("toy/inference", limit=50)
    mvp.load_model("toy", task).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"the tokenizer there has 5 tokens, the model 99; save the right one"):
        mvp.fine_prune(mvp.load_model(tmp_path, task), task, steps=4, progress=False)
