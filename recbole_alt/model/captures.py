"""What is read off one forward of a CTR model: where its representation is, and its logit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_alt.model.recording import CapturePoint, recording

#: The flattened embeddings of all fields, of every model that calls RecBole's method for them.
FIELD_EMBEDDINGS = CapturePoint("concat_embed_input_fields", "result")


@dataclass(frozen=True)
class Captures:
    """What is read off one forward of a RecBole model.

    Attributes:
        representation: its parts, concatenated.
        logits: where the logit is; None if ``forward`` returns it, [B].
        field_embeddings: a wider view of the same row, which ``join_field_embeddings`` adds to the representation;
            None for a model that scores no field embeddings.
        join: True if it is added unless the configuration says otherwise, as where the representation is a sum over
            pairs of fields, which no longer tells which field had which value: what alignment asks.
        tables: path of the part that embeds the fields in tables named as RecBole names them; empty for the model.
        note: what a user should know; for the docs.
    """

    representation: tuple[CapturePoint, ...]
    logits: CapturePoint | None = None
    field_embeddings: CapturePoint | None = FIELD_EMBEDDINGS
    join: bool = False
    tables: str = ""
    note: str = ""


def _input(*modules: str, note: str = "") -> Captures:
    return Captures(tuple(CapturePoint(module) for module in modules), note=note)


def _kd_dagfm(model: Any) -> Captures:
    """Of the network its phase trains: the teacher, or the student."""
    distilled = model.phase == "distillation"  # RecBole cuts the embeddings off the graph, and so must a view of them
    network = "teacher_network" if model.phase == "teacher_training" else "student_network"
    if isinstance(getattr(model, network).linear, nn.Module):
        points = [CapturePoint(f"{network}.linear")]
    else:  # a CIN teacher multiplies with a bare matrix
        layers = len(model.teacher_network.cin)
        points = [CapturePoint(f"{network}.cin.{i}", "output", "sum_embedding") for i in range(layers)]
    return Captures(
        tuple(points),
        logits=CapturePoint(f"{network}.logits", "attribute"),
        field_embeddings=replace(FIELD_EMBEDDINGS, reduce="fixed") if distilled else FIELD_EMBEDDINGS,
        join=network == "student_network",
        note="`phase` chooses the teacher or the student, whose embeddings are joined; `distillation` keeps them fixed",
    )


#: What to read off each RecBole model; a function where that depends on how it was built.
CAPTURES: dict[str, Captures | Callable[[Any], Captures]] = {
    "AFM": Captures((CapturePoint("dropout_layer", "output"),), join=True),
    "AutoInt": _input("attn_fc", "deep_predict_layer"),
    "DCN": _input("predict_layer"),
    "DCNV2": Captures(
        (CapturePoint("predict_layer"),),
        logits=CapturePoint("predict_layer", "output"),
        note="`structure` parallel or stacked, `mixed` or not",
    ),
    "DSSM": Captures(
        (CapturePoint("user_mlp_layers", "output"), CapturePoint("item_mlp_layers", "output")),
        field_embeddings=CapturePoint("embed_input_fields", "result"),
        note="sees the fields of users and items, not those of the interaction",
    ),
    "DeepFM": _input("deep_predict_layer"),
    "EulerNet": _input("reg", note="`reg` is called for the real and for the imaginary part"),
    "FFM": Captures(
        (CapturePoint("ffm", "output", "sum_pairs"),),
        field_embeddings=CapturePoint("ffm", "output"),
        join=True,
        tables="ffm",
        note="each pair of fields has its own embeddings; the products of the pairs are joined",
    ),
    "FM": Captures((CapturePoint("fm", "input", "bi_interaction"),), join=True),
    "FNN": _input("predict_layer"),
    "FiGNN": _input("mlp2"),
    "FwFM": Captures(
        (CapturePoint("dropout_layer", "output"),),
        join=True,
        note="its field weights are trained and saved, unlike RecBole's",
    ),
    "KD_DAGFM": _kd_dagfm,
    "LR": Captures(
        (CapturePoint("first_order_linear", "terms"),),
        field_embeddings=None,
        tables="first_order_linear",
        note="one number per field: what that field adds to the logit",
    ),
    "NFM": _input("predict_layer"),
    "PNN": _input("predict_layer", note="`use_inner`, `use_outer` or both"),
    "WideDeep": _input("deep_predict_layer"),
    "xDeepFM": _input("cin_linear", "mlp_layers.mlp_layers.-2"),
}


def captures_of(model: Any, example: Interaction) -> Captures:
    """What to read off ``model``: declared by its class, known for its name, or found.

    A class declares by an attribute ``captures``. Otherwise, for a class RecBole does not have, the inputs of the
    linear layers with one output that its forward calls (first-order terms apart) are taken; failing that, its field
    embeddings. ``example`` holds a few joined rows.

    Raises:
        ValueError: none of these exist; the message says what to declare.
    """
    declared = getattr(model, "captures", None)
    if isinstance(declared, Captures):
        return declared
    if type(model).__module__.startswith("recbole.") and type(model).__name__ in CAPTURES:
        known = CAPTURES[type(model).__name__]
        return known if isinstance(known, Captures) else known(model)
    last = [
        CapturePoint(name)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == 1 and not name.startswith("first_order_linear")
    ]
    for points in ([p for p in last if reached(model, p, example)], [FIELD_EMBEDDINGS]):
        if points and all(reached(model, point, example) for point in points):
            return Captures(tuple(points), _found_logits(model, points, example))
    name = type(model).__name__
    raise ValueError(
        f"no representation is known or found in {name}: declare it in the class, for instance "
        f'captures = Captures((CapturePoint("name_of_the_last_layer"),)) from recbole_alt.model.captures; '
        f"known are {', '.join(CAPTURES)}"
    )


def _found_logits(model: Any, points: Sequence[CapturePoint], example: Interaction) -> CapturePoint | None:
    """Where the logit is, when the model's ``forward`` already returns what ``predict`` does."""
    predicted = model.predict(example).view(-1)
    if not torch.equal(model.forward(example).view(-1), predicted):
        return None
    for point in points:
        output = CapturePoint(point.module, "output")
        captured: list[list[Tensor]] = [[]]
        if point.side == "input":
            with recording(model, [output], captured):
                model.forward(example)
            if torch.allclose(captured[0][0].view(-1).sigmoid(), predicted):
                return output
    raise ValueError(
        f"{type(model).__name__}.forward returns probabilities and its logit was not found: declare it in the class, "
        'for instance captures = Captures((CapturePoint("last"),), logits=CapturePoint("last", "output"))'
    )


def reached(model: Any, point: CapturePoint, example: Interaction) -> bool:
    """True if a forward of ``model`` passes ``point``, with every row of ``example``."""
    captured: list[list[Tensor]] = [[]]
    with recording(model, [point], captured):
        model.forward(example)
    return bool(captured[0]) and all(len(call) == len(example) for call in captured[0])
