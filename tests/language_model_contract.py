"""What every family of language models must hold; ``tests/test_language_models.py`` has the families."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from language_models import CORPUS
from torch import Tensor, nn

from recbole_alt import pretrained, run_recbole_alt
from recbole_alt.data.masking import masked_tokens
from recbole_alt.data.prompts import PromptTable
from recbole_alt.data.template import build_template
from recbole_alt.families import FAMILIES
from recbole_alt.model.language import LanguageModel, load_language_model

SENTENCES = ["age is 24.", "title is Toy Story. genre is Animation, Comedy.", "genre is Crime.", "gender is unknown."]
TEMPLATE = build_template(None, {"age": "user", "title": "item", "genre": "item"}, scope="interaction")


def prompts(tokenizer: Any, **words: str) -> PromptTable:
    """A table with one value a field."""
    return PromptTable(
        TEMPLATE,
        tokenizer,
        {name: [word] for name, word in words.items()},
        dict.fromkeys(words, lambda rows: np.zeros(len(rows), dtype=np.int64)),
        max_tokens=10_000,
    )


@pytest.mark.usefixtures("one_thread")
class LanguageModelContract:
    """What every family must hold; a subclass names its family."""

    kind: ClassVar[str]
    final_norm: ClassVar[str | None] = None  # what follows the last layer
    shared_layers: ClassVar[bool] = False
    checkpointing: ClassVar[bool] = True
    adds_mask: ClassVar[bool] = False
    longest: ClassVar[int] = 64
    position_table: ClassVar[bool] = True  # or positions of which there are as many as one likes

    @pytest.fixture
    def folder(self, folders: Callable[[str], str]) -> str:
        return folders(self.kind)

    @pytest.fixture
    def load(self, folder: str) -> Callable[..., LanguageModel]:
        return lambda **options: load_language_model(folder, **options).eval()

    @pytest.fixture
    def tokenised(self, folder: str) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
        def tokenise(texts: list[str]) -> tuple[Tensor, Tensor]:
            encoded = pretrained.load_tokenizer(folder)(texts, padding=True, return_tensors="pt")
            return encoded["input_ids"], encoded["attention_mask"]

        return tokenise

    # -- tokenizer -----------------------------------------------------------------------------------------

    def test_joined_pieces_are_the_whole_sentence(self, folder: str) -> None:
        tokenizer = pretrained.load_tokenizer(folder)

        @settings(max_examples=25)
        @given(*[st.text(max_size=8).map(lambda word: " ".join(word.split()) or "x")] * 3)
        def holds(age: str, title: str, genre: str) -> None:
            words = {"age": age, "title": title, "genre": genre}
            batch = prompts(tokenizer, **words).batches([0])[0]
            whole = TEMPLATE.segments[0].text(words)
            assert batch.input_ids[0].tolist() == tokenizer(whole, split_special_tokens=True)["input_ids"]

        holds()

    def test_a_mask_token_is_there_and_has_an_embedding(self, folder: str, load: Callable[..., LanguageModel]) -> None:
        tokenizer = pretrained.load_tokenizer(folder)
        assert (pretrained.added_tokens(tokenizer) == (tokenizer.mask_token_id,)) == self.adds_mask
        assert tokenizer.pad_token_id is not None
        table = load().encoder.get_input_embeddings()
        assert table.num_embeddings > max(tokenizer.mask_token_id, tokenizer.pad_token_id)
        if self.adds_mask:
            before = table.weight[: tokenizer.mask_token_id]
            torch.testing.assert_close(table.weight[tokenizer.mask_token_id], before.mean(0))

    @torch.no_grad()
    def test_a_masked_value_can_not_be_read(self, folder: str, load: Callable[..., LanguageModel]) -> None:
        tokenizer = pretrained.load_tokenizer(folder)
        alike: dict[tuple[int, ...], list[Any]] = {}  # texts whose value has the same tokens in number and place
        for title in sorted(set(" ".join(CORPUS).split())):
            batch = prompts(tokenizer, age="24", title=title, genre="Crime").batches([0])[0]
            alike.setdefault(tuple(batch.field_ids[0].tolist()), []).append(batch)
        hidden = torch.tensor([[False, True, False]])
        seen = []
        for batch in max(alike.values(), key=len)[:2]:
            masked = batch.input_ids.masked_fill(masked_tokens(batch.field_ids, hidden), tokenizer.mask_token_id)
            seen.append((batch.input_ids, masked, load()(masked, batch.attention_mask)[0]))
        (one, one_masked, one_states), (other, other_masked, other_states) = seen
        assert not torch.equal(one, other)
        assert torch.equal(one_masked, other_masked)
        assert torch.equal(one_states, other_states)

    def test_the_weights_of_one_with_a_head_are_read(self, folder: str, tmp_path: Path) -> None:
        import transformers

        copy = shutil.copytree(folder, tmp_path / "with a head")
        kind = transformers.AutoModelForCausalLM if FAMILIES[self.kind].causal else transformers.AutoModelForMaskedLM
        torch.manual_seed(1)
        with_head = kind.from_config(pretrained.load_config(folder))
        with_head.save_pretrained(copy)
        loaded = load_language_model(str(copy)).encoder
        given = getattr(with_head, with_head.base_model_prefix).state_dict()
        assert set(loaded.state_dict()) == set(given)
        for name, weight in loaded.state_dict().items():
            torch.testing.assert_close(weight[: len(given[name])], given[name], rtol=0, atol=0)

    # -- states --------------------------------------------------------------------------------------------

    @torch.no_grad()
    @pytest.mark.parametrize("pooling", ["mean", "last"])
    @pytest.mark.parametrize("copies", [1, 40])  # 160 texts are encoded in groups by length
    def test_padding_never_changes_a_state(
        self, pooling: str, copies: int, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]
    ) -> None:
        model = load(pooling=pooling)
        ids, mask = tokenised(SENTENCES)
        order = torch.randperm(len(ids) * copies, generator=torch.Generator().manual_seed(0)) % len(ids)
        states, pooled = model(ids[order], mask[order])
        assert states.shape == (len(order), ids.shape[1], model.hidden_size)
        assert pooled.shape == (len(order), model.hidden_size)
        for i, sentence in enumerate(SENTENCES):
            alone, alone_pooled = model(*tokenised([sentence]))
            by_hand = alone[0].mean(0) if pooling == "mean" else alone[0, -1]
            torch.testing.assert_close(alone_pooled[0], by_hand, atol=1e-6, rtol=1e-5)
            mine, length = order == i, alone.shape[1]
            torch.testing.assert_close(states[mine, :length], alone.expand(copies, -1, -1), atol=1e-5, rtol=0)
            torch.testing.assert_close(pooled[mine], alone_pooled.expand(copies, -1), atol=1e-5, rtol=0)

    @torch.no_grad()
    def test_what_a_state_sees(self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]) -> None:
        model, (ids, mask) = load(), tokenised([SENTENCES[1]])
        other = ids.clone()
        other[0, 6] = next(token for token in ids[0].tolist() if token != ids[0, 6])
        changed = (model(ids, mask)[0] - model(other, mask)[0]).abs().amax(-1)[0] > 1e-7
        assert changed[6:].all()
        assert changed[:6].any() != FAMILIES[self.kind].causal

    @torch.no_grad()
    def test_first_layers_are_those_of_the_whole_model(
        self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]
    ) -> None:
        ids, mask = tokenised(SENTENCES[:1])
        whole = load().encoder
        hidden = whole(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        expected = hidden[1] if self.final_norm is None else whole.get_submodule(self.final_norm)(hidden[1])
        torch.testing.assert_close(load(layers=1)(ids, mask)[0], expected, atol=1e-6, rtol=1e-5)

    def test_cls_is_for_encoders(self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]) -> None:
        if FAMILIES[self.kind].causal:
            with pytest.raises(ValueError, match="pooling"):
                load(pooling="cls")
        else:
            states, pooled = load(pooling="cls")(*tokenised(SENTENCES))
            assert torch.equal(pooled, states[:, 0])

    def test_the_longest_text_is_known(self, load: Callable[..., LanguageModel]) -> None:
        model = load()
        assert model.max_tokens == self.longest
        if self.position_table:
            ids = torch.full((1, self.longest + 1), 7)
            model(ids[:, :-1], torch.ones_like(ids[:, :-1]))
            with pytest.raises((IndexError, RuntimeError)):
                model(ids, torch.ones_like(ids))

    # -- what is trained -----------------------------------------------------------------------------------

    def test_every_weight_learns(self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]) -> None:
        model = load()
        states, pooled = model(*tokenised(SENTENCES))
        (states.square().mean() + pooled.sum()).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []

    def test_gradient_checkpointing(self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]) -> None:
        if not self.checkpointing:
            with pytest.raises(ValueError, match="gradient_checkpointing"):
                load(gradient_checkpointing=True)
            return
        gradients = []
        for on in (False, True):
            model = load(gradient_checkpointing=on)
            model.train()
            for part in model.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
            model(*tokenised(SENTENCES))[1].square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    def test_frozen_layers(self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]) -> None:
        if self.shared_layers:
            with pytest.raises(ValueError, match="frozen_layers"):
                load(frozen_layers=1)
            return
        model = load(frozen_layers=1)
        model(*tokenised(SENTENCES))[0].square().mean().backward()
        family, encoder = FAMILIES[self.kind], model.encoder
        first, second = encoder.get_submodule(family.layers)
        assert all(p.grad is None for p in first.parameters())
        assert all(p.grad is not None for p in second.parameters())
        assert encoder.get_input_embeddings().weight.grad is None
        assert all(p.requires_grad for p in load(frozen_layers=0).encoder.get_submodule(family.layers).parameters())

    def test_one_that_is_not_trained_repeats(
        self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]
    ) -> None:
        model = load(frozen_layers="all")
        assert model.is_fixed and not load().is_fixed
        assert not load(lora_rank=2).is_fixed and not load(lora_rank=2, frozen_layers="all").is_fixed
        model.train()
        assert torch.equal(model(*tokenised(SENTENCES))[0], model(*tokenised(SENTENCES))[0])  # no dropout

    def test_lora_starts_as_the_model_and_trains_alone(
        self, folder: str, load: Callable[..., LanguageModel], tokenised: Callable[..., Any]
    ) -> None:
        ids, mask = tokenised(SENTENCES)
        plain, model = load(), load(lora_rank=2)
        torch.testing.assert_close(model(ids, mask)[0], plain(ids, mask)[0], atol=1e-6, rtol=1e-5)
        assert all("lora" in n or "token" in n for n, p in model.named_parameters() if p.requires_grad)
        masked = ids.clone()
        masked[:, 1] = pretrained.load_tokenizer(folder).mask_token_id
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model(masked, mask)[0].square().mean().backward()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
        assert changed
        assert all("lora" in name or "token" in name for name in changed)
        if self.adds_mask:  # the embedding of the mask token is learned too
            assert any("lora" not in name for name in changed)

    def test_lora_checkpoint_holds_what_was_trained(
        self, folder: str, load: Callable[..., LanguageModel], tokenised: Callable[..., Any], tmp_path: Path
    ) -> None:
        ids, mask = tokenised(SENTENCES)
        model = load(lora_rank=2)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) / 10)
        holder = nn.ModuleDict({"text": model})  # as it stands in a tower
        state = holder.state_dict()
        trained = {f"text.{name}" for name, p in model.named_parameters() if p.requires_grad}
        assert set(state) == trained | {"text.base_fingerprint"}
        torch.save(state, tmp_path / "adapter.pth")
        again = nn.ModuleDict({"text": load(lora_rank=2)})
        assert not torch.equal(again["text"](ids, mask)[0], model(ids, mask)[0])
        again.load_state_dict(torch.load(tmp_path / "adapter.pth", weights_only=True))
        assert torch.equal(again["text"](ids, mask)[0], model(ids, mask)[0])
        stranger = nn.ModuleDict({"text": load(lora_rank=2)})
        with torch.no_grad():
            base = next(p for p in stranger.parameters() if not p.requires_grad)
            base.add_(1)
        stranger["text"].leave_out_frozen()  # type: ignore[operator]
        with pytest.raises(ValueError, match="another language model"):
            stranger.load_state_dict(state)

    def test_weights_save_and_load(
        self, load: Callable[..., LanguageModel], tokenised: Callable[..., Any], tmp_path: Path
    ) -> None:
        model = load()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) / 10)
        torch.save(model.state_dict(), tmp_path / "model.pth")
        again = load()
        again.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
        assert torch.equal(again(*tokenised(SENTENCES))[0], model(*tokenised(SENTENCES))[0])

    # -- the whole job -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("lora_rank", [None, 2])
    def test_aligns_and_finetunes(
        self, lora_rank: int | None, folder: str, keys: Callable[..., dict[str, Any]]
    ) -> None:
        given = keys(
            language_model=folder,
            lora_rank=lora_rank,
            pretrain_steps=1,
            epochs=1,
            max_text_tokens=64,
            finetune_modes=["joint"],
            plain_baseline=False,
        )
        record = run_recbole_alt("ALT_DCN", "tiny", None, given)["record"]
        assert math.isfinite(record["results"]["joint"]["test"]["logloss"])
        for objective in ("contrastive", "masked_language", "masked_tabular"):
            assert math.isfinite(record["stages"]["pretrain"]["final"][f"loss/{objective}"])
