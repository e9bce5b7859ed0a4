"""The options given in one place (a file, the command line), laid over those of another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from refusalkit.config.placement import EVERY_OPTION, PLACEMENT_NAMES, split_placement
from refusalkit.config.presets import PRESETS, preset_options
from refusalkit.config.run_config import RunConfig

# Each replaces the other: a temperature given in the upper layer cancels a --no-temperature below.
_OPPOSITES = {
    one: other
    for name in ("temperature", "top_p", "top_k")
    for one, other in ((name, f"no_{name}"), (f"no_{name}", name))
}
# Options that were chosen for one judge do not apply to another.
_CHOSEN_FOR = {"judge_model": "judge", "judge_temperature": "judge"}


@dataclass(frozen=True, slots=True)
class Layer:
    """Options by field of `RunConfig` or `Placement`, and where each is given: ``my.toml:3``."""

    values: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)

    def under(self, over: Layer) -> Layer:
        """Both layers; where both give an option, or opposite ones, that of `over` holds."""
        gone = {
            other
            for one, value in over.values.items()
            if value is not False and (other := _OPPOSITES.get(one)) is not None
        }
        for name, of in _CHOSEN_FOR.items():
            if of in self.values and over.values.get(of, self.values[of]) != self.values[of]:
                gone.add(name)
        kept = {name: value for name, value in self.values.items() if name not in gone}
        return Layer({**kept, **over.values}, {**self.where, **over.where})

    def without(self, *names: str) -> Layer:
        """The layer without these options."""
        return self.only(name for name in self.values if name not in names)

    def only(self, names: Iterable[str]) -> Layer:
        """The layer with only these options, as far as it has them."""
        kept = {name: self.values[name] for name in names if name in self.values}
        return Layer(kept, {name: self.where[name] for name in kept if name in self.where})


def sources(config: RunConfig, given: Layer) -> dict[str, tuple[Any, str]]:
    """The value of each option and the place that it comes from, in the order of the fields.

    The place of an option that was not given is ``preset NAME`` or ``default``.
    """
    preset = preset_options(given.values) if config.preset in PRESETS else {}
    placement, _ = split_placement(given.values, given.where)
    found = {}
    for name in EVERY_OPTION:
        place = given.where.get(name) if name in given.values else None
        if place is None:
            place = f"preset {config.preset}" if name in preset else "default"
        of = placement if name in PLACEMENT_NAMES else config
        found[name] = (getattr(of, name), place)
    return found
