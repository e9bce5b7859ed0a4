"""Which model families a name belongs to, to point out a judge of the target's own family.

Judges may favour answers like their own (Panickssery et al., arXiv 2404.13076). Nothing is inferred
beyond the name: a fine-tune whose name hides its base is not recognised.
"""

from __future__ import annotations

import re

# Providers that serve only their own family.
_PROVIDERS = {
    "anthropic": "Claude",
    "gemini": "Gemini",
    "deepseek": "DeepSeek",
    "mistral": "Mistral",
    "codestral": "Mistral",
    "xai": "Grok",
    "moonshot": "Kimi",
    "zai": "GLM",
}
# Words in a name. A model may be of several families: DeepSeek-R1-Distill-Llama is of two.
_WORDS = {
    "Claude": r"claude",
    "GPT": r"gpt(?!-?(?:j|neo))|chatgpt|davinci",
    "Gemini": r"gemini|gemma|codegemma|shieldgemma|palm",
    "Llama": r"llama|codellama",
    "Mistral": r"mistral|mixtral|ministral|magistral|codestral|devstral|pixtral",
    "Qwen": r"qwen|qwq|qvq",
    "DeepSeek": r"deepseek",
    "Grok": r"grok",
    "Hermes": r"hermes|openhermes",
    "Kimi": r"kimi",
    "GLM": r"glm|chatglm",
    "Command": r"command-?[ar]|aya",
    "Phi": r"phi",
    "Seed": r"seed-oss",
}
_FAMILIES = {name: re.compile(rf"(?<![a-z])(?:{words})(?![a-z])") for name, words in _WORDS.items()}
# Names of OpenAI's o series could be part of other names: they must begin the name.
_O_SERIES = re.compile(r"(?:^|/)o[1-9](?:-|$)")
# The base of each Hermes (from its model card); where the name says neither base nor size, all
# possible ones.
_HERMES_BASES = (
    (re.compile(r"llama|mistral|mixtral|qwen"), ()),
    (re.compile(r"hermes-?4[.-]3"), ("Seed",)),
    (re.compile(r"hermes-?4.*(?<!\d)14b"), ("Qwen",)),
    (re.compile(r"hermes-?4.*(?<!\d)(?:70|405)b|hermes-?3"), ("Llama",)),
    (re.compile(r"hermes-?4"), ("Llama", "Qwen")),
)


def families(model: str) -> tuple[str, ...]:
    """The families that a model's id names, ``provider/name`` or a bare name; none if unknown.

    A model that was made from another is of that one's family too: Hermes 4 70B is Hermes and
    Llama.
    """
    name = model.lower().replace("_", "-").replace(" ", "-")
    found = [family for family, words in _FAMILIES.items() if words.search(name)]
    provider = name.partition("/")[0]
    if _O_SERIES.search(name):
        found.append("GPT")
    if provider in _PROVIDERS:
        found.append(_PROVIDERS[provider])
    if "Hermes" in found:
        bases = next((bases for name_of, bases in _HERMES_BASES if name_of.search(name)), ())
        found.extend(bases)
    return tuple(dict.fromkeys(found))


def same_family(model: str, judge_model: str | None) -> str | None:
    """The family that a model and its judge's model share, or None; several are joined by "and".

    Args:
        model: the id of the model under test.
        judge_model: the id of the judge's model, None for a judge without one.

    Examples:
        >>> import refusalkit as rk
        >>> rk.same_family("NousResearch/Hermes-4-70B", "groq/llama-3.3-70b")
        'Llama'
    """
    judges = families(judge_model) if judge_model else ()
    shared = [family for family in families(model) if family in judges]
    return " and ".join(shared) or None
