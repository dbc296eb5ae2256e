"""A judge that an untrained model pleases now and then, so that groups have contrast."""


def names_a_hypothesis(text: str, columns: dict) -> bool:
    return " h1" in text or " h2" in text
