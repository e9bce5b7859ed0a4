"""One run's configuration: where a value comes from, and what may change on resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusalkit.config.layers import Layer
from refusalkit.config.option_files import read_config
from refusalkit.config.presets import PRESETS
from refusalkit.config.resolve import check_unchanged, resolve_config
from refusalkit.config.run_config import OPERATIONAL, OPTION_NAMES, RunConfig
from refusalkit.errors import ConfigurationChanged, ConfigurationError

MODEL = "openai/gpt-6-luna"
CHOSEN_FOR = {"inversion": "prompts", "judge_model": "judge", "judge_temperature": "judge"}
names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=3, max_size=12)
# For each field two or more values that differ.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model": names.map("openai/{}".format),
    "prompts": names,
    "hard_line": st.lists(names, max_size=2).map(tuple),
    "inversion": st.sampled_from(["paper", "atropos", "none"]),
    "lang": st.sampled_from(["fr", "pt-BR"]),
    "category": st.lists(names, max_size=2).map(tuple),
    "tag": st.lists(names, max_size=2).map(tuple),
    "danger": st.lists(st.integers(1, 3), max_size=2).map(tuple),
    "limit": st.integers(1, 500),
    "limit_seed": st.integers(0, 500),
    "framings": st.sampled_from([(), ("fiction",), ("professional", "insistence")]),
    "pressure": st.integers(0, 8),
    "trials": st.integers(1, 1000),
    "temperature": st.floats(0, 2),
    "top_p": st.floats(0.1, 1),
    "top_k": st.integers(1, 100),
    "no_temperature": st.booleans(),
    "no_top_p": st.booleans(),
    "no_top_k": st.booleans(),
    "max_tokens": st.integers(1, 100_000),
    "seed": st.integers(0, 500),
    "system": names,
    "reasoning": st.sampled_from(["off", "on", "auto"]),
    # Of letters that spell no secret: a field named x-jwt is refused, as it should be (below).
    "extra_body": st.dictionaries(st.text("abcdf_", min_size=1), st.integers(), max_size=2),
    "via": st.sampled_from([None, "litellm"]),
    "api_base": names.map("http://localhost:8000/a{}".format),
    "api_key_env": st.sampled_from(["MY_KEY", "OTHER_KEY"]),
    "judge": names,
    "judge_model": names.map("openai/{}".format),
    "judge_temperature": st.floats(0, 2),
    "judge_asks": st.integers(1, 5),
    "judge_via": st.sampled_from([None, "litellm"]),
    "council": st.sampled_from(["majority", "unanimous", "any"]),
    "judge_fallback": names,
    "hard_line_judge": names,
    "judge_api_base": names.map("https://judge.example/a{}".format),
    "judge_api_key_env": st.sampled_from(["MY_KEY", "OTHER_KEY"]),
    "count_deflection": st.booleans(),
    "keep_hard_line_text": st.booleans(),
    "concurrency": st.integers(1, 65536),
    "rpm": st.floats(0.5, 1000),
    "judge_rpm": st.floats(0.5, 1000),
    "tpm": st.floats(0.5, 1e6),
    "judge_tpm": st.floats(0.5, 1e6),
    "judge_concurrency": st.integers(1, 65536),
    "timeout_s": st.floats(1, 86400),
    "max_retries": st.integers(0, 50),
    "max_wait_s": st.integers(1, 86_400),
    "finish_word": st.lists(st.just("quantum_flux=answered"), max_size=1).map(tuple),
    "max_cost": st.floats(0.5, 1000),
    "canaries": st.integers(0, 1000),
    "batch": st.sampled_from(["model", "judge", "both"]),
    "wait": st.booleans(),
}


def with_model(layer: Layer) -> Layer:
    return Layer({"model": MODEL}).under(layer)


def toml_of(options: dict[str, Any]) -> str:
    """The options as TOML; JSON's way of writing these values is TOML's, tables aside."""
    lines = []
    for field, value in options.items():
        name = OPTION_NAMES[field].removeprefix("--")
        if isinstance(value, dict):
            inner = ", ".join(f'"{key}" = {number}' for key, number in value.items())
            lines.append(f"{name} = {{{inner}}}")
        elif value is not None:
            lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def chosen(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    return {name: draw(VALUES[name]) for name in names}


@st.composite
def layers(draw: st.DrawFn) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """A preset, the options of a file, and those of a command line."""
    fields = st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=8)
    in_file, on_line = chosen(draw, draw(fields)), chosen(draw, draw(fields))
    in_file.pop("model", None)
    return draw(st.sampled_from([None, *PRESETS])), in_file, on_line


# Fields that hold only together: a bound and a number of leaks need a rule to stop by.
TOGETHER = {"order_seed", "stop_when", "bound", "max_leaks", "shard"}


def test_every_field_is_tested_here() -> None:
    assert {*VALUES, *TOGETHER, "preset"} == set(RunConfig.model_fields)


class TestLayers:
    @settings(deadline=None)
    @given(layers())
    def test_defaults_below_preset_below_file_below_command_line(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        given_layers: tuple[str | None, dict[str, Any], dict[str, Any]],
    ) -> None:
        preset, in_file, on_line = given_layers
        in_file = {name: value for name, value in in_file.items() if value is not None}
        file = tmp_path_factory.mktemp("config") / "mine.toml"
        file.write_text(toml_of(in_file), encoding="utf-8")
        options = {"model": MODEL, **({"preset": preset} if preset else {}), **on_line}
        config = resolve_config(read_config(file).under(Layer(options)))
        for name in ("temperature", "top_p", "top_k"):
            # One replaces the other, wherever it is given.
            if options.get(f"no_{name}"):
                in_file.pop(name, None)
            if name in options:
                in_file.pop(f"no_{name}", None)
        if "judge" in in_file and options.get("judge", in_file["judge"]) != in_file["judge"]:
            in_file.pop("judge_model", None)
            in_file.pop("judge_temperature", None)
        of_preset = dict(PRESETS.get(preset or "", {}))
        for name, of in CHOSEN_FOR.items():
            if of in {*options, *in_file}:
                of_preset.pop(name, None)
        for name in VALUES:
            expected = RunConfig.model_fields[name].get_default(call_default_factory=True)
            expected = of_preset.get(name, expected)
            expected = options.get(name, in_file.get(name, expected))
            assert getattr(config, name) == expected, name

    def test_a_preset_may_stand_in_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text('preset = "paper"\ntrials = 2\n')
        config = resolve_config(with_model(read_config(tmp_path / "a.toml")))
        assert (config.judge, config.trials) == ("refusalbench", 2)

    def test_the_paper_preset_is_what_the_paper_says(self) -> None:
        config = resolve_config({"model": MODEL, "preset": "paper"})
        assert (config.trials, config.temperature, config.top_p, config.top_k) == (5, 0.6, 0.95, 20)
        assert (config.judge_name, config.judge_asks) == ("refusalbench", 1)
        assert (config.system, config.judge_temperature, config.inversion) == (None, None, None)

    def test_the_atropos_preset_is_what_the_reference_environment_does(self) -> None:
        config = resolve_config({"model": MODEL, "preset": "atropos"})
        assert (config.trials, config.temperature, config.top_p, config.top_k) == (
            1,
            0.6,
            None,
            None,
        )
        assert (config.prompts, config.inversion) == ("refusalbench", "atropos")
        assert (config.judge_temperature, config.judge_asks) == (0.2, 1)
        assert config.system
        assert config.system.isascii()

    @pytest.mark.parametrize(
        ("chosen", "inversion"),
        [
            ("refusalbench", "atropos"),
            ("refusalbench@main", "atropos"),
            ("refusalbench:my-copy.jsonl", "atropos"),
            ("starter, refusalbench", "atropos"),
            ("starter", None),
            ("refusalbench-like", None),
        ],
    )
    def test_a_presets_list_of_hard_lines_is_for_its_own_prompts(
        self, chosen: str, inversion: str | None
    ) -> None:
        options = {"model": MODEL, "preset": "atropos", "prompts": chosen}
        assert resolve_config(options).inversion == inversion
        assert resolve_config({**options, "inversion": "none"}).inversion == "none"

    def test_a_presets_judge_model_and_temperature_are_for_its_own_judge(self) -> None:
        atropos = {"model": MODEL, "preset": "atropos"}
        other = resolve_config({**atropos, "judge": "lexical"})
        assert (other.judge_model, other.judge_temperature) == (None, None)
        same = resolve_config({**atropos, "judge": "refusalbench", "judge_model": "openai/j"})
        assert (same.judge_model, same.judge_temperature) == ("openai/j", 0.2)

    def test_a_demo_model_is_judged_without_a_key(self) -> None:
        assert resolve_config({"model": "demo/mixed"}).judge_name == "lexical"
        assert resolve_config({"model": MODEL}).judge_name == "graded"
        assert resolve_config({"model": "demo/mixed", "judge": "graded"}).judge_name == "graded"

    def test_a_resumed_run_keeps_what_it_was_started_with(self) -> None:
        started = resolve_config({"model": MODEL, "trials": 2, "rpm": 10, "preset": "paper"})
        resumed = resolve_config({"rpm": 20}, base=started)
        assert resumed == started.model_copy(update={"rpm": 20.0})

    def test_the_generation_config_is_part_of_it(self) -> None:
        config = resolve_config({"model": MODEL, "seed": 3, "system": "[system]", "timeout_s": 9})
        asked = config.generation
        assert (asked.seed, asked.system, asked.timeout_s) == (3, "[system]", 9.0)


class TestDigest:
    @settings(deadline=None)
    @given(st.data(), st.sampled_from(sorted(VALUES)))
    def test_changes_with_what_is_measured_and_with_nothing_else(
        self, data: st.DataObject, name: str
    ) -> None:
        started = RunConfig(model=MODEL)
        value = data.draw(VALUES[name])
        changed = started.model_copy(update={name: value})
        same = value == getattr(started, name)
        assert (changed.digest == started.digest) == (same or name in OPERATIONAL)
        if changed.digest == started.digest:
            check_unchanged(started, changed)
        else:
            with pytest.raises(ConfigurationChanged, match=f"^{name} is .* but the run was"):
                check_unchanged(started, changed)

    def test_options_that_were_not_chosen_leave_older_digests_as_they_were(self) -> None:
        started = RunConfig(model=MODEL)
        late = {"inversion", "lang", "judge_temperature", "judge_asks", "framings"}
        late.add("pressure")
        late |= {"council", "judge_fallback", "hard_line_judge", *TOGETHER}
        late |= {"no_temperature", "no_top_p", "no_top_k"}
        assert late.isdisjoint(started.measured)
        assert set(started.measured) == set(RunConfig.model_fields) - OPERATIONAL - late

    def test_survives_the_manifest(self) -> None:
        config = resolve_config({"model": MODEL, "category": ["weapons"], "extra_body": {"a": [1]}})
        stored = json.loads(json.dumps(config.model_dump(mode="json")))
        assert RunConfig.model_validate(stored).digest == config.digest

    def test_the_message_for_a_changed_option_is_short(self) -> None:
        started = RunConfig(model=MODEL)
        with pytest.raises(ConfigurationChanged) as caught:
            check_unchanged(started, started.model_copy(update={"system": "[long] " * 500}))
        assert len(str(caught.value)) < 300


class TestNothingSecretIsWritten:
    """The configuration goes into the manifest, so it must not hold a key."""

    @pytest.mark.parametrize("field", ["api_base", "judge_api_base"])
    @pytest.mark.parametrize(
        "url",
        [
            "https://user:password@host.example/v1",
            "https://user@host.example/v1",
            "https://host.example/v1?key=abcdef",
            "https://host.example/v1#key=abcdef",
        ],
    )
    def test_a_url_with_credentials_or_a_query_is_refused(self, field: str, url: str) -> None:
        with pytest.raises(ConfigurationError, match="holds credentials or a query") as caught:
            resolve_config({"model": MODEL, field: url})
        assert f"{field}: " in str(caught.value)
        assert "password" not in str(caught.value)
        assert "abcdef" not in str(caught.value)

    @pytest.mark.parametrize(
        "path",
        ["sk-abcdefghijklmnop1234567890abcd/v1", "v1/token/abcdef0123456789", "v1/key=abcdef"],
    )
    def test_a_url_with_a_key_in_its_path_is_refused(self, path: str) -> None:
        with pytest.raises(ConfigurationError, match="looks like a key in its path") as caught:
            resolve_config({"model": MODEL, "api_base": f"https://host.example/{path}"})
        assert "abcdef" not in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            "localhost:8000",
            "ftp://host.example",
            "http://",
            "http://[::1",
            "",
            "v1/chat",
            "http://localhost:port/v1",
            "http://localhost:99999/v1",
        ],
    )
    def test_what_is_no_url_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="api_base: "):
            resolve_config({"model": MODEL, "api_base": url})

    def test_a_trailing_slash_says_nothing(self) -> None:
        config = resolve_config({"model": MODEL, "api_base": "http://localhost:8000/v1/"})
        assert config.api_base == "http://localhost:8000/v1"

    @pytest.mark.parametrize(
        "body",
        [
            {"api_key": "abc"},
            {"API-KEY": "abc"},
            {"apikey": "abc"},
            {"Authorization": "Bearer abc"},
            {"password": "abc"},
            {"token": "abc"},
            {"access_token": "abc"},
            {"client_secret": "abc"},
            {"credential": "abc"},
            {"passwd": "abc"},
            {"headers": {"x-api-key": "abc"}},
            {"x-jwt": 0},
            {"tools": [{"server": {"auth_token": "abc"}}]},
        ],
    )
    def test_a_body_with_a_key_is_refused(self, body: dict[str, Any]) -> None:
        with pytest.raises(ConfigurationError, match=r"extra_body: .* looks like a key") as caught:
            resolve_config({"model": MODEL, "extra_body": body})
        assert "abc" not in str(caught.value)

    @pytest.mark.parametrize(
        "body",
        [
            {"max_completion_tokens": 5, "stop_token_ids": [1], "min_tokens": 1},
            {"chat_template_kwargs": {"thinking": True}},
            {"logit_bias": {"50256": -100}, "prompt_cache_key": "abc"},
            {"skip_special_tokens": False},
        ],
    )
    def test_a_body_without_one_is_taken(self, body: dict[str, Any]) -> None:
        assert resolve_config({"model": MODEL, "extra_body": body}).extra_body == body

    @pytest.mark.parametrize("field", ["api_key_env", "judge_api_key_env"])
    @pytest.mark.parametrize("key", ["sk-abcdefghijkl", "hf_abcdefghijkl", "AIzaSyabcdef", ""])
    def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(
        self, field: str, key: str
    ) -> None:
        with pytest.raises(
            ConfigurationError, match=f"{field}: must be the name of an environment"
        ) as caught:
            resolve_config({"model": MODEL, field: key})
        assert not key or key not in str(caught.value)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"model": ""}, "the configuration: model: String should have at least 1"),
            ({"trials": 0}, "trials: Input should be greater than or equal to 1"),
            ({"trials": 1001}, "trials: Input should be less than or equal to 1000"),
            ({"trials": "many"}, "trials: Input should be a valid integer"),
            ({"limit": 0}, "limit: Input should be greater"),
            ({"danger": [4]}, "danger.0: Input should be less than or equal to 3"),
            ({"temperature": -1}, "temperature: Input should be greater"),
            ({"temperature": float("nan")}, "temperature: Input should be a finite number"),
            ({"top_p": 0}, "top_p: Input should be greater than 0"),
            ({"rpm": float("inf")}, "rpm: Input should be a finite number"),
            ({"max_cost": 0}, "max_cost: Input should be greater than 0"),
            ({"max_cost": "5"}, "max_cost: Input should be a valid number"),
            ({"max_cost": True}, "max_cost: Input should be a valid number"),
            ({"reasoning": "maybe"}, "reasoning: Input should be 'off', 'on' or 'auto'"),
            ({"preset": "best"}, "preset: Input should be 'paper', 'atropos' or 'modern'"),
            ({"via": "pigeon"}, "via: Input should be 'litellm'"),
            ({"trails": 3}, "trails: is not a known field"),
            ({"extra_body": {"messages": []}}, "extra_body: messages cannot be set this way"),
            ({"extra_body": {"a": float("nan")}}, "extra_body: must hold only JSON"),
            ({"extra_body": {"a": {1, 2}}}, "extra_body: must hold only JSON values"),
            ({"extra_body": [1]}, "extra_body: Input should be a valid dictionary"),
        ],
    )
    def test_an_option_is_named(self, options: dict[str, Any], expected: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            resolve_config({"model": MODEL, **options})
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"trials = \n", "is not TOML: "),
            (b"trials = 5\ntrials = 6\n", "is not TOML: "),
            (b"\xff\xfet\x00", "is not UTF-8 (byte 0)"),
            (b"a = " + b"[" * 50_000, "is nested too deeply"),
            (b"a = " + b"1" * 5000, "is not TOML: "),
            (b"[run]\ntrials = 5\n", "mine.toml:1: run is not an option"),
            (
                b"trials = 5\n[extra-body]\na = 2020-01-01\n",
                ":2: extra-body: must hold only",
            ),
            (b"\n[model]\nid = 1\n", "mine.toml:2: the model is named on the command line"),
            (b"\n\n[[model]]\nid = 1\n", "mine.toml:3: the model is named on the command line"),
            (b'"\\u006dodel" = "x"\n', "mine.toml: the model is named on the command line"),
            (b"\n\ntrails = 5\n", "mine.toml:3: trails is not an option: did you mean trials?"),
            (b"judge_model = 'x/y'\n", "judge_model is not an option: did you mean judge-model?"),
            (b"limit = 3\n'trials' = 0\n", "mine.toml:2: trials: Input should be greater than"),
            (b"timeout = 'soon'\n", "mine.toml:1: timeout: Input should be a valid number"),
        ],
    )
    def test_a_file_is_named(self, tmp_path: Path, data: bytes, expected: str) -> None:
        (tmp_path / "mine.toml").write_bytes(data)
        with pytest.raises(ConfigurationError) as caught:
            resolve_config(with_model(read_config(tmp_path / "mine.toml")))
        assert "mine.toml" in str(caught.value)
        assert expected in str(caught.value)

    @pytest.mark.parametrize("name", ["nowhere.toml", ".", "x" * 300])
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigurationError, match=r"the configuration file .* cannot be read"):
            read_config(tmp_path / name)

    def test_a_byte_order_mark_does_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbftrials = 7\r\n")
        assert resolve_config(with_model(read_config(tmp_path / "a.toml"))).trials == 7
