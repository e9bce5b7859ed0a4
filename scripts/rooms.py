"""Print the rooms of the package: their lines, floors, the imports between them, and circles.

    .venv/bin/python scripts/rooms.py            # this checkout
    .venv/bin/python scripts/rooms.py OTHER      # another checkout, such as an older one

A room is a package or module directly below `refusalkit`. Its floor is one above the highest floor
that it imports from; rooms in a circle share a floor. Arrows are pairs of rooms of which one
imports the other, imports are pairs of modules.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import grimp

PACKAGE = "refusalkit"


def room_of(module: str) -> str:
    """The room that a module is in; the package's own `__init__` is one."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def circles_of(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for start in arrows:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for target in arrows.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        reach[start] = seen
    found: list[set[str]] = []
    for node in arrows:
        group = {other for other in reach[node] if node in reach.get(other, ())}
        if group and group not in found:
            found.append(group)
    return found


def floors_of(arrows: dict[str, set[str]], rooms: list[str]) -> dict[str, int]:
    """The floor of each room, the lowest is 1."""
    together = {room: {room} for room in rooms}
    for circle in circles_of(arrows):
        for room in circle:
            together[room] = circle
    floors: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in floors:
            circle = together[room]
            below = {target for member in circle for target in arrows.get(member, ())} - circle
            height = 1 + max(map(floor, below), default=0)
            floors.update(dict.fromkeys(circle, height))
        return floors[room]

    for room in rooms:
        floor(room)
    return floors


def lines_of(source: Path, room: str) -> tuple[int, int]:
    """How many lines and modules a room has."""
    if (source / f"{room}.py").is_file():
        files = [source / f"{room}.py"]
    else:
        files = sorted((source / room).rglob("*.py"))
    return sum(len(f.read_text("utf-8").splitlines()) for f in files), len(files)


def inner_circles(graph: grimp.ImportGraph, modules: list[str]) -> list[str]:
    """Circles between the siblings of each package, however deep."""
    said = []
    packages = {name.rpartition(".")[0] for name in modules if "." in name}
    for package in sorted(packages - {PACKAGE}):
        arrows: dict[str, set[str]] = defaultdict(set)
        depth = package.count(".") + 1
        for importer in modules:
            for imported in graph.find_modules_directly_imported_by(importer):
                if importer.startswith(f"{package}.") and imported.startswith(f"{package}."):
                    a, b = importer.split(".")[depth], imported.split(".")[depth]
                    if a != b:
                        arrows[a].add(b)
        said += [f"{package}: {', '.join(sorted(circle))}" for circle in circles_of(arrows)]
    return said


def main() -> None:
    """Print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    source = root / "src" / PACKAGE
    sys.path.insert(0, str(source.parent))
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    modules = sorted(graph.modules)
    arrows: dict[str, set[str]] = defaultdict(set)
    imports = 0
    for importer in modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            imports += 1
            if room_of(importer) != room_of(imported):
                arrows[room_of(importer)].add(room_of(imported))
    rooms = sorted({room_of(module) for module in modules})
    floors = floors_of(arrows, rooms)
    entered: dict[str, int] = defaultdict(int)
    for targets in arrows.values():
        for target in targets:
            entered[target] += 1
    print(f"{'room':<16}{'floor':>6}{'modules':>9}{'lines':>8}{'imports':>9}{'imported by':>13}")
    total = 0
    for room in sorted(rooms, key=lambda room: (-floors[room], room)):
        lines, count = lines_of(source, room)
        total += lines
        row = f"{room:<16}{floors[room]:>6}{count:>9}{lines:>8}"
        print(f"{row}{len(arrows[room]):>9}{entered[room]:>13}")
    print(
        f"\n{len(rooms)} rooms on {max(floors.values())} floors, {total} lines in {len(modules)} "
        f"modules, {sum(map(len, arrows.values()))} arrows between rooms, {imports} imports"
    )
    circles = [", ".join(sorted(circle)) for circle in circles_of(arrows)]
    circles += inner_circles(graph, modules)
    print(f"circles: {len(circles) or 'none'}")
    for circle in circles:
        print(f"  {circle}")


if __name__ == "__main__":
    main()
