"""The command that makes one run of its shards: merge."""

from __future__ import annotations

import click

from refusalkit.cli.exit_codes import INCOMPLETE, OK
from refusalkit.cli.options import arg, opt
from refusalkit.types import Unscored
from refusalkit.untrusted import printable

# How many missing shards are listed; --json has all.
_SHOWN = 20
# What a resume asks again.
OWED = (Unscored.OWED, Unscored.ERROR, Unscored.JUDGE_ERROR, Unscored.MISSING_VOTE)


@click.command(epilog="Example: refusalkit merge runs/part-* --out runs/whole")
@arg("shards", metavar="SHARD...", nargs=-1, required=True)
@opt("--out", metavar="DIR", required=True, help="The folder of the whole run.")
@opt("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def merge(shards: tuple[str, ...], out: str, as_json: bool) -> int:
    """Merge the SHARDs of a run, made with `run --shard K/N`, into one run.

    Shards with different prompts, configurations or judges are refused. Exit 3 if units of a shard,
    or whole shards, are missing: `refusalkit resume` completes the merged run.
    """
    import refusalkit
    from refusalkit.reporting import data

    merged = refusalkit.merge(shards, out)
    found = refusalkit.score(merged.run)
    owed = sum(found.unscored.get(why, 0) for why in OWED)
    if as_json:
        click.echo(
            data.to_json(
                {
                    "run": str(merged.run.path),
                    "n_shards": merged.n_shards,
                    "missing": list(merged.missing),
                    "n_units": found.n_units,
                    "n_owed": owed,
                }
            )
        )
    else:
        given = merged.n_shards - len(merged.missing)
        click.echo(
            f"{printable(merged.run.path, 400)}: {given} of {merged.n_shards} shards, "
            f"{found.n_units - owed} of {found.n_units} units"
        )
    for path in merged.running:
        click.echo(f"refusalkit: {printable(path)} had not ended when it was read", err=True)
    if merged.missing:
        names = ", ".join(f"{n}/{merged.n_shards}" for n in merged.missing[:_SHOWN])
        more = f" and {len(merged.missing) - _SHOWN:,} more" if len(merged.missing) > _SHOWN else ""
        click.echo(f"refusalkit: missing shards, owed: {names}{more}", err=True)
    return INCOMPLETE if owed else OK
