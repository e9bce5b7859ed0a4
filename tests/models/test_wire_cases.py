"""Every reply of the case file becomes what it has to, by the real clients over real sockets."""

from __future__ import annotations

import pytest

from wire_cases import WireCase, each_case, keys, play

__all__ = ["keys"]

# To be put right: each is taken off the list as it is.
PENDING = """
    ds_risk ds_detail glm1301 glm_sens xai403 newapi gem_safety gem_cf gem_prohib
    litellm_guard or_native_stoprefusal eos eos_token fin_STOP fin_empty fin_null fin_error
    t_THINK t_seed t_reasoning t_thought t_harmony t_nested t_twice list_reason_text t_literal
    t_literal_rc t_THINK_cut t_harm_cut ctok eot gemk mis_dict mis_detail g_recit g_lang
"""


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn", pending=PENDING)
def test_a_models_reply_becomes_what_it_says(case: WireCase) -> None:
    assert play(case).wrong is None
