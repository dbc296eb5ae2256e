r"""A reward of one's own: short answers are worth more. The function is as TRL's trainers take it.

    rlpost train configs/quickstart.yaml \
      "scoring.rewards=[{name: outcome}, {name: configs/examples/brevity.py:brevity, weight: 0.1}]"

Copy it anywhere, give its path. `rewards/README.md` has the contract.
"""


def brevity(completions, **columns):
    """From 1 for an empty text to 0 for one of 100 characters or more; None, "does not apply", for blank ones."""
    return [max(0.0, 1 - len(text) / 100) if text.strip() else None for text in completions]
