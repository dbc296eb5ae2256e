"""Bugs of the path from samples to gradients: the arithmetic stays sound, and another thing is learned than said.

Each function plants one bug, given the module that it is in. `put` sets attributes, so that a test can take a bug out
again. Engines are `rlpost.rollout.vllm.engine` or a module of an engine with the same methods.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

put: Callable[[Any, str, Any], None] = setattr


def _engine(module: Any) -> Any:
    return getattr(module, "VllmEngine", None) or module.TransformersEngine


def _submit(module: Any, change: Callable[[Any, list[Any], Any], tuple[list[Any], Any]]) -> None:
    """Change requests and settings before an engine sees them; greedy probes stay as they are."""
    engine = _engine(module)
    submit = engine.submit

    def changed(self: Any, requests: Any, settings: Any) -> Any:
        if settings.temperature:
            requests, settings = change(self, list(requests), settings)
        return submit(self, requests, settings)

    put(engine, "submit", changed)


def learner_at_temperature_one(module: Any) -> None:
    """The learner scores samples at temperature 1, whatever they were sampled at."""
    forward = module.LogprobModel.forward

    def wrong(self: Any, *inputs: Any, **options: Any) -> Any:
        return forward(self, *inputs, **{**options, "temperature": 1.0})

    put(module.LogprobModel, "forward", wrong)


def engine_without_temperature(module: Any) -> None:
    """The engine samples at temperature 1."""
    _submit(module, lambda self, requests, s: (requests, dataclasses.replace(s, temperature=1.0)))


def prompt_of_another_group(module: Any) -> None:
    """Requests are answered after the prompt of the group before."""

    def change(self: Any, requests: list[Any], settings: Any) -> tuple[list[Any], Any]:
        found = []
        for request in requests:
            known = self.__dict__.setdefault("planted", [request.token_ids])
            if known[-1].tolist() != request.token_ids.tolist():
                known.append(request.token_ids)
            found.append(dataclasses.replace(request, token_ids=known[-2] if len(known) > 1 else known[-1]))
        return found, settings

    _submit(module, change)


def first_token_missing(module: Any) -> None:
    """The engine does not see the first token of its prompts, such as BOS."""

    def change(self: Any, requests: list[Any], settings: Any) -> tuple[list[Any], Any]:
        return [dataclasses.replace(r, token_ids=r.token_ids[1:]) for r in requests], settings

    _submit(module, change)


def one_seed_per_group(module: Any) -> None:
    """All samples of a group are drawn with the same random numbers."""

    def change(self: Any, requests: list[Any], settings: Any) -> tuple[list[Any], Any]:
        return [dataclasses.replace(r, seed=r.seed // 4 * 4) for r in requests], settings

    _submit(module, change)


def logprobs_one_late(module: Any) -> None:
    """The engine reports each token's log-probability with the token after it."""
    engine = _engine(module)
    step = engine.step

    def shifted(self: Any) -> Any:
        return [
            (number, one if one.logprobs is None else dataclasses.replace(one, logprobs=np.roll(one.logprobs, 1)))
            for number, one in step(self)
        ]

    put(engine, "step", shifted)


def same_seeds_each_step(module: Any) -> None:
    """Seeds do not depend on the step."""
    group_seed = module.group_seed
    put(module, "group_seed", lambda seed, step, *rest, **more: group_seed(seed, 0, *rest, **more))


def same_prompts_each_step(module: Any) -> None:
    """Every step asks the first prompts again."""
    rows = module.rows
    put(module, "rows", lambda first, *rest: rows(0, *rest))


def proximal_follows_policy(module: Any) -> None:
    """The proximal log-probabilities are the current ones in every update."""
    put(module, "old_or_current", lambda logprobs, samples, version: logprobs.detach().clone())


def _masked(module: Any, drops: Callable[[Any], np.ndarray]) -> None:
    """Take tokens out of the mask of the loss; ``drops`` names them in a sample, as ``[L]`` bool."""
    loss_inputs = module.loss_inputs

    def masked(logprobs: Any, micro: Any, samples: Any, version: int) -> Any:
        found = loss_inputs(logprobs, micro, samples, version)
        mask = found.mask.clone()
        for row, sample in enumerate(samples):
            for place in np.flatnonzero(drops(sample)[sample.prompt_tokens :]):
                mask[row, int(place)] = False
        return dataclasses.replace(found, mask=mask)

    put(module, "loss_inputs", masked)


def last_token_masked(module: Any) -> None:
    """The last token of each answer is not trained on."""

    def drops(sample: Any) -> np.ndarray:
        return np.arange(sample.length) == np.flatnonzero(sample.mask)[-1]

    _masked(module, drops)


def end_token_masked(module: Any) -> None:
    """The end token is taken for padding, and not trained on."""

    def drops(sample: Any) -> np.ndarray:
        last = np.flatnonzero(sample.mask)[-1]
        return np.arange(sample.length) == last if sample.ended else np.zeros(sample.length, bool)

    _masked(module, drops)


def advantage_sign_of_one_index(module: Any) -> None:
    """The advantages of the parts with index 1 have the wrong sign."""
    group_advantages = module.group_advantages

    def flipped(rewards: Any, settings: Any) -> Any:
        found = group_advantages(rewards, settings)
        for reward, row in zip(rewards, found, strict=True):
            for place, span in enumerate(reward or ()):
                row[place] *= -1.0 if span.index == 1 else 1.0
        return found

    put(module, "group_advantages", flipped)


def _reversed(rewards: Any) -> tuple[Any, ...]:
    """The rewards with the values of the members in reverse order, on each member's own tokens."""
    return tuple(
        own if own is None or other is None else tuple(map(_with_value, own, other))
        for own, other in zip(rewards, rewards[::-1], strict=True)
    )


def _with_value(own: Any, other: Any) -> Any:
    return dataclasses.replace(own, value=other.value)


def rewards_reversed_in_credit(module: Any) -> None:
    """The rewards of a group go to its members in reverse order."""
    assign = module.assign

    def reversed_rewards(groups: Any, *rest: Any, **more: Any) -> Any:
        return assign([dataclasses.replace(g, rewards=_reversed(g.rewards)) for g in groups], *rest, **more)

    put(module, "assign", reversed_rewards)


def rewards_reversed_in_scoring(module: Any) -> None:
    """The scorer answers a group's rewards in reverse order."""
    score = module.Scorer.score

    def reversed_rewards(self: Any, groups: Any) -> Any:
        return [dataclasses.replace(g, rewards=_reversed(g.rewards)) for g in score(self, groups)]

    put(module.Scorer, "score", reversed_rewards)


def verdicts_shuffled(module: Any) -> None:
    """The verifier that training uses answers in another order than it is asked."""
    verify_batch = module.FunctionVerifier.verify_batch

    def shuffled(self: Any, items: Any) -> Any:
        found = verify_batch(self, items)
        return found[1:] + found[:1]

    put(module.FunctionVerifier, "verify_batch", shuffled)


def kl_sign_turned(module: Any) -> None:
    """The KL term rewards distance from the reference."""
    kl_estimate = module.kl_estimate
    put(module, "kl_estimate", lambda *inputs: -kl_estimate(*inputs))


def reference_at_temperature_one(module: Any) -> None:
    """The reference is scored at another temperature than the policy."""
    logprobs = module.ModelPasses.logprobs

    def wrong(
        self: Any, samples: Any, indices: Any, reference: bool = False, temperature: Any = None, *rest: Any
    ) -> Any:
        return logprobs(self, samples, indices, reference, 1.0 if reference else temperature, *rest)

    put(module.ModelPasses, "logprobs", wrong)


def sample_trained_twice(module: Any) -> None:
    """One sample of the batch is trained on twice, another not at all."""
    from rlpost.learner.packing import plan_pass

    plan_updates = module.plan_updates

    def wrong(sizes: Any, **options: Any) -> Any:
        updates = plan_updates(sizes, **options)
        one = updates[0].indices
        if len(one) < 2:
            return updates
        indices = (one[0], *one[:-1])
        micro = plan_pass(indices[1:], sizes, options["ranks"], options["layout"])
        return [dataclasses.replace(updates[0], indices=indices, micro=micro), *updates[1:]]

    put(module, "plan_updates", wrong)


def divided_by_micro_batch(module: Any) -> None:
    """Each micro-batch's loss is divided by its own tokens and by their number, so that short ones weigh more."""
    accumulate = module.ModelPasses.accumulate

    def wrong(self: Any, samples: Any, update: Any, *rest: Any, **more: Any) -> Any:
        loss, parts = self.loss, len(update.micro[self.engine.rank])

        def scaled(inputs: Any, counts: Any) -> Any:
            own = dataclasses.replace(counts, tokens=int(inputs.mask.sum()) * parts)
            return type(loss).__call__(loss, inputs, own)

        self.loss = _Called(loss, scaled)
        try:
            return accumulate(self, samples, update, *rest, **more)
        finally:
            self.loss = loss

    put(module.ModelPasses, "accumulate", wrong)


class _Called:
    """A loss whose calls go elsewhere."""

    def __init__(self, loss: Any, call: Callable[[Any, Any], Any]):
        self._loss, self._call = loss, call

    def __call__(self, inputs: Any, counts: Any) -> Any:
        return self._call(inputs, counts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loss, name)


def advantages_one_early(module: Any) -> None:
    """Advantages are laid over tokens one place too early, which only borders of spans show."""
    spread = module.spread_over_tokens

    def early(reward: Any, advantages: Any, length: int) -> Any:
        tokens, spans = spread(reward, advantages, length)
        return np.append(tokens[1:], tokens[-1:]), spans

    put(module, "spread_over_tokens", early)


def gradient_ascent(module: Any) -> None:
    """The optimizer climbs the loss."""
    apply = module.TorchEngine.apply

    def wrong(self: Any, lr: float) -> Any:
        for _, parameter in self.masters.owned:
            if parameter.grad is not None:
                parameter.grad.neg_()
        return apply(self, lr)

    put(module.TorchEngine, "apply", wrong)


def learning_rate_not_set(module: Any) -> None:
    """The schedule's learning rate does not reach the optimizer, which keeps the one that it was built with."""
    put(module, "set_rate", lambda optimizer, lr: None)


def optimizer_owns_half(module: Any) -> None:
    """The optimizer is built before half of the parameters are there."""
    build = module.build_optimizer
    put(module, "build_optimizer", lambda named, settings: build(named[: len(named) // 2], settings))


def gradients_not_cleared(module: Any) -> None:
    """An update's gradients are added to those of the next one."""
    put(module.TorchEngine, "discard", lambda self: None)


def every_second_update_lost(module: Any) -> None:
    """The optimizer steps at every second update only, as with a wrong count of gradient accumulation."""
    apply, calls = module.TorchEngine.apply, list[float]()

    def wrong(self: Any, lr: float) -> Any:
        calls.append(lr)
        if len(calls) % 2:
            return apply(self, lr)
        self.discard()
        return module.Applied(1.0, False)

    put(module.TorchEngine, "apply", wrong)


def reference_is_policy(module: Any) -> None:
    """The KL term compares the policy with itself."""
    loss_inputs = module.loss_inputs

    def wrong(*given: Any) -> Any:
        found = loss_inputs(*given)
        return dataclasses.replace(found, ref_logprobs=found.logprobs.detach())

    put(module, "loss_inputs", wrong)


def micro_batch_repeats_sample(module: Any) -> None:
    """The micro-batches of an update hold one sample twice in place of another of its length."""
    plan_pass = module.plan_pass

    def wrong(indices: Any, sizes: Any, *rest: Any) -> Any:
        mixed = list(indices)
        pairs = ((i, j) for i in range(len(mixed)) for j in range(i))
        same = next(((i, j) for i, j in pairs if sizes[mixed[i]] == sizes[mixed[j]]), None)
        if same is not None:
            mixed[same[0]] = mixed[same[1]]
        return plan_pass(mixed, sizes, *rest)

    put(module, "plan_pass", wrong)


def filter_turned(module: Any) -> None:
    """The filter keeps the groups that it should drop."""
    keep = module.keep
    put(module, "keep", lambda group, rule: not keep(group, rule))


def first_stage_skipped(module: Any) -> None:
    """Of several reward stages the last alone pays."""
    run_stages = module.run_stages
    put(module, "run_stages", lambda groups, stages, **options: run_stages(groups, stages[-1:], **options))


def cut_answers_paid(module: Any) -> None:
    """Answers that were cut are verified and paid like others."""
    put(module.Scorer, "_fixed", lambda self, trajectory: None)


def _finished(module: Any, old: str, new: str) -> None:
    engine = _engine(module)
    step = engine.step

    def renamed(self: Any) -> Any:
        return [
            (n, dataclasses.replace(one, finish=new) if one.finish == old and one.logprobs is not None else one)
            for n, one in step(self)
        ]

    put(engine, "step", renamed)


def cut_answers_named_done(module: Any) -> None:
    """The engine says of answers that were cut that they are finished."""
    _finished(module, "length", "stop")


def done_answers_named_cut(module: Any) -> None:
    """The engine says of finished answers that they were cut."""
    _finished(module, "stop", "length")


def shorter_answers(module: Any) -> None:
    """The engine cuts answers three tokens before the limit."""

    def change(self: Any, requests: list[Any], settings: Any) -> tuple[list[Any], Any]:
        return [dataclasses.replace(r, max_tokens=r.max_tokens - 3) for r in requests], settings

    _submit(module, change)


def vllm_option(module: Any, **options: Any) -> None:
    """vLLM samples with options that nobody asked for."""
    add = module.VllmEngine._add

    def changed(self: Any, *arguments: Any) -> None:
        engine = self.llm.llm_engine
        add_request = engine.add_request

        def with_options(name: str, prompt: Any, params: Any, **more: Any) -> Any:
            for option, value in options.items() if params.temperature else ():
                setattr(params, option, value)
            return add_request(name, prompt, params, **more)

        engine.add_request = with_options
        try:
            add(self, *arguments)
        finally:
            del engine.add_request

    put(module.VllmEngine, "_add", changed)


def engine_repetition_penalty(module: Any) -> None:
    """The engine penalises tokens that occur before."""
    vllm_option(module, repetition_penalty=1.3)


def engine_top_p(module: Any) -> None:
    """The engine samples from the nucleus of 0.7."""
    vllm_option(module, top_p=0.7)


def engine_without_end(module: Any) -> None:
    """The engine does not end an answer before its fourth token."""
    vllm_option(module, min_tokens=4)


VLLM = "rlpost.rollout.vllm.engine"
PLACES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "learner_at_temperature_one": ("rlpost.learner.logprob_model", learner_at_temperature_one),
    "engine_without_temperature": (VLLM, engine_without_temperature),
    "engine_repetition_penalty": (VLLM, engine_repetition_penalty),
    "prompt_of_another_group": (VLLM, prompt_of_another_group),
    "first_token_missing": (VLLM, first_token_missing),
    "proximal_follows_policy": ("rlpost.learner.micro_loss", proximal_follows_policy),
    "engine_top_p": (VLLM, engine_top_p),
    "last_token_masked": ("rlpost.learner.passes", last_token_masked),
    "end_token_masked": ("rlpost.learner.passes", end_token_masked),
    "advantage_sign_of_one_index": ("rlpost.algorithms.advantages", advantage_sign_of_one_index),
    "rewards_reversed_in_credit": ("rlpost.algorithms.credit", rewards_reversed_in_credit),
    "rewards_reversed_in_scoring": ("rlpost.scoring.score", rewards_reversed_in_scoring),
    "one_seed_per_group": (VLLM, one_seed_per_group),
    "same_prompts_each_step": ("rlpost.loop.repair", same_prompts_each_step),
    "same_seeds_each_step": ("rlpost.rollout.sampling", same_seeds_each_step),
    "kl_sign_turned": ("rlpost.algorithms.losses", kl_sign_turned),
    "verdicts_shuffled": ("rlpost_verifiers.function", verdicts_shuffled),
    "logprobs_one_late": (VLLM, logprobs_one_late),
    "engine_without_end": (VLLM, engine_without_end),
    "reference_at_temperature_one": ("rlpost.learner.passes", reference_at_temperature_one),
    "sample_trained_twice": ("rlpost.learner.policy", sample_trained_twice),
    "divided_by_micro_batch": ("rlpost.learner.passes", divided_by_micro_batch),
    "advantages_one_early": ("rlpost.algorithms.credit", advantages_one_early),
    "gradient_ascent": ("rlpost.learner.torch_engine", gradient_ascent),
    "learning_rate_not_set": ("rlpost.learner.torch_engine", learning_rate_not_set),
    "optimizer_owns_half": ("rlpost.learner.torch_engine", optimizer_owns_half),
    "gradients_not_cleared": ("rlpost.learner.torch_engine", gradients_not_cleared),
    "every_second_update_lost": ("rlpost.learner.torch_engine", every_second_update_lost),
    "reference_is_policy": ("rlpost.learner.passes", reference_is_policy),
    "micro_batch_repeats_sample": ("rlpost.learner.packing", micro_batch_repeats_sample),
    "filter_turned": ("rlpost.algorithms.credit", filter_turned),
    "first_stage_skipped": ("rlpost.scoring.score", first_stage_skipped),
    "cut_answers_paid": ("rlpost.scoring.score", cut_answers_paid),
    "cut_answers_named_done": (VLLM, cut_answers_named_done),
    "done_answers_named_cut": (VLLM, done_answers_named_cut),
    "shorter_answers": (VLLM, shorter_answers),
}
