"""What an encoder of Hugging Face needs on a GPU, so that the caller never waits for it."""

from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from recbole_alt.families import family_of, layers_of

#: The name under which transformers knows what :func:`never_wait` sets.
_NAME = "sdpa_with_mask"


def never_wait(encoder: Any) -> None:
    """Let ``encoder`` make an attention mask for every batch, in place, if it attends by torch's function for it.

    By default it asks the GPU whether anything is padded, and leaves the mask out if nothing is. The answer comes when
    all work that was given to the GPU before is done, which then has none.
    """
    if getattr(encoder.config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(_NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(_NAME, _always_mask)
    encoder.set_attn_implementation(_NAME)


def _always_mask(*args: Any, **options: Any) -> Tensor | None:
    return sdpa_mask(*args, **options | {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


def compile_layers(encoder: Any) -> None:
    """Compile each layer of ``encoder``, in place, for batches of any shape: equal layers share what is compiled.

    Raises:
        ValueError: its layers can't be found.
    """
    for layer in layers_of(encoder, family_of(encoder), "compile_language_model"):
        layer.compile(dynamic=True)
