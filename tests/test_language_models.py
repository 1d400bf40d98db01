"""The contract of every family of language models, on tiny random weights and a tokenizer of its kind.

CI runs it for one family of each kind of positions, attention and tokenizer; ``-m slow`` runs it for the others.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from language_models import TINY

from recbole_alt.families import FAMILIES

pytest.register_assert_rewrite("language_model_contract")

from language_model_contract import LanguageModelContract  # noqa: E402


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``folders("bert")`` → the folder of that family's tiny model."""
    made: dict[str, str] = {}

    def folder(kind: str) -> str:
        if kind not in made:
            made[kind] = TINY[kind].save(tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


class TestBERT(LanguageModelContract):
    kind = "bert"


@pytest.mark.slow
class TestRoBERTa(LanguageModelContract):
    kind = "roberta"


@pytest.mark.slow
class TestXLMRoBERTa(LanguageModelContract):
    kind = "xlm-roberta"


@pytest.mark.slow
class TestDistilBERT(LanguageModelContract):
    kind = "distilbert"
    longest = 512


@pytest.mark.slow
class TestALBERT(LanguageModelContract):
    kind = "albert"
    longest = 512
    shared_layers = True
    checkpointing = False


@pytest.mark.slow
class TestELECTRA(LanguageModelContract):
    kind = "electra"
    longest = 512


@pytest.mark.slow
class TestMPNet(LanguageModelContract):
    kind = "mpnet"
    checkpointing = False


class TestDeBERTaV2(LanguageModelContract):
    kind = "deberta-v2"
    longest = 512
    position_table = False


class TestModernBERT(LanguageModelContract):
    kind = "modernbert"
    longest = 8192
    position_table = False
    final_norm = "final_norm"


class TestGPT2(LanguageModelContract):
    kind = "gpt2"
    final_norm = "ln_f"
    adds_mask = True


@pytest.mark.slow
class TestQwen2(LanguageModelContract):
    kind = "qwen2"
    position_table = False
    final_norm = "norm"
    adds_mask = True


class TestQwen3(LanguageModelContract):
    kind = "qwen3"
    position_table = False
    final_norm = "norm"
    adds_mask = True


@pytest.mark.slow
class TestLlama(LanguageModelContract):
    kind = "llama"
    position_table = False
    final_norm = "norm"
    adds_mask = True


def test_every_family_has_its_contract() -> None:
    tested = {contract.kind for contract in LanguageModelContract.__subclasses__()}
    assert tested == set(FAMILIES) == set(TINY)
