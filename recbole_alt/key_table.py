"""One table of all keys: what each may be, what it belongs to, and who may change it.

:mod:`recbole_alt.keys` answers questions about it. Defaults are in ``properties/overall.yaml`` and in RecBole's own
property files.
"""

from dataclasses import dataclass
from functools import partial

from recbole_alt.kinds import (
    ANY,
    DROPOUT,
    ENCODING,
    FIELD,
    FLAG,
    SEPARATOR,
    SHARE,
    TEXT,
    Kind,
    choice,
    choices,
    either,
    list_of,
    number,
    parts,
    whole,
)

MODES = ("ctr", "lm", "joint")
STAGES = ("plain", *MODES)

#: What a key belongs to.
DATA = "data"  #: rows, labels, the split, and the fields of either tower
TOWERS = "towers"  #: both towers, or both stages
ALIGNMENT = "alignment"  #: alignment only
FINETUNING = "finetuning"  #: finetuning only
EVALUATION = "evaluation"  #: what is scored, and which epoch is kept
RUN = "run"  #: which stages run
REPORTING = "reporting"  #: neither weights nor scores

_TEXT = ("lm", "joint")
_TABULAR = ("plain", "ctr", "joint")


@dataclass(frozen=True)
class Key:
    """One key of a configuration."""

    kind: Kind  # the values it may have
    about: str  # what it does, in one line
    belongs: str  # DATA, TOWERS, …
    empty: bool = False  # True if it may be empty
    stages: tuple[str, ...] = ()  # those that may override it under ``finetune``
    tunable: bool = True  # True if trials that differ in it can be compared
    objectives: tuple[str, ...] = ()  # of alignment: those that read it; empty for a key that all of them need


_data = partial(Key, belongs=DATA, empty=True, tunable=False)
_features = partial(_data, tunable=True)
_towers = partial(Key, belongs=TOWERS)
_blocks = partial(_towers, empty=True, stages=_TEXT)
_alignment = partial(Key, belongs=ALIGNMENT)
_masking = partial(_alignment, objectives=("masked_language", "masked_tabular"))
_text_masking = partial(_alignment, objectives=("masked_language",))
_table_masking = partial(_alignment, objectives=("masked_tabular",))
_value_scoring = partial(_alignment, objectives=("masked_tabular", "field_prediction"))
_contrast = partial(_alignment, objectives=("contrastive",))
_field_contrast = partial(_alignment, objectives=("field_contrastive",))
_finetuning = partial(Key, belongs=FINETUNING, stages=STAGES)
_evaluation = partial(Key, belongs=EVALUATION, empty=True, tunable=False)
_run = partial(Key, belongs=RUN, empty=True, tunable=False)
_reporting = partial(Key, belongs=REPORTING, empty=True, tunable=False)

_SEED = whole(0, 2**32 - 1)
_POSITIVE, _NOT_NEGATIVE = number(above=0), number(least=0)
_UNSEEN = choice("initial", "zero", "hidden")
_SAMPLING = choice("auto", "block", "shuffle")
_SIDES = choices("user", "item")
_SCHEDULE = choice("constant", "cosine", "linear")
_tower_rate = partial(_finetuning, _NOT_NEGATIVE, empty=True)
_CLIP = parts({"max_norm": _POSITIVE, "norm_type": _POSITIVE}, example="{max_norm: 1.0}", needs=["max_norm"])
#: Objective of alignment → its class, an :class:`~recbole_alt.model.objectives.objective.Objective`; in this order they
#: are built and measured.
OBJECTIVES = {
    "contrastive": "recbole_alt.model.objectives.contrastive.ContrastiveObjective",
    "masked_language": "recbole_alt.model.objectives.masked_language.MaskedLanguageObjective",
    "masked_tabular": "recbole_alt.model.objectives.masked_tabular.MaskedTabularObjective",
    "field_contrastive": "recbole_alt.model.objectives.field_contrastive.FieldContrastiveObjective",
    "field_prediction": "recbole_alt.model.objectives.field_prediction.FieldPredictionObjective",
}
_WEIGHTS = parts(dict.fromkeys(OBJECTIVES, _NOT_NEGATIVE), example="{contrastive: 0.5}")
_NOTHING = Kind("left out", lambda value: False)
_LEVELS = ("debug", "info", "warning", "error", "critical")
_LEVEL = Kind(f"one of {', '.join(_LEVELS)}", lambda v: isinstance(v, str) and v.lower() in _LEVELS, _LEVELS)
_TYPES = Kind(
    "like {user_id: token}, each one of token, float, token_seq, float_seq",
    lambda given: (
        isinstance(given, dict)
        and all(
            isinstance(name, str) and kind in ("token", "float", "token_seq", "float_seq")
            for name, kind in given.items()
        )
    ),
)
_SIDE_COLUMNS = "{user: [...], item: [...], inter: [...]}"

_OF_OTHER_MODELS = (
    "NEG_PREFIX", "ITEM_LIST_LENGTH_FIELD", "LIST_SUFFIX", "MAX_ITEM_LIST_LENGTH", "POSITION_FIELD",
    "HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD", "kg_reverse_r",
    "entity_kg_num_interval", "relation_kg_num_interval", "normalize_embeddings",
)  # fmt: skip
_OF_LAUNCH = ("world_size", "offset", "ip", "port", "local_rank", "single_spec", "verbose", "group_offset")

KEYS: dict[str, Key] = {
    # what runs
    "model": _towers(TEXT, "ALT_<backbone>, or ALT together with backbone", tunable=False),
    "dataset": _data(TEXT, "name of the dataset, its folder and its atomic files", empty=False),
    "backbone": _towers(
        TEXT, "with model ALT: import path of your own CTR model, package.module.Class", empty=True, tunable=False
    ),
    "finetune_modes": _run(choices(*MODES), "modes that are finetuned after the alignment; [] for none"),
    "finetune_mode": _run(choice(*MODES), "mode that stock RecBole trains; empty = the first of finetune_modes"),
    "plain_baseline": _run(FLAG, "also train the plain backbone", empty=False),
    "pretrained_checkpoint": _run(TEXT, "path of a pretrain.pth to use instead of a new alignment"),
    "finetune": _run(ANY, "values for single modes, such as {joint: {epochs: 5}}"),
    "allow_unknown_keys": _reporting(FLAG, "accept keys that neither this package nor RecBole knows"),
    "resume": _reporting(TEXT, "folder of a stopped run to continue, or last"),
    "result_file": _reporting(TEXT, "path of a second copy of result.json"),
    "checkpoint_seconds": _reporting(_NOT_NEGATIVE, "longest time between checkpoints, in seconds", empty=False),
    "text_cache_dir": _reporting(
        TEXT, "folder for states of texts, for later runs; auto = in the user's cache folder; empty = none"
    ),
    "text_cache_gib": _reporting(_POSITIVE, "most GiB in text_cache_dir; the longest unused are deleted", empty=False),
    "checkpoint_dir": _reporting(TEXT, "folder for the folders of all runs", empty=False),
    "show_progress": _reporting(
        FLAG, "show progress: bars on a terminal, elsewhere a line a minute in the log", empty=False
    ),
    "show_plan": _reporting(FLAG, "measure and log what a run will cost, before its first step", empty=False),
    "state": _reporting(_LEVEL, "level of the log", empty=False),
    "log_wandb": _reporting(FLAG, "log the run to Weights & Biases"),
    "wandb_project": _reporting(TEXT, "project in Weights & Biases"),
    "log_mlflow": _reporting(FLAG, "log the run to MLflow", empty=False),
    "worker": _reporting(whole(0), "number of processes that load data", empty=False),
    "gpu_id": _reporting(ANY, "ids of the GPUs that may be used, such as 0"),
    "use_gpu": _reporting(FLAG, "use a GPU if there is one"),
    "data_path": _reporting(TEXT, "folder that contains the dataset's folder", empty=False),
    "config_files": _reporting(ANY, "YAML files, separated by spaces; only on the command line"),
    "loss_decimal_place": _reporting(whole(0), "number of digits of losses in the log", empty=False),
    "seed": _towers(_SEED, "seed of everything random", tunable=True),
    "reproducibility": _towers(FLAG, "use only deterministic algorithms", tunable=False),
    # data
    "load_col": _data(ANY, f"columns the CTR model sees, {_SIDE_COLUMNS}"),
    "unload_col": _data(ANY, f"columns left out, {_SIDE_COLUMNS}"),
    "unused_col": _data(ANY, f"columns that neither the CTR model nor the prompts use, {_SIDE_COLUMNS}"),
    "additional_feat_suffix": _data(ANY, "suffixes of additional atomic files, such as [emb]"),
    "benchmark_filename": _data(ANY, "suffixes of given training, validation and test sets: [train, valid, test]"),
    "field_separator": _data(SEPARATOR, "separator of columns", empty=False),
    "seq_separator": _data(SEPARATOR, "separator of the members of a sequence", empty=False),
    "field_types": _data(_TYPES, "types of Parquet columns whose names have none, such as {user_id: token}"),
    "encoding": _data(ENCODING, "encoding of the atomic files", empty=False),
    "USER_ID_FIELD": _data(FIELD, "name of the column with the user's id"),
    "ITEM_ID_FIELD": _data(FIELD, "name of the column with the item's id"),
    "RATING_FIELD": _data(FIELD, "name of the column with the rating, which no prompt may contain"),
    "TIME_FIELD": _data(FIELD, "name of the column with the timestamp"),
    "LABEL_FIELD": _data(FIELD, "name of the label: 1 for a click, 0 for no click", empty=False),
    "threshold": _data(ANY, "makes the label from another column: with {rating: 4}, 4 and above is a click"),
    "seq_len": _features(ANY, "maximum length of sequences, such as {tags: 5}"),
    "numerical_features": _features(ANY, "float fields that the CTR model reads, such as [price]"),
    "discretization": _features(ANY, "float fields to put into bins, {price: {method: ED, bucket: 20}}"),
    "normalize_field": _features(ANY, "float fields to scale to [0, 1]"),
    "normalize_all": _features(FLAG, "scale all float fields to [0, 1]"),
    "val_interval": _data(ANY, 'rows to keep, by value: {rating: "[1,2];[4,5]", city: [Oslo]}'),
    "filter_inter_by_user_or_item": _data(
        FLAG, "leave out interactions without a row in the .user or .item file", empty=False
    ),
    "user_inter_num_interval": _data(ANY, 'users to keep, by their number of interactions, such as "[5,inf)"'),
    "item_inter_num_interval": _data(ANY, 'items to keep, by their number of interactions, such as "[5,inf)"'),
    "rm_dup_inter": _data(choice("first", "last"), "which of a user's interactions with one item to keep; empty = all"),
    "alias_of_user_id": _data(ANY, "further fields whose values are ids of users"),
    "alias_of_item_id": _data(ANY, "further fields whose values are ids of items"),
    "alias_of_entity_id": _data(ANY, "of RecBole's knowledge models"),
    "alias_of_relation_id": _data(ANY, "of RecBole's knowledge models"),
    "preload_weight": _data(ANY, "columns of an additional file with an id and its vector, {iid: vec}"),
    "train_neg_sample_args": _data(ANY, "negatives drawn in training, such as {distribution: uniform, sample_num: 1}"),
    "train_share": _features(SHARE, "share of the training interactions to use, drawn once"),
    "split_seed": _features(_SEED, "seed of a random split, of train_share and of shuffle_texts; empty = seed"),
    "transform": _data(_NOTHING, "a transformation that only RecBole's sequential models use"),
    # text
    "template": _features(ANY, "wording of the prompts"),
    "prompt_scope": _features(choice("entity", "interaction"), "one text per side, or one per row", empty=False),
    "prompt_only": _features(ANY, "columns that only the language model reads, such as {item: [title]}"),
    "shuffle_texts": _features(choice("item", "user"), "give each the text of another one (a control)"),
    "max_text_tokens": _features(whole(1), "maximum length of a text, in tokens", empty=False),
    # towers
    "language_model": _towers(TEXT, "a folder, a GGUF file, an installed package that contains one, or a hub id"),
    "language_model_layers": _towers(whole(0), "number of layers to use, from the first; empty = all", empty=True),
    "language_model_weights": _towers(choice("pretrained", "random"), "random: do not read the weights (a control)"),
    "language_model_vocabulary": _alignment(choice("prompts", "full"), "word embeddings that alignment trains"),
    "pooling": _towers(choice("mean", "cls", "last"), "how the states of a text's tokens become one state"),
    "precision": _towers(choice("auto", "fp32", "bf16", "fp16"), "number format of the encoder; auto = the fastest"),
    "compile_language_model": _towers(FLAG, "compile the layers of a language model that is trained, by torch.compile"),
    "encoder_runtime": _towers(
        choice("torch", "onnx"), "what runs a language model that is not trained; onnx = ONNX Runtime, in 32 bits"
    ),
    "gradient_checkpointing": _towers(FLAG, "use less memory and more time"),
    "frozen_layers": _towers(
        either(whole(0), "all", "auto"), "first layers that are not trained; auto = all without a GPU", empty=True
    ),
    "lora_rank": _towers(whole(1), "train LoRA adapters of this rank instead of the language model", empty=True),
    "lora_alpha": _towers(whole(1), "scale of the LoRA adapters; empty = 2 * lora_rank", empty=True),
    "join_field_embeddings": _towers(
        FLAG, "add field embeddings to the representation in alignment; empty = as the backbone needs", empty=True
    ),
    "text_field": _towers(
        _SIDES, "sides whose frozen text vectors are one more field of the CTR model", empty=True, stages=("plain",)
    ),
    "grounded": _towers(
        _SIDES,
        "sides whose embeddings are a free part plus a linear map of their frozen text vectors",
        empty=True,
        stages=_TABULAR,
    ),
    "grounding_rate": _towers(
        _POSITIVE,
        "learning rate of the maps of grounded, as a multiple of the CTR model's; empty = 0.3, and 1 of LR",
        empty=True,
        stages=_TABULAR,
    ),
    "text_vector_size": _towers(whole(1), "principal components in a frozen text vector; empty = all", empty=True),
    "clip_grad_norm": _towers(_CLIP, "maximum norm of the gradient", empty=True, stages=STAGES),
    "embedding_optimizer": _towers(
        choice("dense", "rowwise"),
        "rowwise: the cost of a step does not grow with the CTR model's embedding tables, which have one second moment "
        "per row",
        stages=_TABULAR,
    ),
    "batch_sampling": _towers(_SAMPLING, "block: rows that share texts; auto: where a step encodes any", stages=_TEXT),
    "block_texts": _blocks(whole(2), "users and items in a block, about; empty = up to 768"),
    "block_users": _blocks(whole(1), "users in a block, about; empty = found by trial"),
    "block_items": _blocks(whole(1), "items in a block, about; empty = the rest"),
    # alignment
    "objectives": _alignment(choices(*OBJECTIVES), "objectives of the alignment"),
    "objective_weights": _alignment(_WEIGHTS, "weights of the objectives; 1 if not given", empty=True),
    "pretrain_steps": _alignment(
        either(whole(0), "auto"), "most optimiser steps; auto = pretrain_epochs, or from the data", empty=True
    ),
    "pretrain_epochs": _alignment(whole(0), "length in epochs", empty=True),
    "pretrain_stopping_step": _alignment(
        either(whole(0), "auto"),
        "measurements on rows held out of training without improvement after which alignment ends; empty or 0 = none "
        "are held out; auto = 3 where the data give the steps",
        empty=True,
    ),
    "pretrain_batch_size": _alignment(
        whole(2), "most rows in a step; empty = 6000 in blocks; 2048, or 128 if it encodes texts, shuffled", empty=True
    ),
    "pretrain_learning_rate": _alignment(_POSITIVE, "learning rate of the backbone and of the objectives' heads"),
    "pretrain_language_learning_rate": _alignment(
        _NOT_NEGATIVE, "learning rate of the language model; empty = pretrain_learning_rate", empty=True
    ),
    "pretrain_weight_decay": _alignment(_NOT_NEGATIVE, "decoupled weight decay (AdamW)"),
    "pretrain_schedule": _alignment(_SCHEDULE, "schedule of the learning rates"),
    "pretrain_warmup_ratio": _alignment(number(least=0, most=1), "share of steps with rising learning rates"),
    "mask_ratio": _masking(SHARE, "share of the fields that are masked"),
    "mask_level": _text_masking(choice("field", "token"), "whether whole fields or single tokens of a text are masked"),
    "mask_fields": _masking(choice("independent", "shared"), "shared: mask the same fields in text and table"),
    "mask_texts": _masking(whole(1), "most texts of a segment that are masked in a step; empty = all", empty=True),
    "contrast_head": _contrast(choice("batchnorm", "published"), "with BatchNorm, or as published"),
    "contrast_temperature": _contrast(_POSITIVE, "empty = 0.07 (batchnorm) or 0.7 (published)", empty=True),
    "contrast_size": _contrast(whole(1), "width of the contrastive projections"),
    "contrast_rows": _alignment(
        whole(2),
        "number of rows of a batch that are contrasted; empty = all",
        empty=True,
        objectives=("contrastive", "field_contrastive"),
    ),
    "aligned_fields": _alignment(
        list_of(FIELD, example="[item_id]"),
        "fields of field_contrastive and field_prediction; empty = all",
        empty=True,
        objectives=("field_contrastive", "field_prediction"),
    ),
    "field_temperature": _field_contrast(_POSITIVE, "temperature of field_contrastive"),
    "masked_language_positions": _text_masking(
        whole(1), "most masked tokens that a step predicts, of all it masks; empty = all", empty=True
    ),
    "masked_language_vocabulary": _text_masking(choice("prompts", "full"), "tokens to score: those in prompts, or all"),
    "masked_tabular_loss": _value_scoring(
        choice("nce", "sampled_softmax", "full_softmax"), "loss on masked table values"
    ),
    "masked_tabular_noise": _value_scoring(whole(1), "number of noise values of nce and sampled_softmax"),
    "masked_tabular_size": _table_masking(whole(1), "width of the embeddings of masked values"),
    "float_target_bins": _table_masking(whole(2), "number of quantile bins in which a masked number is predicted"),
    # finetuning
    "epochs": _finetuning(either(whole(0), "auto"), "maximum number of epochs; auto = from the data"),
    "train_batch_size": _finetuning(either(whole(2), "auto"), "rows in a step; auto = from the data"),
    "learner": _finetuning(choice("adam", "adamw", "sgd", "adagrad", "rmsprop"), "optimiser"),
    "learning_rate": _finetuning(_POSITIVE, "learning rate of all parameters without one of their own"),
    "weight_decay": _finetuning(_NOT_NEGATIVE, "weight decay of all parameters without one of their own"),
    "embedding_learning_rate": _tower_rate("rate of the embeddings; empty = learning_rate", stages=_TABULAR),
    "embedding_weight_decay": _tower_rate("decay of the embeddings; empty = weight_decay", stages=_TABULAR),
    "language_learning_rate": _tower_rate("learning rate of the language model; empty = learning_rate", stages=_TEXT),
    "language_weight_decay": _tower_rate("weight decay of the language model; empty = weight_decay", stages=_TEXT),
    "freeze_language_model": _finetuning(FLAG, "train only the layers after the encoder", stages=_TEXT),
    "text_batch_size": _finetuning(whole(2), "most rows in a step that trains the encoder", empty=True, stages=_TEXT),
    "fast_kernels": _finetuning(
        FLAG, "without a GPU, train the CTR model with faster kernels, whose results are rounded otherwise"
    ),
    "schedule": _finetuning(_SCHEDULE, "schedule of the learning rates", empty=True),
    "warmup_ratio": _finetuning(number(least=0, most=1), "share of steps with rising learning rates", empty=True),
    "eval_step": _finetuning(whole(0), "number of epochs between validations; 0 = no validation"),
    "stopping_step": _finetuning(whole(0), "number of validations without improvement after which training stops"),
    "shuffle": _finetuning(FLAG, "draw the training rows in random order"),
    "enable_amp": _finetuning(FLAG, "RecBole's mixed precision"),
    "enable_scaler": _finetuning(FLAG, "RecBole's gradient scaler"),
    "transfer": _finetuning(choice("all", "embeddings"), "taken from the aligned backbone", stages=("ctr", "joint")),
    "decay_towards": _finetuning(choice("zero", "aligned"), "target of weight_decay", stages=MODES),
    "unseen_values": _finetuning(_UNSEEN, "what values without a training row start as", stages=_TABULAR),
    "require_pow": _finetuning(FLAG, "of RecBole's embedding loss", stages=_TABULAR),
    # evaluation
    "eval_args": _data(ANY, "{split: {RS: [0.8, 0.1, 0.1]}, order: RO, group_by: ~, mode: labeled}", empty=False),
    "eval_batch_size": _evaluation(whole(1), "rows that are scored at a time", empty=False),
    "metrics": _evaluation(ANY, "metrics to report, such as [AUC, LogLoss]", empty=False),
    "topk": _evaluation(ANY, "cut-offs of ranking metrics, such as [10]"),
    "valid_metric": _evaluation(TEXT, "the metric that chooses the epoch", empty=False),
    "valid_metric_bigger": _evaluation(FLAG, "true if larger is better; normally follows from valid_metric"),
    "metric_decimal_place": _evaluation(whole(0), "digits to which metrics are rounded to compare epochs", empty=False),
    "repeatable": _evaluation(FLAG, "of RecBole's ranking evaluation"),
    # RecBole's CTR models
    "embedding_size": _towers(whole(1), "width of the field embeddings"),
    "mlp_hidden_size": _towers(list_of(whole(1), example="[300, 300, 128]"), "widths of the deep layers"),
    "dropout_prob": _towers(DROPOUT, "dropout rate", stages=_TABULAR),
    "dropout_probs": _towers(list_of(DROPOUT, example="[0.2, 0.2, 0.2]"), "dropout (AutoInt)", stages=_TABULAR),
    "hidden_dropout_prob": _towers(DROPOUT, "dropout rate (FiGNN)", stages=_TABULAR),
    "attn_dropout_prob": _towers(DROPOUT, "dropout rate of attention (FiGNN)", stages=_TABULAR),
    "drop_ex": _towers(DROPOUT, "dropout rate of modulus and phase (EulerNet)", stages=_TABULAR),
    "drop_im": _towers(DROPOUT, "dropout rate of real and imaginary parts (EulerNet)", stages=_TABULAR),
    "reg_weight": _towers(_NOT_NEGATIVE, "weight of the L2 penalty", stages=_TABULAR),
    "cross_layer_num": _towers(whole(1), "number of cross layers (DCN, DCNV2)"),
    "mixed": _towers(FLAG, "use a mixture of experts (DCNV2)"),
    "structure": _towers(choice("stacked", "parallel"), "arrangement of cross and deep network (DCNV2)"),
    "expert_num": _towers(whole(1), "number of experts (DCNV2)"),
    "low_rank": _towers(whole(1), "rank of the cross layers' matrices (DCNV2)"),
    "attention_size": _towers(whole(1), "width of attention (AFM, AutoInt, FiGNN)"),
    "n_layers": _towers(whole(1), "number of attention layers (AutoInt, FiGNN)"),
    "num_heads": _towers(whole(1), "number of attention heads (AutoInt, FiGNN)"),
    "cin_layer_size": _towers(list_of(whole(1), example="[100, 100]"), "widths of the interaction layers (xDeepFM)"),
    "direct": _towers(FLAG, "pass every feature map on to the output and to the next layer (xDeepFM)"),
    "use_inner": _towers(FLAG, "use inner products (PNN)"),
    "use_outer": _towers(FLAG, "use outer products (PNN)"),
    "fields": _towers(ANY, "groups of fields (FFM, FwFM)", empty=True),
    "double_tower": _towers(FLAG, "RecBole's mark of a model with two towers (DSSM)", empty=True),
    "teacher": _towers(choice("CrossNet", "CIN"), "teacher network (KD_DAGFM)"),
    "phase": _towers(choice("teacher_training", "distillation", "finetuning"), "phase of training (KD_DAGFM)"),
    "type": _towers(choice("inner", "outer"), "interactions of the student (KD_DAGFM)"),
    "t_depth": _towers(whole(1), "depth of the teacher (KD_DAGFM)"),
    "depth": _towers(whole(1), "depth of the student (KD_DAGFM)"),
    "alpha": _towers(_NOT_NEGATIVE, "weight of distillation (KD_DAGFM)", stages=_TABULAR),
    "beta": _towers(_NOT_NEGATIVE, "weight of the loss on clicks (KD_DAGFM)", stages=_TABULAR),
    "warm_up": _towers(ANY, "checkpoint of the previous phase (KD_DAGFM)", empty=True),
    "t_cin": _towers(list_of(whole(1), example="[200, 200, 200]"), "widths of the teacher CIN (KD_DAGFM)"),
    "order_list": _towers(list_of(whole(1), example="[30]"), "numbers of order vectors (EulerNet)"),
    "apply_norm": _towers(FLAG, "use layer normalisation (EulerNet)"),
    # RecBole's keys that no CTR model reads
    **dict.fromkeys(_OF_OTHER_MODELS, _data(ANY, "of RecBole's other models")),
    "nproc": _reporting(whole(1), "number of processes that are started on this machine to train together"),
    **dict.fromkeys(_OF_LAUNCH, _reporting(ANY, "of RecBole's launch of several processes")),
}

#: Derived by RecBole from other keys; part of a configuration, never given.
DERIVED = frozenset({"MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "device", "valid_neg_sample_args",
                     "test_neg_sample_args"})  # fmt: skip
