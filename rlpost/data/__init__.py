"""Data sets as prompts, chat templates, tokenizers, model folders, decontamination and the resumable sampler."""
