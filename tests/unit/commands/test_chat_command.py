"""`Chat` with a real tiny model: prompts as in training, turns, verdicts, one-line errors. Not covered: the quality of
its answers.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlpost.api import configuration
from rlpost.cli import main
from rlpost.commands.chat import Chat, Reply, open_column, render
from rlpost.config.schema import DataSection
from rlpost.errors import DataError, UserError
from rlpost.types import ItemVerdict, Message, Verdict

REWARD = f"{Path(__file__).resolve().parents[2]}/configs/examples/brevity.py:brevity"
SAID = "∀ p q : Prop, p → q"


def config(model: str, **sections: Any) -> dict[str, Any]:
    return {
        "model": {"path": model, "dtype": "float32"},
        "data": {"source": "jsonl", "train": "absent.jsonl", "template": "{statement} :="},
        "rollout": {"max_tokens": 6},
        "scoring": {"rewards": [{"name": REWARD}]},
        **sections,
    }


def talk(model: str, columns: dict[str, Any] | None = None, **sections: Any) -> Chat:
    return Chat(configuration(config(model, **sections)), model, columns)


def test_what_is_typed_fills_the_template_and_what_was_said_stays(tiny_model: str) -> None:
    one = talk(tiny_model)
    assert one.column == "statement"
    first = one.say(f" {SAID} ")
    assert first.verdict is None
    assert one._row() == {"statement": SAID}
    again = talk(tiny_model).say(SAID)
    assert again.text == first.text, "greedy"
    one.say("q")
    assert one._row() == {"statement": f"{SAID} q"}
    one.forget()
    assert one.say(SAID).text == first.text


def test_answers_are_sampled_as_evaluations_are(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = configuration(config(tiny_model, evaluation={"sampling": {"top_p": 0.5, "top_k": 3, "max_tokens": 9}}))
    one = Chat(given, tiny_model, temperature=0.7)
    asked: dict[str, Any] = {}
    generate = one.model.generate

    def noting(ids: Any, **options: Any) -> Any:
        asked.update(options)
        return generate(ids, **options)

    monkeypatch.setattr(one.model, "generate", noting)
    one.say(SAID)
    wanted = {"do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 3, "max_new_tokens": 9}
    assert {name: asked[name] for name in wanted} == wanted
    assert one.room == 256 - 9


def test_a_model_that_was_trained_on_chats_sees_the_conversation(tiny_model: str, tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"prompt": [{"role": "user", "content": SAID}]}) + "\n")
    one = talk(tiny_model, data={"source": "jsonl", "train": str(file)})
    one.codec.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    reply = one.say(SAID)
    assert one._row()["prompt"] == [{"role": "user", "content": SAID}, {"role": "assistant", "content": reply.text}]
    assert one.turns[0] == ("user", SAID)
    assert Message("user", SAID).content == one._row()["prompt"][0]["content"]


def test_replies_are_verified_where_possible(tiny_model: str) -> None:
    def longer(text: str, columns: dict[str, Any]) -> bool:
        return len(columns["gold"]) < len(text)

    scoring = {"verifier": "function", "verifier_args": {"function": longer}}
    assert talk(tiny_model, {"gold": ""}, scoring=scoring).say(SAID).verdict is not None


@pytest.mark.parametrize(
    ("section", "given", "expected"),
    [
        ({"template": "{a} and {b}"}, {"b": 1}, "a"),
        ({"template": "{a} {a}"}, {}, "a"),
        ({"chat_template": [["user", "{a}"]]}, {}, "a"),
        ({}, {}, None),
    ],
)
def test_the_open_column(section: dict, given: dict, expected: str | None) -> None:
    assert open_column(DataSection(**section), given) == expected


@pytest.mark.parametrize(
    ("template", "message"), [("{a} {b}", "leaves columns a, b open"), ("no field {{}}", "leaves no column open")]
)
def test_no_or_several_open_columns_are_refused(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_column(DataSection(template=template), {})


def test_unusable_input_is_refused(tiny_model: str) -> None:
    one = talk(tiny_model, rollout={"max_tokens": 60})
    with pytest.raises(DataError, match="nothing was said"):
        one.say("  ")
    with pytest.raises(DataError, match="leave room for an answer"):
        one.say("p " * 500)
    with pytest.raises(UserError, match="temperature is -1"):
        Chat(configuration(config(tiny_model)), tiny_model, temperature=-1)


def test_replies_for_people() -> None:
    items = (
        ItemVerdict(0, 5, "rejected", 0.0, "in_catalog", 0),
        ItemVerdict(5, 9, "rejected", 0.0, "out_of_catalog", 1),
    )
    listed = Verdict("rejected", 0.0, "no_hit", items, evidence={"items": ["Alien (1979)", None]})
    lines = render(Reply("alien\nhm?\n", listed, 0.1)).split("\n")
    assert [" ".join(line.split()) for line in lines] == ["1. Alien (1979) in catalog", "2. hm? out of catalog"]
    proved = Verdict("accepted", 1.0, "proved", assurance="kernel_replayed")
    assert render(Reply("by trivial", proved, 0.1)) == "by trivial\n  [accepted: proved, kernel_replayed]"
    assert render(Reply("so", None, 0.1)) == "so"
    parts = (ItemVerdict(5, 23, "accepted", 1.0, "needed"),)
    failed = Verdict("rejected", 0.0, "failed", parts, assurance="elaborated")
    lines = render(Reply("by\n  have h : True := _\n  exact h", failed, 0.1)).split("\n")
    assert lines[3:] == ["  [rejected: failed, elaborated]", "  [accepted: needed] have h : True := _"]


def test_the_command_takes_lines(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config(tiny_model)))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SAID}\n\n{SAID}\n{'p ' * 500}\n{SAID}\n"))
    assert main(["chat", str(file), "--model", tiny_model, "--json"]) == 0
    out, err = capsys.readouterr()
    first, second, third = [json.loads(line) for line in out.splitlines()]
    assert first["text"] == second["text"], "an empty line begins anew"
    assert "begin anew" in err
    assert third["text"] == first["text"], "what was too long is forgotten"
    assert set(first) == {"text", "verdict", "seconds"}
