"""The learner of one rank: pre-pass, updates, publishing, checkpoints. It holds no formula; see `rlpost.algorithms`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rlpost.algorithms.losses import LossSettings
from rlpost.config.schema import RunConfig
from rlpost.data.packing import Update, count, micro_batches, plan_updates, spread_over_ranks
from rlpost.learner.engine import TrainEngine
from rlpost.learner.models import save_folder
from rlpost.learner.schedule import learning_rate
from rlpost.learner.step import collate, micro_loss
from rlpost.sync.codec import checksum, encode
from rlpost.types import TensorPayload, TrainBatch, TrainSample, WeightManifest, WeightUpdate


@dataclass(slots=True)
class Counters:
    """What a learner counts: optimizer updates, updates skipped as non-finite, published versions."""

    updates: int = 0
    skipped: int = 0
    version: int = 0


def loss_settings(config: RunConfig) -> LossSettings:
    """The loss a configuration describes."""
    algorithm = config.algorithm
    return LossSettings(
        ratio=algorithm.ratio,
        clip_low=algorithm.clip[0],
        clip_high=algorithm.clip[1],
        aggregate=algorithm.aggregate,
        kl_coef=algorithm.kl.coef,
        kl_kind=algorithm.kl.kind,
        importance_cap=config.importance_cap,
    )


class PolicyLearner:
    """One data-parallel rank of the learner.

    Args:
        engine: forward, backward and optimizer.
        reference: frozen scorer, or None without a KL term.
        config: of the run.
    """

    def __init__(self, engine: TrainEngine, reference: torch.nn.Module | None, config: RunConfig):
        self.engine, self.reference, self.config = engine, reference, config
        self.settings = loss_settings(config)
        self.counters = Counters()

    def logprobs(
        self, samples: Sequence[TrainSample], *, reference: bool = False, temperature: float | None = None
    ) -> dict[int, np.ndarray]:
        """Log-probabilities of completion tokens, for this rank's share of the samples.

        Args:
            samples: all samples; every rank is given the same.
            reference: under the frozen reference instead of the policy.
            temperature: instead of the sampling temperature.

        Returns:
            Row to ``[T]`` float32; the ranks' answers together cover every row.
        """
        if reference and self.reference is None:
            raise ValueError("no reference model was loaded (algorithm.kl.coef is 0)")
        lengths = [s.length for s in samples]
        shares = [
            micro_batches(share, lengths, self.config.learner.micro_tokens)
            for share in spread_over_ranks(range(len(samples)), lengths, self.engine.world)
        ]
        mine = shares[self.engine.rank] + [()] * (max(map(len, shares)) - len(shares[self.engine.rank]))
        found: dict[int, np.ndarray] = {}
        with torch.no_grad():
            for rows in mine:
                micro = collate([samples[row] for row in rows], self.engine.device)
                inputs = (micro.input_ids, micro.attention_mask, micro.positions, micro.token_ids)
                score = self.reference if reference and self.reference is not None else self.engine.forward
                values = score(*inputs, temperature=temperature).float().cpu().numpy()
                for i, row in enumerate(rows):
                    found[row] = values[i, : len(samples[row].completion_ids)].copy()
        return found

    def step(self, batch: TrainBatch) -> dict[str, float]:
        """All updates of a rollout batch.

        Args:
            batch: the whole batch, with old and reference log-probabilities filled in where they are needed; every
                rank is given the same and takes its share by `plan_updates`.

        Returns:
            Metrics, the same on every rank: means over the batch's updates.
        """
        updates = self.plan(batch)
        history = [self._update(batch, update) for update in updates]
        self.counters.version += 1
        metrics: dict[str, float] = {"updates": float(len(updates))}
        for key in history[0] if history else ():
            metrics[key] = float(np.mean([row[key] for row in history]))
        metrics["skipped_updates"] = float(self.counters.skipped)
        return metrics

    def plan(self, batch: TrainBatch) -> list[Update]:
        """The updates of a batch."""
        algorithm = self.config.algorithm
        return plan_updates(
            [s.length for s in batch.samples],
            epochs=algorithm.epochs,
            minibatches=algorithm.minibatches,
            ranks=self.engine.world,
            micro_tokens=self.config.learner.micro_tokens,
            seed=(self.config.run.seed, batch.step),
        )

    def accumulate(self, batch: TrainBatch, update: Update) -> dict[str, float]:
        """Forward and backward over the micro-batches of an update; returns the sums of the metrics over ranks."""
        counts = count(batch.samples, update.rows, self.config.rollout.max_tokens)
        mine = update.micro[self.engine.rank]
        totals: dict[str, float] = dict.fromkeys(self._metric_names(batch), 0.0)
        for i, rows in enumerate(mine):
            samples = [batch.samples[row] for row in rows]
            micro = collate(samples, self.engine.device)
            logprobs = self.engine.forward(micro.input_ids, micro.attention_mask, micro.positions, micro.token_ids)
            loss, sums = micro_loss(logprobs, micro, samples, self.settings, counts)
            self.engine.backward(loss, last=i == len(mine) - 1)
            for key, value in sums.items():
                if key in totals:
                    totals[key] += float(value)
        return self.engine.sum_over_ranks(totals)

    def prepare(
        self, batch: TrainBatch, old: Sequence[np.ndarray] | None, ref: Sequence[np.ndarray] | None
    ) -> TrainBatch:
        """The batch with log-probabilities of old policy and reference filled in."""
        samples = [
            dataclasses.replace(
                sample,
                old_logprobs=sample.old_logprobs if old is None else old[i],
                ref_logprobs=sample.ref_logprobs if ref is None else ref[i],
            )
            for i, sample in enumerate(batch.samples)
        ]
        return TrainBatch(tuple(samples), batch.step)

    def export(self) -> WeightUpdate | None:
        """The current weights as the next version, on rank 0; None on the others (all ranks take part)."""
        dtype = getattr(torch, self.config.model.dtype)
        payload: dict[str, TensorPayload] = {}
        for name, tensor in self.engine.parameters():
            if self.engine.rank == 0:
                payload[name] = encode(tensor.to(dtype))
        if self.engine.rank != 0:
            return None
        checksums = {name: checksum(value) for name, value in payload.items()}
        nbytes = sum(value.nbytes for value in payload.values())
        version = self.counters.version
        return WeightUpdate(WeightManifest(version - 1, version, "full", checksums, nbytes), payload)

    def save(self, folder: str) -> None:
        """Write a resumable checkpoint; all ranks take part."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.engine.save(folder, dataclasses.asdict(self.counters))

    def load(self, folder: str) -> int:
        """Continue from a checkpoint; returns the policy version."""
        self.counters = Counters(**self.engine.load(folder))
        return self.counters.version

    def save_model(self, folder: str, tokenizer_from: str) -> None:
        """Write a Hugging Face folder; all ranks take part, rank 0 writes."""
        dtype = getattr(torch, self.config.model.dtype)
        state = {
            name: tensor.to(dtype).cpu().clone() if self.engine.rank == 0 else torch.empty(0)
            for name, tensor in self.engine.parameters()
        }
        if self.engine.rank == 0:
            save_folder(self.engine.module.model, state, tokenizer_from, folder)

    def _update(self, batch: TrainBatch, update: Update) -> dict[str, float]:
        metrics = self.accumulate(batch, update)
        optimizer = self.config.optimizer
        rate = learning_rate(
            self.counters.updates,
            peak=optimizer.lr,
            warmup=optimizer.warmup_steps,
            total=self.config.run.steps * self.config.updates_per_step,
            kind=optimizer.schedule,
            floor=optimizer.min_lr_ratio,
        )
        applied = self.engine.apply(rate)
        self.counters.updates += 1
        self.counters.skipped += applied.skipped
        return {**metrics, "grad_norm": applied.grad_norm, "lr": rate}

    def _metric_names(self, batch: TrainBatch) -> list[str]:
        names = ["loss", "clip_low", "clip_high", "ratio", "entropy"]
        if self.settings.importance_cap is not None:
            names.append("importance")
        if self.settings.kl_coef:
            names.append("kl")
        if all(s.engine_logprobs is not None for s in batch.samples):
            names.append("mismatch")
        return names
