r"""A custom reward: short answers get more. The function has the signature that TRL's trainers take.

    rlpost train configs/quickstart.yaml \
      "scoring.rewards=[{name: outcome}, {name: configs/examples/brevity.py:brevity, weight: 0.1}]"

Copy it anywhere and give its path. `rewards/README.md` has the contract.
"""


def brevity(completions, **columns):
    """Linear from 1 down to 0 at 100 characters, 0 above; None ("does not apply") for a blank text."""
    texts = [text_of(completion) for completion in completions]
    return [max(0.0, 1 - len(text) / 100) if text.strip() else None for text in texts]


def text_of(completion):
    """Completions are texts, and lists of messages where the prompt is a chat."""
    return completion if isinstance(completion, str) else completion[-1]["content"]
