"""Where the model under test runs: a server that a command starts, workers on a cluster.

None of this is a field of `RunConfig`, so no run folder can hold it: only the person who runs the
command says what it starts and on whose machines, in its options or in a file of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from refusalkit.config.run_config import WHERE, Cli, RunConfig, RunOptions, places_of
from refusalkit.display import notebook_table
from refusalkit.errors import ConfigurationError
from refusalkit.untrusted import printable

Engine = Literal["ray"]

# A file that is merely found in a folder may not start workers on a cluster.
_PLACE = Cli("placement", WHERE, steers=True)


class Placement(BaseModel):
    """Where the model under test runs: a server to start, a cluster, or files for a batch job."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    serve: Annotated[str | None, Cli("placement", WHERE, metavar="COMMAND", steers=True)] = None
    """Start this server and send it the requests; {port} and {model} are filled in."""
    serve_wait_s: Annotated[
        float,
        Field(gt=0, le=86400),
        Cli("placement", WHERE, name="--serve-wait", metavar="SECONDS", steers=True),
    ] = 1200.0
    """Seconds that the server of --serve may take to start."""
    engine: Annotated[Engine | None, _PLACE] = None
    """Send the requests from workers on a Ray cluster (pip install ray)."""
    workers: Annotated[int, Field(ge=1, le=4096), _PLACE] = 1
    """With --engine ray: the number of workers."""
    cpus: Annotated[float, Field(ge=0, le=4096), _PLACE] = 1.0
    """With --engine ray: CPUs that each worker reserves."""
    gpus: Annotated[float, Field(ge=0, le=1024), _PLACE] = 0.0
    """GPUs for the server; with --engine ray: GPUs that each worker reserves."""

    batch_to: Annotated[str | None, Cli("placement", WHERE, metavar="DIR", steers=True)] = None
    """Write the model's requests to files here, for `vllm run-batch`."""

    @field_validator("serve")
    @classmethod
    def _serve_is_a_command(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty: name the server's command")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Placement:
        given = self.model_fields_set
        if self.engine is None and given & {"workers", "cpus"}:
            raise ValueError("workers and cpus belong to a cluster: give engine ray too")
        if self.serve is None and "serve_wait_s" in given:
            raise ValueError("serve_wait_s says how long serve may take: give serve too")
        if self.serve is None and self.engine is None and "gpus" in given:
            raise ValueError("gpus are for serve, or for the workers of engine ray: give one too")
        if self.batch_to is not None and self:
            raise ValueError(
                "batch_to writes requests to be answered offline: leave out serve and engine"
            )
        return self

    def __bool__(self) -> bool:
        """Whether a server or a cluster was asked for; False if the configured endpoint serves."""
        return self.serve is not None or self.engine is not None

    @property
    def on_record(self) -> dict[str, Any]:
        """What a session records of it; of a server's command, which may hold a key, no word."""
        if not self:
            return {}
        said: dict[str, Any] = {"serve": True} if self.serve is not None else {}
        if self.engine is not None:
            said |= {"engine": self.engine, "workers": self.workers}
        return {**said, "gpus": self.gpus} if self.gpus else said

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """Only what differs from the defaults; of a server's command only that there is one."""
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                yield name, True if name == "serve" else value

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), str(value)) for name, value in self.__repr_args__()]
        return notebook_table("Placement", ("", ""), rows)


PLACES = {**places_of(RunConfig), **places_of(Placement)}
"""Every option of a run, with its place on the command line."""

EVERY_OPTION = {
    field: place.name or f"--{field.replace('_', '-')}" for field, place in PLACES.items()
}
"""How the command line spells every option of a run, with its dashes."""

PLACEMENT_NAMES = frozenset(Placement.model_fields)


class PlacementOptions(TypedDict, total=False):
    """Keyword arguments that say where the model runs: the fields of `Placement`."""

    serve: str | None
    serve_wait_s: float
    engine: Engine | None
    workers: int
    cpus: float
    gpus: float
    batch_to: str | None


class PlacedOptions(RunOptions, PlacementOptions, total=False):
    """Keyword arguments of a run, and where its model runs."""


def split_placement(
    options: Mapping[str, Any], where: Mapping[str, str] | None = None
) -> tuple[Placement, dict[str, Any]]:
    """The placement among the options, and the other options.

    `where` says where each was given. Raises `ConfigurationError`, which names that place and the
    option.
    """
    mine = {n: v for n, v in options.items() if n in PLACEMENT_NAMES and v is not None}
    rest = {name: value for name, value in options.items() if name not in PLACEMENT_NAMES}
    try:
        return Placement.model_validate(mine), rest
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        what = printable(first["msg"].removeprefix("Value error, "))
        place = (where or {}).get(field, "the configuration")
        named = f"{EVERY_OPTION[field].removeprefix('--')}: " if field else ""
        raise ConfigurationError(f"{place}: {named}{what}") from error
