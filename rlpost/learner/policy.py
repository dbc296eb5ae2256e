"""The learner of one rank: pre-pass, updates, publishing, checkpoints. It holds no formula; see `rlpost.algorithms`."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlpost.config.schema import RunConfig
from rlpost.config.update_kind import kind_of
from rlpost.data.models import save_folder
from rlpost.decoding import DecodingConstraint
from rlpost.errors import CheckpointError, first_line
from rlpost.learner.deterministic import restored
from rlpost.learner.footprint import footprint
from rlpost.learner.gradient_check import gradient_figures
from rlpost.learner.movement import MovementCount, check_cleared, compare_masters
from rlpost.learner.packing import Update, plan_updates
from rlpost.learner.passes import ModelPasses
from rlpost.learner.prepass import needed
from rlpost.learner.record import Recorder
from rlpost.learner.samples import Samples
from rlpost.learner.tuning_warmup import Warmup, gradients, read_tuning
from rlpost.optim.schedule import learning_rate, position
from rlpost.protocols import Applied, TrainEngine
from rlpost.selfcheck.plain_samples import PlainSample
from rlpost.sync.publish import Publisher
from rlpost.types import GradientFigures, TensorDelta, TrainBatch, TrainSample, UpdateRecord, WeightUpdate

_TUNING = "tuning.pt"


@dataclass(slots=True)
class Counters:
    """Counts of optimizer updates (skipped ones included), skipped updates, and policy versions."""

    updates: int = 0
    skipped: int = 0
    version: int = 0


def clipped_by_epoch(updates: Sequence[Update], history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Clip fractions of each pass over the batch: the first starts on-policy, so clipping acts in the later ones."""
    figures: dict[str, float] = {}
    for epoch in sorted({update.epoch for update in updates}):
        rows = [row for update, row in zip(updates, history, strict=True) if update.epoch == epoch]
        for name in (name for name in rows[0] if name.startswith("clip_frac/")):
            figures[f"{name}/epoch_{epoch}"] = float(np.mean([row[name] for row in rows]))
    return figures


def entropy(records: Sequence[UpdateRecord]) -> dict[str, float]:
    """Mean entropy of the policy's full distribution at trained tokens, in nats per token; empty without any."""
    tokens = sum(record.surprise.tokens for record in records)
    return {"entropy": sum(record.surprise.entropy for record in records) / tokens} if tokens else {}


def total_norm(gradients: Iterable[tuple[str, torch.Tensor]]) -> float:
    """Euclidean norm of all gradients together."""
    return math.sqrt(sum(float(torch.linalg.vector_norm(g, dtype=torch.float32)) ** 2 for _, g in gradients))


def _means(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in history])) for key in (history[0] if history else ())}


class PolicyLearner:
    """One data-parallel rank of the learner.

    Args:
        engine: forward, backward and optimizer.
        reference: the frozen starting policy; None without a KL term or if the tuning method can disable its adapter.
        config: loss, layout, optimizer, tuning and sync settings.
        shapes: shapes of the starting model's tensors by name.
        constraint: which tokens answers may hold; None for all.

    Attributes:
        records: what self-checks look at of the last step's updates, the same on every rank.
    """

    def __init__(
        self,
        engine: TrainEngine,
        reference: torch.nn.Module | None,
        config: RunConfig,
        shapes: Mapping[str, tuple[int, ...]],
        constraint: DecodingConstraint | None = None,
    ):
        self.engine, self.config, self.shapes = engine, config, shapes
        self.passes = ModelPasses(engine, reference, config, constraint)
        self.counters = Counters()
        self.warmup = Warmup(config.tuning) if engine.tuning.warmup_parameters() else None
        self.footprint: dict[str, float] = {}
        self.records: list[UpdateRecord] = []
        self.movement = MovementCount(adamw=config.optimizer.name == "adamw")
        dtype = getattr(torch, config.model.dtype)
        self.publisher = Publisher(
            kind_of(config),
            engine.tuning,
            dtype,
            engine.gathered,
            writes=engine.rank == 0,
            dense=config.sync.diff_density,
            shared=engine.replicated,
        )
        self.watch = self._watched() if config.logging.changes_every else None
        self.looked_at = 0

    def logprobs(
        self,
        samples: Sequence[TrainSample],
        *,
        reference: bool = False,
        temperature: float | None = None,
        constrained: bool = True,
    ) -> dict[int, np.ndarray]:
        """Log-probabilities of sampled tokens, for this rank's share of the samples.

        Args:
            samples: all samples, the same on every rank.
            reference: score under the frozen reference instead of the policy.
            temperature: overrides the sampling temperature.
            constrained: score under ``rollout.constraint``, if there is one.

        Returns:
            Sample number to ``[L]`` float32; the results of all ranks together cover every sample.
        """
        return self.passes.logprobs(Samples.of(samples), range(len(samples)), reference, temperature, constrained)

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """Make all updates of a rollout batch.

        Args:
            batch: the whole batch, the same on every rank, which takes its share by `plan_updates` and makes no other
                sample. Missing log-probabilities of the proximal policy and the reference are computed here.

        Returns:
            Metrics, the same on every rank except ``seconds/prepass`` and ``memory_mb/…``: means over the batch's
            updates, the seconds of the pre-pass if there was one, and this rank's memory. A batch of the tuning
            method's warm-up makes no update.

        Raises:
            SelfCheckError: for a sample of another policy version than the learner's without proximal
                log-probabilities; or if a parameter is not its rounded master (at steps of
                ``selfcheck.parity_every``).
        """
        samples = Samples.of(batch.samples)
        self.records = []
        if self.warmup is not None:
            return self._warm_up(samples, self.warmup)
        updates = self.plan(samples, batch.step)
        metrics: dict[str, float] = {"updates": float(len(updates))}
        want = needed(samples, updates, self.config)
        if want.reference or want.before:
            begun = time.perf_counter()
            self.passes.prepass(samples, want)
            metrics["seconds/prepass"] = time.perf_counter() - begun
        history: list[dict[str, float]] = []
        for number, update in enumerate(updates):
            keep: dict[int, np.ndarray] | None = {} if want.during and not history else None
            rate = self._rate(batch.step, number, len(updates))
            recorder = Recorder(self.engine, self.counters.version, batch.traced)
            # in turn: an engine that loses every second update keeps the first ones
            watched = self.config.selfcheck.canary and number == batch.step % len(updates)
            history.append(self._update(samples, update, keep, rate, watched, recorder))
            self.records.append(recorder.finish(update, not self.records, self.passes.loss.reads_reference))
            if keep is not None:
                samples.fill("proximal_logprobs", self.engine.share_over_ranks(keep))
        self.counters.version += 1
        metrics |= _means(history) | entropy(self.records)
        if self.config.selfcheck.canary:
            metrics |= self.movement.take(self.engine)
            if self.config.parity_due(batch.step) and history:
                compare_masters(self.engine, batch.step // self.config.selfcheck.parity_every)
        if self.config.algorithm.epochs > 1:
            metrics |= clipped_by_epoch(updates, history)
        metrics["skipped_updates"] = float(self.counters.skipped)
        self.footprint = self.footprint or footprint(self.engine, self.config, self.shapes)
        return metrics | self.footprint

    def examine(self, batch: TrainBatch, plain: Sequence[PlainSample]) -> GradientFigures | None:
        """Loss and gradient of a few samples in several ways, before the first update: `rlpost.learner.gradient_check`.

        Every rank is called with the same samples and returns the same figures, except those of plain torch, which only
        rank 0 has. Training is unaffected. None during the tuning method's warm-up.

        Args:
            batch: the samples, as credit made them.
            plain: the same samples, made another way; see `rlpost.selfcheck.independent`.
        """
        if self.warmup is not None:
            return None
        return gradient_figures(self.passes, Samples.of(batch.samples), self.counters.version, plain)

    def plan(self, samples: Samples, step: int) -> list[Update]:
        """The updates of a batch."""
        algorithm = self.config.algorithm
        return plan_updates(
            samples.sizes,
            epochs=algorithm.epochs,
            minibatches=self.config.minibatches(len(samples)),
            ranks=self.engine.world,
            layout=self.passes.layout,
            seed=(self.config.run.seed, step),
        )

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The full policy, by Hugging Face name, one tensor at a time; all ranks take part."""
        return self.engine.tuning.weights(self.engine.gathered)

    def export(self) -> WeightUpdate | None:
        """The current weights as the next version, on rank 0; None on the others (all ranks take part).

        Its tensors may be the model's own memory: send or copy them before the next update.
        """
        return self.publisher.update(self.counters.version)

    def snapshot(self) -> WeightUpdate | None:
        """Every tensor of the last published version, for an engine that has missed updates."""
        return self.publisher.full(self.counters.version)

    def changes(self) -> dict[str, TensorDelta]:
        """Changes per tensor since the last call and since the start; empty on ranks other than 0.

        All ranks take part. The run must have been configured with ``logging.changes_every``.
        """
        assert self.watch is not None
        self.looked_at = self.counters.version
        return self.watch.track(self._published())

    def _watched(self) -> Any:
        from rlpost.sparsity.tracker import ChangeTracker  # slow: importing it compiles

        return ChangeTracker(self._published())

    def _published(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The policy in the published dtype, on rank 0; the other ranks take part in gathering it."""
        dtype = getattr(torch, self.config.model.dtype)
        for name, tensor in self.weights():
            if self.engine.rank == 0:
                yield name, tensor.to(dtype)

    def save(self, folder: str) -> None:
        """Write a resumable checkpoint; all ranks take part.

        Raises:
            SelfCheckError: if a weight changed that the tuning method does not train.
        """
        if self.engine.replicated:
            self.engine.tuning.check()
        Path(folder).mkdir(parents=True, exist_ok=True)
        if self.engine.rank == 0:
            warmup = self.warmup.state() if self.warmup else None
            torch.save({"method": self.engine.tuning.state(), "warmup": warmup}, Path(folder) / _TUNING)
            if self.watch is not None:
                self.watch.save(Path(folder), present=self.looked_at == self.counters.version)
        self.engine.save(folder, dataclasses.asdict(self.counters))

    def load(self, folder: str) -> int:
        """Continue from a checkpoint; returns the policy version.

        Raises:
            CheckpointError: if it is damaged, or was written by another method or engine.
        """
        stored = read_tuning(Path(folder) / _TUNING, self.engine.device)
        try:
            self.engine.tuning.restore(stored["method"])
        except (KeyError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(
                f"{folder}: it is of other tuning ({first_line(error)}); resume with the configuration it was made by"
            ) from None
        self.warmup = Warmup(self.config.tuning) if self.engine.tuning.warmup_parameters() else None
        if self.warmup is not None and stored["warmup"] is not None:
            self.warmup.restore(stored["warmup"])
        self.counters = Counters(**self.engine.load(folder))
        self.engine.tuning.write_back()
        self.publisher.forget()
        if self.watch is not None:
            self.watch.resume(self._published(), Path(folder))
            self.looked_at = -1
        return self.counters.version

    def save_model(self, folder: str, base: str) -> None:
        """Write a Hugging Face folder, and in it the method's compact form; all ranks take part, rank 0 writes.

        Args:
            folder: output folder.
            base: the starting model's folder, whose tokenizer is copied.
        """
        dtype, tuning = getattr(torch, self.config.model.dtype), self.engine.tuning
        state = {
            name: tensor.to(dtype).cpu().clone() if self.engine.rank == 0 else torch.empty(0)
            for name, tensor in self.weights()
        }
        if self.engine.rank == 0:
            with restored(self.engine.module.zeroed):
                save_folder(self.engine.module.model, state, base, folder)
            if self.engine.replicated:
                tuning.save_delta(Path(folder), base)

    def _warm_up(self, samples: Samples, warmup: Warmup) -> dict[str, float]:
        """Use a batch for the tuning method's warm-up; the policy does not change."""
        want = needed(samples, (), self.config)
        self.passes.prepass(samples, dataclasses.replace(want, before=(), during=()))
        warmup.add(gradients(self.passes, samples, self.counters.version))
        if warmup.done:
            self.engine.tuning.finish_warmup(warmup.scores())
            self.warmup = None
        self.counters.version += 1
        return {"updates": 0.0, "tuning/warmup": float(warmup.batches)}

    def _rate(self, step: int, update: int, updates: int) -> float:
        """The learning rate of an update, by the share of the run that is done; batches of a tuning method's warm-up
        make no update and do not count.
        """
        config, optimizer = self.config, self.config.optimizer
        nominal, waited = config.updates_per_step, config.tuning.warmup_steps
        return learning_rate(
            position(max(step - waited, 0), update, updates, nominal),
            peak=optimizer.lr,
            warmup=optimizer.warmup_steps,
            total=(config.run.steps - waited) * nominal,
            kind=optimizer.schedule,
            floor=optimizer.min_lr_ratio,
        )

    def _update(
        self,
        samples: Samples,
        update: Update,
        keep: dict[int, np.ndarray] | None,
        rate: float,
        watched: bool,
        recorder: Recorder,
    ) -> dict[str, float]:
        if watched:
            check_cleared(self.engine)
        metrics = self.passes.accumulate(samples, update, self.counters.version, keep, recorder)
        applied = self._apply(rate, self.config.optimizer.skip_grad_norm, watched)
        self.counters.updates += 1
        self.counters.skipped += applied.skipped
        return {**metrics, "grad_norm": applied.grad_norm, "lr": rate}

    def _apply(self, rate: float, limit: float | None, watched: bool) -> Applied:
        """Make one optimizer update, skipped unless the gradient norm is below ``limit``; None means no limit. With
        ``watched`` the share of the entries that it moves is counted.
        """
        if limit is not None:
            norm = total_norm(self.engine.gradients())
            if not norm < limit:
                self.engine.discard()
                return Applied(norm, skipped=True)
        return self.movement.watch(self.engine, rate) if watched else self.engine.apply(rate)
