"""A judge that an untrained model pleases now and then, so that groups have contrast."""

import time


def names_a_hypothesis(text: str, columns: dict) -> bool:
    return " h1" in text or " h2" in text


def takes_its_time(text: str, columns: dict) -> bool:
    """As above, so slowly that there is time to kill somebody meanwhile."""
    time.sleep(0.04)
    return names_a_hypothesis(text, columns)
