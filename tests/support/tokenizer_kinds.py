"""Small tokenizers of the kinds that models have: byte-level BPE, byte fallback (Gemma, Llama 2), WordPiece, Unigram."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "theorem t (p q : Prop) : p ∧ q → q ∨ p := fun h => Or.inl h.2",
    "What is 2 + 2? The answer isn't 5, it's 4. Don't guess!",
    "user: weather in Oslo? assistant: 18C, naïve façade 🙂",
]
CHATML = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SPECIAL = ["<pad>", "<eos>", "<s>", "<|im_start|>", "<|im_end|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level() -> Tokenizer:
    """As GPT-2's, Llama 3's and Qwen's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=350, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _fallback(first: list[Any], last: list[Any]) -> Tokenizer:
    letters = sorted({letter for text in CORPUS for letter in text if letter.isascii() and letter != " "})
    pieces = ["<unk>", *BYTES, "▁", *letters, "▁t", "he", "▁the"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, byte_fallback=True, unk_token="<unk>"
        )
    )
    backend.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last])
    return backend


def gemma() -> Tokenizer:
    """As Gemma's: bytes for letters without a piece, no space put before the text."""
    return _fallback([], [])


def llama2() -> Tokenizer:
    """As Llama 2's, Mistral's and Phi-3's: a space is put before the text and stripped in decoding."""
    return _fallback([normalizers.Prepend("▁")], [decoders.Strip(" ", 1, 0)])


def wordpiece() -> Tokenizer:
    """As BERT's, whose decoder removes spaces before punctuation."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=True)
    backend.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    )
    return backend


def unigram() -> Tokenizer:
    """As T5's, with Metaspace."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False),
    )
    return backend


def word_level() -> Tokenizer:
    """A list of words, without a decoder: they are joined by spaces."""
    words = sorted({word for text in CORPUS for word in text.split()})
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level, "gemma": gemma, "llama2": llama2, "wordpiece": wordpiece, "unigram": unigram,
    "word_level": word_level,
}  # fmt: skip


def write(folder: Path, kind: str = "byte_level", *, template: Any = CHATML, bos: bool = False, **named: Any) -> Path:
    """Write a tokenizer of a kind.

    Args:
        folder: target folder.
        kind: key of `KINDS`.
        template: chat template, or several by name; None for none.
        bos: put ``<s>`` before every text.
        named: names of special tokens; ``eos_token`` is ``<eos>`` unless given.
    """
    backend = KINDS[kind]()
    backend.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in SPECIAL])
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
        )
        named = {"bos_token": "<s>", **named}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **{"eos_token": "<eos>", **named})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    return folder
