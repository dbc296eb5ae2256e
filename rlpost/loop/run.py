"""A run from configuration to model folder: warm start, loop, evaluation, checkpoints, interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

from rlpost.config.load import dump
from rlpost.config.schema import RunConfig
from rlpost.data.models import resolve_path
from rlpost.data.repair import Pool
from rlpost.errors import InfrastructureError, LeakError, LearnerLostError, RlpostError, UserError
from rlpost.loop import checkpoint
from rlpost.loop.checkpoint import RunState
from rlpost.loop.evaluations import AFTER, BEFORE, EvaluationFigures, Evaluations, on_the_way
from rlpost.loop.faults import run_faults
from rlpost.loop.resume import Resume, fingerprint, prepare
from rlpost.loop.session import Session
from rlpost.loop.start import session
from rlpost.loop.sync import OnStep, ScoredBatch, Step, collect, learn, publish
from rlpost.observability.plots import draw_run
from rlpost.observability.progress import Display
from rlpost.observability.report import write_report
from rlpost.observability.runfolder import RunFolder
from rlpost.observability.sinks import open_sinks
from rlpost.plugins.build import reward_needs, with_logprobs
from rlpost.plugins.ship import ship
from rlpost.plugins.trial_algorithm import try_algorithm
from rlpost.sparsity.deltas import document
from rlpost.system.processes import end_with_parent


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of a run.

    Attributes:
        folder: the run folder.
        steps: number of rollout batches done, earlier parts of a resumed run included.
        interrupted: whether it stopped on request before the last step.
        metrics: metrics of the last step; empty if this process made none.
        evaluations: pairs of title (``before``, ``step N`` or ``after``) and figures, in order.
    """

    folder: str
    steps: int
    interrupted: bool
    metrics: Mapping[str, float]
    evaluations: EvaluationFigures


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    display: Display | None = None,
    on_step: OnStep | None = None,
) -> RunResult:
    """Train as a configuration says, from the starting model to the final one.

    Args:
        config: the validated run configuration.
        resume: continue from the run folder's last checkpoint; from the beginning if there is none.
        allow_changes: resume also if the run becomes another one by it, e.g. with another learning rate.
        display: shows progress; None shows nothing.
        on_step: called with every finished step; the run ends after it if it returns False.

    Returns:
        Folder, steps, the last step's metrics and all evaluations.

    Raises:
        RlpostError: with one line that says what failed, the value and the remedy.
    """
    from rich.console import Console

    display = display or Display(Console(quiet=True), enabled=False)
    folder = RunFolder(config, resume)
    how = prepare(config, folder, allow_changes, display.say) if resume else Resume(config)
    config = folder.config = how.config
    # errors of names and plug-ins should show before a cluster is started
    shipped = ship(config)
    config = with_logprobs(config, reward_needs(config))
    try_algorithm(config)
    _refuse(run_faults(config))
    model = starting_model(config, folder, display)
    display.say(f"starting Ray and the actors for {folder.path}")
    with stop_request() as stop, session(config, model, training=True, shipped=shipped, log=display.say) as running:
        return Run(config, folder, running, display, stop, on_step, how, fingerprint(model)).go()


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        more = f" (and {len(faults) - 1} more faults; `rlpost plan` lists them)" if len(faults) > 1 else ""
        raise UserError(f"{faults[0]}{more}")


class Run:
    """The loop around the verbs of `rlpost.loop.sync`.

    Args:
        config: number of steps, and when to evaluate, checkpoint and log.
        folder: the run folder, with its transcripts and checkpoints.
        running: engines, scoring workers and learner.
        display: shows progress.
        stop: set when the run should end after the current step.
        on_step: called with every finished step; the run ends after it if it returns False.
        how: checkpoint to go on from, and what changes with it.
        model: fingerprint of the starting model.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        running: Session,
        display: Display,
        stop: StopRequest,
        on_step: OnStep | None,
        how: Resume,
        model: str,
    ):
        self.config, self.folder, self.session = config, folder, running
        self.display, self.stop, self.on_step = display, stop, on_step
        self.how, self.model, self.begun = how, model, False
        self.state = RunState(0)
        self.saved: RunState | None = None
        self.pool: Pool = ()
        self.evaluations = Evaluations(config, folder.path, running, display.say)

    def go(self) -> RunResult:
        """Load the checkpoint, if there is one, publish the policy, then train until done or asked to stop; if the
        learner is lost, continue from the last checkpoint.
        """
        if self.how.checkpoint is not None:
            self._load(self.how.checkpoint)
            self.display.say(f"resuming after step {self.state.step}")
        elif self.folder.record.exists():
            self.display.say("there is no checkpoint yet: starting from the beginning")
        while True:
            try:
                return self._finish(self._advance())
            except LearnerLostError as error:
                self._start_over(error)

    def _advance(self) -> Mapping[str, float]:
        """Make steps until done or asked to stop; returns the metrics of the last one."""
        self.session.publish()
        if not self.begun:
            self._begin()
        if self.state.step == 0:
            self.evaluations.begin()
            if self.config.evaluation.before:
                self._evaluate(BEFORE)
        section = self.config.logging
        sinks = open_sinks(
            section, self.folder.path, self.config.run.name, self.config.model_dump(mode="json"), self.state.step
        )
        metrics: Mapping[str, float] = {}
        self.display.begin(self.state.step, self.config.run.steps)
        try:
            while self.state.step < self.config.run.steps and not self.stop.asked:
                with self._progress_kept():
                    scored = collect(self.session, self.state.step, self.state.tickets, self.state.next_row, self.pool)
                step = learn(self.session, scored)
                metrics = step.metrics
                self._done(scored)
                try:
                    with self._progress_kept():
                        publish(self.session, step, scored.timer)
                finally:
                    for sink in sinks:
                        sink.write(step.number, metrics)
                self._after(step)
            self.session.transcripts.finish()
        except Exception:
            with suppress(RlpostError):  # the error that ends the run is the one to show
                self.session.transcripts.finish()
            raise
        finally:
            self.display.end()
            for sink in sinks:
                sink.close()
        return metrics

    def _done(self, scored: ScoredBatch) -> None:
        """Note a batch that was learned from."""
        before = self.state
        rows = None if before.rows is None and self.session.repairs is None else before.next_row + scored.rows
        self.pool = scored.pool
        self.state = replace(before, step=scored.number + 1, tickets=before.tickets + len(scored.groups), rows=rows)

    def _begin(self) -> None:
        """Note in the run folder what the run goes on with; whatever fails before this leaves its record as it was."""
        self.folder.create(self.model, self.state.step, self.how.changes)
        self.folder.record_verifiers(self.session.verifiers)
        self.folder.record_dropped([asdict(one) for one in self.session.dropped])
        self.evaluations.truncate_after(self.state.step if self.how.checkpoint is not None else -1)
        self.begun = True

    def _start_over(self, error: LearnerLostError) -> None:
        """Restart the learner from the last checkpoint, or from the start if there is none; later steps are repeated
        with the same prompts and seeds.
        """
        learner = self.session.learner
        assert learner is not None
        begun = time.monotonic()
        while True:
            learner.restart(error)
            self.session.published = None
            self.session.checks.forget()
            try:
                if checkpoint.steps(self.folder.checkpoints):
                    self._load(checkpoint.latest(self.folder.checkpoints))
                else:
                    self.state, self.saved, self.pool = RunState(0), None, ()
                if self.begun:
                    self.evaluations.truncate_after(self.state.step)
                break
            except LearnerLostError as again:
                error = again
        took = time.monotonic() - begun
        self.display.say(f"learner: replaced in {took:.1f} s; going on after step {self.state.step}")

    @contextmanager
    def _progress_kept(self) -> Iterator[None]:
        """Write a checkpoint before a failure outside the learner ends the run."""
        try:
            yield
        except LearnerLostError:  # no learner is left to write one
            raise
        except (InfrastructureError, LeakError):
            if self.state.step and self._checkpoint():
                self.display.say(f"saved step {self.state.step} before leaving; continue with --resume")
            raise

    def _after(self, step: Step) -> None:
        config, done = self.config, self.state.step
        every = config.logging.transcripts_every
        if every and step.number % every == 0:
            self.session.transcripts.write(self.folder.transcript(step.number), step.groups, step.advantages)
        if step.changes:
            self.folder.changes(step.number, document(step.changes))
        self.display.step(step.number, config.run.steps, step.metrics)
        if config.evaluation.every and done % config.evaluation.every == 0 and done < config.run.steps:
            self._evaluate(on_the_way(done))
        if config.run.checkpoint_every and done % config.run.checkpoint_every == 0:
            self._checkpoint()
        if self.on_step is not None:
            self.session.transcripts.finish()  # the callback may read it
            if self.on_step(step) is False:
                self.stop.asked = True

    def _finish(self, metrics: Mapping[str, float]) -> RunResult:
        assert self.session.learner is not None
        interrupted = self.state.step < self.config.run.steps
        if not interrupted and self.config.evaluation.after:
            self._evaluate(AFTER)
        self._checkpoint()
        with checkpoint.atomic_folder(self.folder.model) as partial:
            self.session.learner.save_model(str(partial.resolve()))
        draw_run(self.folder.path)
        if metrics:
            write_report(self.folder.path)
        if interrupted:
            self.display.say(f"stopped after step {self.state.step}; continue with --resume")
        return RunResult(str(self.folder.path), self.state.step, interrupted, metrics, self.evaluations.figures)

    def _evaluate(self, title: str) -> None:
        if self.stop.asked:
            return
        value = self.evaluations.measure(title, self.state.step)
        if value is not None and (self.state.best is None or value > self.state.best):
            self.state = replace(self.state, best=value, best_step=self.state.step)
            if self.state.step:  # the best policy is kept even if no checkpoint is due
                self._checkpoint()

    def _checkpoint(self) -> bool:
        """Write a checkpoint, unless this state was the last one written or read; returns whether it was written."""
        assert self.session.learner is not None
        if self.saved == self.state:
            return False
        target = checkpoint.folder_of(self.folder.checkpoints, self.state.step)
        with checkpoint.atomic_folder(target) as partial:
            self.session.learner.save(str(partial.resolve() / "learner"))
            checkpoint.write_state(partial, self.state)
            checkpoint.write_pool(partial, self.pool)
            checkpoint.write_files(partial)
        checkpoint.prune(self.folder.checkpoints, self.config.run.keep_checkpoints, self.state.best_step)
        self.saved = self.state
        return True

    def _load(self, folder: Path) -> None:
        """Continue from a checkpoint."""
        assert self.session.learner is not None
        self.state = self.saved = checkpoint.read_state(folder, self.config.rollout.prompts_per_step)
        self.pool = checkpoint.read_pool(folder)
        self.session.learner.load(str((folder / "learner").resolve()))


def starting_model(config: RunConfig, folder: RunFolder, display: Display) -> str:
    """Folder of the policy that the run starts from; a configured warm start that is missing is made first."""
    if config.sft is None:
        assert config.model.path is not None
        return str(Path(resolve_path(config.model.path)).resolve())
    if not (folder.warm_start / "config.json").is_file():
        display.say("warm start: supervised fine-tuning")
        # in a separate process, so that the trainer's threads and memory are gone before the actors start
        with tempfile.TemporaryDirectory(prefix="rlpost-sft-") as scratch:
            resolved = Path(scratch) / "config.yaml"
            resolved.write_text(dump(config), encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-m", "rlpost.cli", "sft", str(resolved), "--quiet", "--json"],
                capture_output=True,
                text=True,
                check=False,
                # waiting threads must not spin: on a shared machine that costs a factor of three and more
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "TMPDIR": scratch},
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
            )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            kind = UserError if done.returncode == 2 else InfrastructureError
            raise kind(f"warm start failed: {lines[-1].removeprefix('rlpost: ')}")
        for note in json.loads(done.stdout.strip().splitlines()[-1])["notes"]:
            display.say(note)
    return str(folder.warm_start.resolve())


@dataclass(slots=True)
class StopRequest:
    """A flag that asks the run to end after the current step."""

    asked: bool = False


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Ctrl-C or SIGTERM once: finish the step, write a checkpoint, leave. Twice: leave at once."""
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True
        print("\nstopping after this step (once more to stop at once)", file=sys.stderr)

    previous = {}
    with suppress(ValueError):  # not the main thread: the caller handles its own signals
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
