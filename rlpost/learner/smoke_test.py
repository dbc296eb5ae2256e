"""Smoke tests of torch (a gradient) and DeepSpeed (an update), which ``rlpost doctor`` runs by name."""

from __future__ import annotations

import os
import socket
import sys

from rlpost.system.smoke_test import begin, doing, found


def try_torch() -> None:
    """Differentiate something whose gradient is known."""
    doing("importing torch")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    doing(f"computing a gradient on {device}")
    x = torch.arange(4.0, device=device, requires_grad=True)
    (x @ x).backward()
    assert x.grad is not None
    if x.grad.tolist() != [0.0, 2.0, 4.0, 6.0]:
        raise ArithmeticError(f"the gradient of x·x at 0, 1, 2, 3 came out as {x.grad.tolist()}")
    found(f"{torch.__version__} computed a gradient on {device}, {torch.get_num_threads()} threads")


def try_deepspeed() -> None:
    """Make one update in a process group of one rank."""
    doing("importing deepspeed")
    import deepspeed
    import torch

    from rlpost.config.schema import LearnerSection
    from rlpost.config.tuning import OptimizerSection
    from rlpost.learner.deepspeed_engine import DeepSpeedEngine
    from rlpost.tuning.method import Full

    class Tiny(torch.nn.Module):
        """Stands in for the policy."""

        def __init__(self) -> None:
            super().__init__()
            self.model = torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).sum()

    doing("forming a process group of one rank")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    tiny = Tiny()
    before = tiny.model.weight.detach().clone()
    settings = OptimizerSection(lr=0.1), LearnerSection(), "float32", device
    engine = DeepSpeedEngine(tiny, Full(tiny.model), *settings)  # pyright: ignore[reportArgumentType]
    doing("computing an update")
    engine.backward(engine.forward(torch.ones(2, 4, device=device)), last=True)
    applied = engine.apply(0.1)
    if applied.skipped or torch.equal(before, tiny.model.weight.detach().cpu()):
        raise ArithmeticError("an update with a gradient changed no weight")
    doing("leaving the process group")
    engine.close()
    found(f"{deepspeed.__version__} made an update on {device.type}")
    # threads of the process group may outlive it by a moment and abort an interpreter that exits meanwhile; the ranks
    # of a run never exit that way
    os._exit(0)


if __name__ == "__main__":
    begin()
    {"torch": try_torch, "deepspeed": try_deepspeed}[sys.argv[1]]()
