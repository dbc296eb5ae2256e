"""What settings of TRL, verl, PEFT, transformers and OpenRLHF are called here, for messages about unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from rlpost.config.schema import RunConfig
from rlpost.config.section import Section
from rlpost.config.strict import members

_NAMES: dict[str, tuple[str, ...]] = {
    "run.name": ("run_name", "experiment_name", "exp_name"),
    "run.output_dir": ("default_local_dir", "save_path", "logging_dir"),
    "run.steps": ("max_steps", "total_training_steps", "total_epochs", "num_train_epochs", "num_episodes", "epochs"),
    "run.checkpoint_every": ("save_steps", "save_freq", "save_strategy", "checkpoint_interval"),
    "run.keep_checkpoints": ("save_total_limit", "max_ckpt_num", "max_actor_ckpt_to_keep"),
    "run.seed": ("data_seed", "random_seed"),
    "model.path": ("model", "model_name", "model_name_or_path", "pretrain", "base_model", "model_id"),
    "model.dtype": ("bf16", "fp16", "torch_dtype", "precision", "mixed_precision"),
    "data.train": ("dataset", "dataset_name", "train_files", "train_file", "prompt_data", "train_dataset"),
    "data.eval": ("val_files", "val_file", "eval_dataset", "eval_file", "test_files"),
    "data.chat_template": ("system_prompt", "apply_chat_template", "messages"),
    "data.prompt_key": ("input_key", "prompt_column", "dataset_text_field"),
    "data.max_prompt_tokens": ("max_prompt_length", "prompt_max_len", "max_prompt_len"),
    "rollout.group_size": (
        "num_generations", "n", "rollout_n", "n_samples_per_prompt", "num_samples", "num_return_sequences",
    ),
    "rollout.prompts_per_step": (
        "train_batch_size", "rollout_batch_size", "per_device_train_batch_size", "gradient_accumulation_steps",
        "generation_batch_size", "batch_size",
    ),
    "rollout.max_tokens": (
        "max_completion_length", "max_new_tokens", "response_length", "max_response_length", "generate_max_len",
        "max_gen_len",
    ),
    "rollout.max_model_len": (
        "vllm_max_model_length", "max_length", "max_seq_length", "max_seq_len", "max_num_batched_tokens",
    ),
    "rollout.gpu_memory_utilization": ("vllm_gpu_memory_utilization", "vllm_gpu_memory_util", "gpu_mem_util"),
    "rollout.tensor_parallel": (
        "tensor_model_parallel_size", "tensor_parallel_size", "vllm_tensor_parallel_size", "tp", "tp_size",
    ),
    "rollout.stop": ("stop_strings", "stop_sequences", "eos_token"),
    "rollout.constraint": (
        "guided_decoding", "guided_decoding_regex", "vllm_guided_decoding_regex", "structured_outputs",
        "logits_processors", "prefix_allowed_tokens_fn",
    ),
    "rollout.engine": ("use_vllm", "vllm_mode", "backend"),
    "scoring.rewards": (
        "reward_funcs", "reward_fn", "reward_function", "reward_model", "reward_weights", "custom_reward_function",
    ),
    "scoring.truncated": ("mask_truncated_completions", "overlong_filtering"),
    "algorithm.recipe": ("adv_estimator", "advantage_estimator", "algo"),
    "algorithm.kl.coef": ("beta", "kl_coef", "kl_loss_coef", "init_kl_coef", "kl_ctrl", "use_kl_loss", "kl_beta"),
    "algorithm.kl.kind": ("kl_loss_type", "kl_penalty", "kl_estimator"),
    "algorithm.clip": (
        "epsilon", "epsilon_high", "clip_ratio", "clip_ratio_low", "clip_ratio_high", "cliprange", "clip_eps",
        "eps_clip",
    ),
    "algorithm.delta": ("clip_ratio_c", "dual_clip"),
    "algorithm.std": ("scale_rewards", "norm_adv_by_std_in_grpo", "normalize_advantages", "whiten_rewards"),
    "algorithm.aggregate": ("loss_type", "loss_agg_mode", "loss_aggregation"),
    "algorithm.epochs": ("num_iterations", "ppo_epochs", "num_ppo_epochs", "max_epochs"),
    "algorithm.minibatch_size": ("ppo_mini_batch_size", "mini_batch_size", "mini_batch"),
    "algorithm.ratio": ("importance_sampling_level",),
    "algorithm.importance.cap": ("vllm_importance_sampling_cap", "tis_imp_ratio_cap", "rollout_is_threshold"),
    "algorithm.filter": ("filter_groups", "dynamic_sampling", "dynamic_filtering"),
    "tuning.method": ("use_peft", "peft_config", "use_lora"),
    "tuning.lora.r": ("rank", "lora_r", "lora_rank"),
    "tuning.lora.alpha": ("lora_alpha",),
    "tuning.lora.targets": ("target_modules", "lora_target_modules"),
    "tuning.lora.init": ("init_lora_weights",),
    "tuning.lora.rslora": ("use_rslora",),
    "optimizer.name": ("optim", "optimizer_type"),
    "optimizer.lr": ("lr", "learning_rate", "actor_learning_rate", "actor_lr", "max_lr"),
    "optimizer.betas": ("adam_beta1", "adam_beta2", "adam_betas"),
    "optimizer.eps": ("adam_epsilon",),
    "optimizer.grad_clip": ("max_grad_norm", "clip_grad", "max_norm", "gradient_clipping"),
    "optimizer.schedule": ("lr_scheduler_type", "lr_scheduler", "warmup_style", "lr_schedule"),
    "optimizer.warmup_steps": ("warmup_ratio", "lr_warmup_steps", "lr_warmup_ratio", "num_warmup_steps", "warmup"),
    "learner.zero_stage": ("deepspeed", "fsdp", "zero", "stage"),
    "learner.workers": ("num_processes", "n_gpus_per_node", "nproc_per_node", "world_size", "dp_size"),
    "learner.micro_tokens": (
        "micro_train_batch_size", "ppo_max_token_len_per_gpu", "ppo_micro_batch_size_per_gpu", "micro_batch_size",
    ),
    "learner.attention": ("attn_implementation", "flash_attn", "flash_attention"),
    "evaluation.every": ("eval_steps", "test_freq", "eval_strategy", "evaluation_strategy", "eval_freq"),
    "evaluation.before": ("val_before_train",),
    "logging.wandb_project": ("report_to", "project_name", "project", "wandb", "use_wandb", "logger"),
    "logging.transcripts_every": ("log_completions", "num_completions_to_print", "log_val_generations"),
    "logging.progress": ("disable_tqdm", "logging_steps"),
}  # fmt: skip
"""Key here to names elsewhere."""

_WITHOUT = {
    "lora_dropout": "there is no dropout: the trained policy would differ from the sampled one; remove it",
    "dropout": "there is no dropout: the trained policy would differ from the sampled one; remove it",
    "ref_model": "the reference is the starting policy, loaded where algorithm.kl.coef is above 0; remove it",
    "critic": "there is no critic: advantages are relative to the group; remove it",
    "gamma": "there is no discount; remove it",
    "lam": "there is no critic; remove it",
}
"""Names elsewhere of what is not here, with the reason."""


def hint(path: Sequence[str]) -> str:
    """What to do about an unknown key: the nearest known one, or what it is called here.

    >>> hint(("optimizer", "learning_rate")), hint(("seed",))
    ('did you mean optimizer.lr?', 'did you mean run.seed?')
    """
    *section, name = path
    known = keys_of(section)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    elsewhere = _renamed(name.lower().replace("-", "_"), ".".join(section))
    if elsewhere is not None and elsewhere in _WITHOUT.values():
        return elsewhere
    best = ".".join((*section, close[0])) if close else elsewhere
    if best is None:
        looser = difflib.get_close_matches(name, known, n=1, cutoff=0.55)
        best = ".".join((*section, looser[0])) if looser else None
    return f"did you mean {best}?" if best else f"known here: {', '.join(known)}"


def _renamed(name: str, section: str) -> str | None:
    if name in _WITHOUT:
        return _WITHOUT[name]
    found = [key for key, names in _NAMES.items() if name in names]
    found += [".".join(path) for path in _leaves() if path[-1] == name]
    # the same name in several sections: the one below where it was written, else the first
    return next((key for key in found if section and key.startswith(f"{section}.")), found[0] if found else None)


def keys_of(section: Sequence[str]) -> list[str]:
    """The keys of a section; empty if there is no such section."""
    model = section_at(section)
    return list(model.model_fields) if model else []


def section_at(path: Sequence[str]) -> type[Section] | None:
    """The section at a path; None if there is none."""
    model: type[Section] | None = RunConfig
    for key in path:
        field = model.model_fields.get(key) if model else None
        if field is None:
            return None
        parts = members(field.annotation)
        model = next((part for part in parts if isinstance(part, type) and issubclass(part, Section)), None)
    return model


def _leaves(path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key in keys_of(path):
        yield (*path, key)
        if section_at((*path, key)) is not None:
            yield from _leaves((*path, key))
