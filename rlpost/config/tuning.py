"""Which parameters of a model are trained, and with which optimizer."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from rlpost.config.section import Decay, NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share, on_resume

OPTIMIZERS = ("adamw", "muon", "lowrank")
FOREIGN = "pytorch_optimizer:"
"""Prefix of the names of that package's optimizers."""


def _known_method(name: str) -> str:
    if name not in ("full", "lora", "lora_xs", "subnetwork") and not re.fullmatch(r"peft:\w+", name):
        raise ValueError("use 'full', 'lora', 'lora_xs', 'subnetwork' or 'peft:NAME'")
    return name


class LoraSettings(Section):
    """LoRA (Hu et al. 2022): W + s B A with A ``[r, in]``, B ``[out, r]``; W is frozen.

    There is no dropout: with it the trained policy would differ from the sampled one.
    """

    ON_RESUME = on_resume(fixed="r alpha targets rslora init freeze_a rank_pattern alpha_pattern")

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank r of the adapter."""
    alpha: Positive = 32.0
    """Scaling α; the adapter's scale is s = alpha / r."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Linear layers to adapt (PEFT's ``target_modules``): full names, or their endings at a dot (``q_proj``,
    ``self_attn.q_proj``), no patterns; each must name a layer. ``all-linear``: all but the output head."""
    rslora: bool = False
    """Use the scale s = alpha / √r (rsLoRA, Kalajdzievski 2023)."""
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = "default"
    """How A and B are initialised (PEFT's ``init_lora_weights``); ``pissa`` and ``olora`` move a part of W into B A."""
    freeze_a: bool = False
    """Train only B (FFA-LoRA, Sun et al. 2024)."""
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    """Ranks of single layers that differ from ``r`` (PEFT's ``rank_pattern``), by a regular expression of the
    name's end (``q_proj``, ``layers.0.self_attn.q_proj``); the first that matches counts, each must match a layer."""
    alpha_pattern: dict[str, Positive] = Field(default_factory=dict)
    """Alphas of single layers that differ from ``alpha``, by name as in ``rank_pattern``."""

    @property
    def moves_base(self) -> bool:
        """Whether initialisation moves a part of W into B A."""
        return self.init in ("pissa", "olora")


class LoraXsSettings(Section):
    """LoRA-XS (Bałazy et al. 2024): W + s B R A with frozen bases A and B, and trained R ``[r, r]``."""

    ON_RESUME = on_resume(fixed="r alpha targets init init_lr warmup_steps")

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank r; a layer trains r × r entries."""
    alpha: Positive = 16.0
    """Scaling α; the adapter's scale is s = alpha / r."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Linear layers to adapt: full names, or their endings at a dot (``q_proj``), no patterns; each must name a layer.
    ``all-linear``: all but the output head."""
    init: Literal["svd", "gradient"] = "svd"
    """``svd``: the bases are those of W's largest singular values, and R = 0. ``gradient``: they are those of the first
    full update's direction, and R is such that the policy starts from an approximation of that update (LoRA-SB, Ponkshe
    et al. 2024)."""
    init_lr: Positive = 1e-4
    """With ``gradient``: learning rate of that first update, −init_lr sign(Σ g)."""
    warmup_steps: PositiveInt = 1
    """With ``gradient``: number of rollout batches over which g is summed before anything is trained."""


class SubnetworkSettings(Section):
    """Only some entries of the weights change; all others keep every bit of the starting model."""

    ON_RESUME = on_resume(fixed="mask density scope targets file before after like warmup_steps engine")

    mask: Literal["gradient", "fisher", "random", "magnitude", "small", "difference", "file"] = "gradient"
    """Which entries are trained: those with the largest summed gradient |Σ g| (``gradient``) or Fisher information Σ g²
    (``fisher``) over ``warmup_steps`` batches, ``random`` ones, those with the largest (``magnitude``) or smallest
    (``small``) |w|, those that differ between two checkpoints (``difference``), or those of a mask file (``file``)."""
    density: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the entries that are trained; ``difference`` and ``file`` set their own."""
    scope: Literal["matrix", "global"] = "matrix"
    """Apply ``density`` to each tensor by itself (``matrix``) or to all tensors together (``global``); ``random`` masks
    are per tensor."""
    targets: Literal["all", "all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all"
    """Tensors whose entries may be trained: ``all``, ``all-linear`` (the linear layers but the output head), or those
    whose name contains one of these words, each of which must be in a name."""
    file: str | None = None
    """With ``file``: path of the mask file."""
    before: str | None = None
    """With ``difference``: model folder of the first checkpoint."""
    after: str | None = None
    """With ``difference``: model folder of the second checkpoint."""
    like: str | None = None
    """With ``random``: a mask file whose share of each tensor replaces ``density``; None: use ``density``."""
    warmup_steps: PositiveInt = 1
    """With ``gradient`` and ``fisher``: number of rollout batches whose gradients are summed before anything is
    trained."""
    engine: Literal["compact", "hook"] = "compact"
    """``compact``: float32 masters and optimizer state for the kept entries only (plain torch, unsharded); ``hook``:
    masked gradients and a full-size optimizer, which ZeRO may shard."""


class TuningSection(Section):
    """Which parameters are trained."""

    ON_RESUME = on_resume(fixed="method lora lora_xs subnetwork peft")

    method: Annotated[str, AfterValidator(_known_method)] = "full"
    """Which parameters are trained: ``full``, all of them; ``lora``; ``lora_xs``; ``subnetwork``, some entries of the
    weights; ``peft:NAME``, another of PEFT's methods, e.g. ``peft:miss``."""
    lora: LoraSettings = LoraSettings()
    """Settings of ``method: lora``."""
    lora_xs: LoraXsSettings = LoraXsSettings()
    """Settings of ``method: lora_xs``."""
    subnetwork: SubnetworkSettings = SubnetworkSettings()
    """Settings of ``method: subnetwork``."""
    peft: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the PEFT configuration of ``peft:NAME``; ``target_modules`` is all-linear if not given. As a
    list, names are full ones or their endings at a dot; as one string, a regular expression that matches full names.
    Each must name something, in ``exclude_modules``, ``modules_to_save``, ``layers_to_transform`` and patterns too."""

    @property
    def warmup_steps(self) -> int:
        """Number of rollout batches by whose gradients the method chooses what to train; 0: none are needed."""
        if self.method == "subnetwork" and self.subnetwork.mask in ("gradient", "fisher"):
            return self.subnetwork.warmup_steps
        if self.method == "lora_xs" and self.lora_xs.init == "gradient":
            return self.lora_xs.warmup_steps
        return 0

    @property
    def compact(self) -> bool:
        """Whether the optimizer owns kept entries only."""
        return self.method == "subnetwork" and self.subnetwork.engine == "compact"


class LowRankSettings(Section):
    """AdamW on a projection of each matrix's gradient (`rlpost.optim.lowrank`)."""

    ON_RESUME = on_resume(fixed="preset rank gap scale residual_scale energy reset")

    preset: Literal["galore", "fira", "frugal", "adarankgrad", "apollo"] = "galore"
    """Method that sets the keys below that are not given: GaLore (Zhao et al. 2024), Fira (Chen et al. 2024), FRUGAL
    (Zmushko et al. 2024), AdaRankGrad (Refael et al. 2024) or APOLLO (Zhu et al. 2024)."""
    rank: PositiveInt = 128
    """Rank of the projection; with ``energy``, as in ``adarankgrad``, the largest rank."""
    gap: PositiveInt = 200
    """Optimizer updates between new projections."""
    scale: Positive | None = None
    """Factor α on the projected update (√α with ``apollo``); None: the preset's."""
    residual_scale: Positive | None = None
    """With ``frugal``: step size of the gradient outside the projection, as a share of the learning rate; None: the
    preset's."""
    energy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the gradient's squared norm that the projection must hold, by which its rank is chosen; None: the
    preset's."""
    reset: bool = False
    """Reset Adam's moments with each new projection; False: as the preset does (``frugal`` resets)."""


class OptimizerSection(Section):
    """The optimizer and its schedule."""

    ON_RESUME = on_resume(
        asks="lora_plus_ratio lr betas eps weight_decay grad_clip skip_grad_norm schedule warmup_steps min_lr_ratio",
        fixed="name lowrank args",
    )

    name: str = "adamw"
    """``adamw``: torch's AdamW; ``muon``: torch's Muon for matrices (Jordan et al. 2024) and AdamW for the rest;
    ``lowrank``: AdamW in a subspace of each matrix's gradient; ``pytorch_optimizer:NAME``: an optimizer of that
    package."""
    lowrank: LowRankSettings = LowRankSettings()
    """Settings of ``name: lowrank``."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of ``muon`` and ``pytorch_optimizer:NAME``."""
    lora_plus_ratio: Positive | None = None
    """Learning rate of LoRA's B divided by that of A (LoRA+, Hayou et al. 2024); None: the same for both."""
    lr: Positive = 1e-6
    """Peak learning rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay rates of Adam's first and second moments; not used by ``pytorch_optimizer:NAME``."""
    eps: Positive = 1e-8
    """ε added to the root of Adam's second moment; not used by ``pytorch_optimizer:NAME``."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay: each update shrinks the weights by the share lr × weight_decay. 0: none."""
    grad_clip: Positive | None = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it. None: no clipping."""
    skip_grad_norm: Positive | None = None
    """Skip an update whose gradient norm before clipping is at least this ("Rewarding the Unlikely", released code:
    20); None: skip only updates with a norm that is not finite."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warmup, by the share of the run that is done: it reaches its end with the
    run, however many updates ``algorithm.filter`` leaves out."""
    warmup_steps: NonNegativeInt = 0
    """Number of optimizer updates over which the learning rate rises linearly to ``lr``, counted as if every batch made
    all its updates; 0: no warmup."""
    min_lr_ratio: Share = 0.0
    """Final learning rate of ``linear`` and ``cosine``, as a share of ``lr``."""
