"""ReDSM5's sections of the configuration: data, model, training. The others are the engine's (engine/sections.py).

A conditional field (focal_gamma, with a focal loss) is required where its condition holds, and refused where it does
not. `redsm5/config.py` joins the sections.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from redsm5.engine.errors import ConfigError
from redsm5.engine.sections import Form, Fraction, Section, Seed, TrainingLoop

# The scores and losses that a trial logs after each epoch, and a study may optimize.
CRITERIA_METRICS: tuple[str, ...] = ("accuracy", "f1_macro", "f1_micro", "f1_weighted")
CRITERIA_METRICS += ("precision_macro", "recall_macro", "macro_pr_auc")
EVIDENCE_METRICS = ("exact_match", "f1", "char_f1", "char_precision", "char_recall", "null_span_accuracy")
VALIDATION_METRICS = (*(f"val_{m}" for m in CRITERIA_METRICS), *(f"val_evidence_{m}" for m in EVIDENCE_METRICS))

LOSS = "val_loss"

FOCAL_FAMILY = ("focal", "adaptive_focal", "hybrid")
HEADS_WITH_HIDDEN_LAYER = ("mlp", "mlp_residual", "gated")
AUTHORS_TEST_FRACTION = 0.2
Column = Literal["post_id", "text", "sentence_id", "sentence_text", "DSM5_symptom", "status", "annotations"]
# For each conditional field: the field on which it depends, and whether a value of that field requires it.
CONDITIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "model.criteria_hidden_dim": ("model.criteria_head_type", HEADS_WITH_HIDDEN_LAYER.__contains__),
    "model.coupling_method": ("model.task_coupling", ("coupled",).__contains__),
    "model.coupling_pooling": ("model.task_coupling", ("coupled",).__contains__),
    "train.hybrid_weight_alpha": ("train.loss_function", ("hybrid",).__contains__),
    "train.focal_gamma": ("train.loss_function", FOCAL_FAMILY.__contains__),
    "train.augmentation.probability": ("train.augmentation.methods", bool),
}

Revision = Annotated[str, Form(r"[\w./-]+", "letters, digits, dots, underscores, slashes and hyphens")]
DatasetId = Annotated[
    str, Form(r"[\w.-]+/[\w.-]+", "OWNER/NAME, each of letters, digits, dots, underscores and hyphens")
]


def require(key: str, value: Any, needed: bool, because: str) -> None:
    """Refuse a field that is missing although its condition holds, or given although it does not hold."""
    if needed and value is None:
        raise ConfigError(f"{key} is required by {because}", remedy=f"Add {key}=...")
    if not needed and value is not None:
        raise ConfigError(f"{key}={value} has no effect with {because}", remedy=f"Leave {key} out.")


def _check_conditions(section: Section, name: str) -> None:
    for key, (parent, asks) in CONDITIONS.items():
        if key.rpartition(".")[0] == name:
            value = getattr(section, parent.rpartition(".")[2])
            shown = "+".join(value) or "[]" if isinstance(value, list) else value
            require(key, getattr(section, key.rpartition(".")[2]), asks(value), f"{parent}={shown}")


class DataConfig(Section):
    """Where the posts come from, how they are split, and how long ones are read.

    Attributes:
        source: `synthetic` invents posts, `csv` reads the two files of ReDSM5, `hub` gets them from the Hugging Face
            Hub, `dataset` reads what the datasets library loads (docs/own-data.md).
        dir: with csv, the folder of the files.
        path: with dataset, a local file or folder.
        columns: with dataset, the names of columns there, by ours.
        posts, seed: with synthetic, how many posts, and from which seed.
        repo_id: with hub, the dataset. revision: a commit, tag or branch of it.
        test_split: the test posts are drawn `stratified`, or as ReDSM5's `authors` drew them (docs/results.md).
        split_seed, validation_fraction, test_fraction: the split by post, stratified over the nine symptoms.
        validation_seed: splits the posts that are not test posts anew into training and validation; null: split_seed.
        folds: a trial trains so many models, each on all but one fold of the posts that are not test posts; what it
            scores is all folds' predictions together. null: one model, and one validation split.
        group_duplicates: copies and near-copies of a post stay in one split.
        alignment: how an edited sentence is found in its post: by its `words`, and not where a negation differs; or as
            a `window` of its length, as versions before 0.2.0 did.
        long_posts: `window` reads a post that is longer than the encoder's window in several windows; `truncate` cuts
            it and reports how much evidence is lost.
        window_overlap: the share of a window's tokens that the window before it has, too.
    """

    source: Literal["synthetic", "csv", "hub", "dataset"]
    dir: str | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    columns: dict[Column, Annotated[str, Field(min_length=1)]] | None = None
    posts: Annotated[int, Field(ge=60, le=1_000_000)] | None = None
    seed: Seed | None = None
    repo_id: DatasetId | None = None
    revision: Revision | None = None
    test_split: Literal["stratified", "authors"]
    split_seed: Seed
    validation_seed: Seed | None = None
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    group_duplicates: bool
    alignment: Literal["words", "window"]
    long_posts: Literal["truncate", "window"]
    window_overlap: Annotated[float, Field(ge=0, le=0.9)]

    @model_validator(mode="after")
    def _fields_fit_source(self) -> Self:
        fields_of = {"csv": "dir", "synthetic": "posts seed", "hub": "repo_id revision", "dataset": "path columns"}
        for source, fields in fields_of.items():
            for field in fields.split():
                require(f"data.{field}", getattr(self, field), self.source == source, f"data.source={self.source}")
        return self

    @model_validator(mode="after")
    def _authors_can_be_followed(self) -> Self:
        if self.test_split == "authors" and self.source not in ("csv", "synthetic"):
            raise ConfigError(
                f"data.test_split=authors with data.source={self.source}: their test posts depend on the order of rows",
                remedy="Use data=csv with the folder of redsm5_posts.csv.",
            )
        if self.test_split == "authors" and self.test_fraction != AUTHORS_TEST_FRACTION:
            raise ConfigError(
                f"data.test_fraction={self.test_fraction} with data.test_split=authors: they test on "
                f"{AUTHORS_TEST_FRACTION} of the posts",
                remedy="Leave data.test_fraction out.",
            )
        return self


class ModelConfig(Section):
    """The encoder and its two heads.

    Attributes:
        model_id: a Hub id, a local folder, `tiny`, or `minilm`, which `just sample-model` unpacks. revision: a commit,
            tag or branch of a Hub id; null: main.
        max_length: the window, in tokens.
        input_format: `multi_label` reads a post once for all nine symptoms; `binary_pairs` reads it once with each
            symptom's description (the section `symptoms`), for one prediction each.
        criteria_head_type: from the post's vector to a logit for each symptom.
        criteria_pooling: how that vector is made of the encoder's states; `last_2_layer_mix` mixes its last two layers.
        criteria_dropout, evidence_dropout: the dropout of the head.
        evidence_head_type: how evidence is found: by its first and last token (`start_end_linear`, `start_end_mlp`,
            `biaffine`), by tags of the tokens (`bio_crf`), or among the post's sentences (`sentence_reranker`).
        criteria_hidden_dim: the hidden size of the heads with a hidden layer (mlp, mlp_residual, gated).
        max_span_tokens: the longest evidence span; without effect on bio_crf and sentence_reranker.
        task_coupling: whether the criteria head also reads what the evidence head reads.
        coupling_method, coupling_pooling: with task_coupling=coupled, how the evidence head's representation of the
            post is joined with the criteria head's.
        activation: the activation of all heads that have one; swish is another name of silu.
        attention: the encoder's attention implementation. dtype: the data type of the encoder's weights.
        gradient_checkpointing: compute the encoder's states again in the backward pass: less memory, more time.
        frozen_layers: the number of lowest layers that are not trained, together with the embeddings; 0 trains all.
    """

    model_id: Annotated[str, Field(min_length=1)]
    revision: Revision | None = None
    max_length: Annotated[int, Field(ge=8, le=8192, multiple_of=8)]
    input_format: Literal["multi_label", "binary_pairs"]
    criteria_head_type: Literal["linear", "mlp", "mlp_residual", "gated", "multi_sample_dropout"]
    criteria_pooling: Literal["cls", "mean", "attention", "last_2_layer_mix"]
    criteria_hidden_dim: Annotated[int, Field(ge=8, le=8192)] | None = None
    criteria_dropout: Fraction
    evidence_head_type: Literal["start_end_linear", "start_end_mlp", "biaffine", "bio_crf", "sentence_reranker"]
    evidence_dropout: Fraction
    max_span_tokens: Annotated[int, Field(ge=1, le=512)]
    task_coupling: Literal["independent", "coupled"]
    coupling_method: Literal["concat", "add", "mean", "weighted_sum", "weighted_mean"] | None = None
    coupling_pooling: Literal["mean", "max", "attention"] | None = None
    activation: Literal["gelu", "silu", "swish", "relu", "leakyrelu", "mish", "tanh"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool
    frozen_layers: Annotated[int, Field(ge=0, le=1000)]

    @model_validator(mode="after")
    def _conditional_fields(self) -> Self:
        _check_conditions(self, "model")
        return self


class TaskWeights(Section):
    """The weights of the two tasks in the summed loss.

    Attributes:
        criteria, evidence: the weight of the head's loss.
    """

    criteria: Annotated[float, Field(ge=0.5, le=2)]
    evidence: Annotated[float, Field(ge=0.5, le=2)]


AugmentationMethod = Literal["synonym", "insert", "swap", "back_translation", "char_perturb"]


def _split_methods(value: object) -> object:
    """Split a set of methods as a search proposes it: names joined by +, or an empty string for none."""
    return [name for name in value.split("+") if name] if isinstance(value, str) else value


class AugmentationConfig(Section):
    """Changes to evidence sentences of training posts, drawn anew in each epoch.

    Attributes:
        methods: one of these is drawn for each sentence to be changed; none: no augmentation. May also be written
            joined by +.
        probability: the probability that a sentence is changed in an epoch.
        translation_models: with back_translation, two seq2seq models for the forward and backward translation (Hub ids
            or folders).
    """

    methods: Annotated[list[AugmentationMethod], BeforeValidator(_split_methods)]
    probability: Annotated[float, Field(ge=0, le=0.5)] | None = None
    translation_models: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _fields_fit_methods(self) -> Self:
        key, names = "train.augmentation", "+".join(self.methods) or "[]"
        _check_conditions(self, key)
        if "back_translation" in self.methods and self.translation_models is None:
            require(f"{key}.translation_models", None, True, f"{key}.methods={names}")
        if len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"{key}.methods={names} names a method twice", remedy="Name each once.")
        return self


class TrainConfig(TrainingLoop):
    """Optimization, loss and thresholds.

    Attributes:
        batch_size: posts per batch, over all processes of the trial together: each process takes its share, so the
            value means the same on any machine. With binary_pairs, pairs of a post and a symptom.
        group_by_length: put posts of similar length into a batch: less padding, but batches that differ more.
        max_tokens: limit of a micro-batch, padding included, in one process. A larger batch is split into
            length-bucketed micro-batches with the same total loss and gradient; the windows of one post are not split.
            null: no limit.
        part_cost: fixed cost of a micro-batch, in tokens: a batch, and the windows of a micro-batch, are also split if
            that saves more padding than it costs. null: 32 on a CPU; on a GPU, batches are not split to save padding.
        accumulation_steps: batches per optimizer step; nearly as one larger batch, but evidence losses are means over
            each of them.
        optimizer: `adamw`, or `adam`, whose weight decay is part of the gradient.
        learning_rate: the heads' rate.
        differential_lr_ratio: the rate of the encoder's top layer, as a share of the heads'.
        layer_wise_lr_decay: the rate of each of the encoder's other layers, as a share of the layer's above.
        weight_decay: of weights; biases and normalization are not decayed.
        warmup_ratio: the share of the steps in which the rate rises.
        schedule: how the rate falls to 0 afterwards.
        max_grad_norm: gradients of a larger norm are scaled down to it.
        adversarial_epsilon: the norm of the adversarial perturbation of the embeddings; 0: none.
        loss_function: of the criteria head: binary cross-entropy (`bce`), with rare symptoms weighted up
            (`weighted_bce`), one of two focal losses, or a mixture of bce and focal (`hybrid`).
        label_smoothing: the share by which labels are moved towards one half.
        hybrid_weight_alpha: the share of bce in the hybrid loss. focal_gamma: gamma of the focal losses.
        class_weights: weight each symptom's loss by its rarity in the training split.
        thresholds: chosen on the validation split, one for all symptoms (`global`) or one each (`per_class`); `fixed`:
            0.5.
        mixed_precision: `fp16` needs a GPU; `bf16` is slow on a CPU without instructions for it.
        deterministic: use deterministic algorithms, without which a resumed trial may differ.
        compile: compile the encoder's layers, which takes a minute at each start; after a resume, the last digits may
            differ.
    """

    batch_size: Annotated[int, Field(ge=1, le=1024)]
    group_by_length: bool
    max_tokens: Annotated[int, Field(ge=8)] | None = None
    part_cost: Annotated[int, Field(ge=0)] | None = None
    accumulation_steps: Annotated[int, Field(ge=1, le=1024)]
    optimizer: Literal["adamw", "adam"]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    warmup_ratio: Fraction
    schedule: Literal["linear", "cosine"]
    layer_wise_lr_decay: Annotated[float, Field(gt=0, le=1)]
    differential_lr_ratio: Annotated[float, Field(gt=0, le=1)]
    adversarial_epsilon: Annotated[float, Field(ge=0, le=1)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    loss_function: Literal["bce", "weighted_bce", "focal", "adaptive_focal", "hybrid"]
    hybrid_weight_alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    focal_gamma: Annotated[float, Field(ge=0, le=10)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    class_weights: bool
    task_weights: TaskWeights
    augmentation: AugmentationConfig
    thresholds: Literal["fixed", "global", "per_class"]
    mixed_precision: Literal["no", "fp16", "bf16"]
    compile: bool
    deterministic: bool

    @model_validator(mode="after")
    def _conditional_fields(self) -> Self:
        _check_conditions(self, "train")
        return self
