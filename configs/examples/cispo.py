r"""A loss of one's own, written out: CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5), which clips the importance
weight instead of the gradient, so that no token is left out of an update. It is also built in (``algorithm.loss:
cispo``); the two give the same loss and gradient, which shows what one's own has to do.

    rlpost train configs/quickstart.yaml algorithm.loss=configs/examples/cispo.py:cispo

Copy it anywhere and give its path. Before a run starts the loss is tried on four short completions: it must be a finite
scalar in float32 with a gradient, ignore masked tokens, give the same gradient however completions are divided into
micro-batches, raise what has a positive advantage, and read the log-probabilities that the configuration computes for
it (of the reference for a KL term, of the engine for an importance correction). Metrics add up over micro-batches too.
"""

import torch

from rlpost.algorithms.aggregation import token_weights
from rlpost.algorithms.kl import kl_estimate
from rlpost.algorithms.ratios import importance_weights, log_ratios


def cispo(inputs, settings, counts, *, ceiling=None):
    r"""L = −Σ_t w_t sg(min(ρ_t, 1 + ε_high)) A_t log π_θ(y_t), with the run's weights w (``algorithm.aggregate``).

    Args:
        inputs: `rlpost.algorithms.losses.LossInputs`, tensors ``[B, T]`` of one micro-batch.
        settings: `rlpost.algorithms.losses.LossSettings`, from the section ``algorithm``.
        counts: `rlpost.types.Denominators` over the whole minibatch; divide by these and by nothing else.
        ceiling: largest importance weight, > 0 (``algorithm.loss_args: {ceiling: 3}``); None: 1 + ε_high of
            ``algorithm.clip``.

    Returns:
        The micro-batch's share of the loss, and metrics, which are detached and summed over micro-batches like the
        loss. ``capped``, the share of tokens whose weight was capped, is logged as ``loss/capped``.
    """
    mask = inputs.mask
    ratio = log_ratios(inputs.logprobs, inputs.proximal_logprobs, mask, inputs.span_ids, settings.ratio).detach().exp()
    ceiling = 1 + settings.clip_high if ceiling is None else ceiling
    if ceiling <= 0:
        raise ValueError(f"ceiling is {ceiling}; a weight above 0 is needed")
    # masked positions may hold anything, even NaN, which 0 times would not remove: set them to 0 first
    logprobs = torch.where(mask, inputs.logprobs, 0.0)
    per_token = -ratio.clamp(max=ceiling) * inputs.advantages.masked_fill(~mask, 0) * logprobs
    if settings.importance_cap is not None:
        per_token = per_token * importance_weights(
            inputs.proximal_logprobs,
            inputs.rollout_logprobs,
            mask,
            cap=settings.importance_cap,
            low=settings.importance_low,
            kind=settings.importance_kind,
            level=settings.importance_level,
        )
    weights = token_weights(mask, inputs.span_ids, settings.aggregate, counts)
    figures = {"capped": (mask & (ratio > ceiling)).sum() / max(counts.tokens, 1)}
    if settings.kl_coef:
        divergence = kl_estimate(inputs.logprobs, inputs.ref_logprobs, mask, settings.kl_kind)
        per_token = per_token + settings.kl_coef * divergence
        figures["kl"] = (weights * divergence.detach()).sum()
    return (weights * per_token).sum(), figures
