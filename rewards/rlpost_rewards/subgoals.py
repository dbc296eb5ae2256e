r"""Subgoal credit: a failed proof is not blamed for the steps that are proved and needed.

In a group with advantages A_i, token t of a rejected proof i has

    A_i,t = max(A_i, 0)   if t lies in a step that is proved, needed and not trivial,
    A_i,t = A_i           otherwise,

and accepted proofs are left as they are. `rlpost_verifiers.lean.subgoals` says which steps these are: the whole
verifier accepts the step as a theorem of its own, the rest of the proof closes the goal from the steps (the proof
comes down to what is not proved), and does not without this one. DeepSeek-Prover-V2 (Ren et al. 2025, arXiv
2504.21801) trains on subgoals as theorems of their own and rewards whole proofs by their structure; Goedel-Prover-V2
(Lin et al. 2025, arXiv 2508.03613) makes them further problems. Here they only say where a failure lies.

Why nothing is paid. A policy that earns something for each proved ``have`` writes ``have : True := trivial`` a hundred
times. No reward changes here, so that, whatever a policy writes,

* a failed proof is worth what it was worth without this stage, and less than an accepted one if it was before: of its
  advantages none rises above 0, and the rest of the proof and its failed steps keep theirs;
* a step that is added raises no total: the sum of the rewards is what it was, and a step that nothing needs is blamed
  like any text of a failed proof;
* the sum of a trajectory's rewards does not depend on how many steps there are.

What remains: text that is blamed less is written more, relative to text that is blamed. A step which is needed only
because the rest mentions it (``exact (fun _ => h₂) h₁``) is taken for needed; what ``trivial`` proves is not exempt, so
such a step must at least be a theorem with something to it. Steps of proofs whose rest fails, and those after an
``obtain``, are blamed as before.
"""

from __future__ import annotations

from rlpost.trajectory import Group, Trajectory
from rlpost.types import Reward, RewardOutput, SpanReward, Verdict
from rlpost_rewards.ranking import token_span


class Subgoals:
    """Takes the blame from the tokens of a rejected proof's proved and needed steps; see this module.

    Those are the accepted items of the verdict with a score above 0. An undecided item takes nothing: the verdict on
    the whole proof is decided and stands. Answers that were cut at a limit keep all of their blame. Logs ``steps``, the
    items of a rejected proof, and ``exempt``, the share of its sampled tokens that is exempt.

    List it after ``outcome``: ``rewards: [{name: outcome}, {name: subgoals}]``, with ``subgoals: true`` among the
    arguments of the verifier.
    """

    needs: tuple[str, ...] = ("offsets",)

    def __call__(self, group: Group) -> RewardOutput:
        """See `rlpost.protocols.RewardStage`."""
        result: list[Reward | None] = []
        steps, shares = list[int](), list[float]()
        for trajectory, verdict, reward in zip(group.trajectories, group.verdicts, group.rewards, strict=True):
            if reward is None or verdict is None or verdict.outcome != "rejected":
                result.append(reward)
                continue
            spans = _exempt(trajectory, verdict)
            result.append((*reward, *spans))
            steps.append(len(verdict.items))
            size = trajectory.turns[-1].stop - trajectory.turns[-1].start
            shares.append(sum(span.stop - span.start for span in spans) / max(size, 1))
        if not steps:
            return RewardOutput(result)
        return RewardOutput(result, {"steps": sum(steps) / len(steps), "exempt": sum(shares) / len(shares)})


def _exempt(trajectory: Trajectory, verdict: Verdict) -> list[SpanReward]:
    """Spans without blame; tokens that begin in a step belong to it."""
    if trajectory.status != "done":
        return []
    places = [
        (item.index, token_span(trajectory.turns[-1], item.start, item.stop))
        for item in verdict.items
        if item.outcome == "accepted" and item.score > 0
    ]
    return [SpanReward(*span, 0.0, index + 1, "exempt") for index, span in places if span[0] < span[1]]
