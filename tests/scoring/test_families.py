"""A judge of the target's own family is recognised by name."""

from __future__ import annotations

import pytest

from refusalkit.scoring.families import families, same_family


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("anthropic/claude-sonnet-5-5", ("Claude",)),
        ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", ("Claude",)),
        ("openrouter/anthropic/claude-opus-5-5", ("Claude",)),
        ("openai/gpt-6-luna", ("GPT",)),
        ("openai/o3-mini", ("GPT",)),
        ("azure/o4-mini", ("GPT",)),
        ("openai/chatgpt-4o-latest", ("GPT",)),
        ("groq/openai/gpt-oss-120b", ("GPT",)),
        ("gemini/gemini-3.8-flash", ("Gemini",)),
        ("local/gemma-3-27b-it", ("Gemini",)),
        ("groq/llama-3.3-70b-versatile", ("Llama",)),
        ("hosted_vllm/meta-llama/Llama-3.1-8B-Instruct", ("Llama",)),
        ("local/TheBloke_Llama-2-70B-GPTQ", ("Llama",)),
        ("mistral/open-mixtral-8x22b", ("Mistral",)),
        ("mistral/some-new-name", ("Mistral",)),
        ("local/Ministral-8B", ("Mistral",)),
        ("Qwen/Qwen3-8B", ("Qwen",)),
        ("local/qwq-32b", ("Qwen",)),
        ("deepseek/deepseek-chat", ("DeepSeek",)),
        ("local/DeepSeek-R1-Distill-Llama-70B", ("Llama", "DeepSeek")),
        ("xai/grok-4", ("Grok",)),
        ("NousResearch/Hermes-4-405B", ("Hermes", "Llama")),
        ("local/hermes-4-70b", ("Hermes", "Llama")),
        ("local/hermes-4-14b", ("Hermes", "Qwen")),
        ("local/hermes-4", ("Hermes", "Llama", "Qwen")),
        ("local/Hermes-4.3-36B", ("Hermes", "Seed")),
        ("local/Hermes-3-Llama-3.1-405B", ("Llama", "Hermes")),
        ("local/Nous-Hermes-2-Mistral-7B-DPO", ("Mistral", "Hermes")),
        # What only looks like one.
        ("local/gpt-j-6b", ()),
        ("local/marco-o1", ()),
        ("local/graphite", ()),
        ("openai/judge", ()),
        ("demo/mixed", ()),
    ],
)
def test_a_name_says_its_families(model: str, expected: tuple[str, ...]) -> None:
    assert families(model) == expected


@pytest.mark.parametrize(
    ("model", "judge", "expected"),
    [
        ("anthropic/claude-haiku-5-5", "openrouter/anthropic/claude-sonnet-5-5", "Claude"),
        ("openai/gpt-6-luna", "anthropic/claude-sonnet-5-5", None),
        ("NousResearch/Hermes-4-70B", "groq/llama-3.3-70b", "Llama"),
        ("NousResearch/Hermes-4-70B", "local/Hermes-4-405B", "Hermes and Llama"),
        ("openai/gpt-6-luna", None, None),
        ("local/mystery", "local/mystery", None),
    ],
)
def test_a_shared_family_is_named(model: str, judge: str | None, expected: str | None) -> None:
    assert same_family(model, judge) == expected
