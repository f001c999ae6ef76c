"""What the pack adds to the start of ComfyUI: CPU seconds, with it and without.

    COMFYUI=/path/to/ComfyUI /path/to/its/python benchmarks/comfyui_start.py [--rounds 5]

Both start in turns, in folders of their own, load their nodes and end. Whole starts differ by more than the
pack costs, so its import alone is measured besides, within the start, with the packages it brought along.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
FLAGS = ("--cpu", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", "--quick-test-for-ci")
# Starts the host as `python main.py` does, and looks at what loading one pack costs.
TIMED = """
import runpy, sys, time
sys.path.insert(0, "")
import comfy.options
comfy.options.enable_args_parsing()
import nodes

load = nodes.load_custom_node

async def timed(path, *arguments, **options):
    before, started = {*sys.modules}, time.process_time()
    loaded = await load(path, *arguments, **options)
    if path.endswith("promptglass"):
        print("\\nPACK", time.process_time() - started, *{*sys.modules} - before, sep="|", flush=True)
    return loaded

nodes.load_custom_node = timed
runpy.run_path("main.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Start:
    cpu_s: float
    import_s: float | None  # of the pack
    packages: frozenset[str]  # that its import brought along


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        without, with_pack = Path(folder) / "without", Path(folder) / "with"
        for place in (without, with_pack):
            (place / "custom_nodes").mkdir(parents=True)
        (with_pack / "custom_nodes" / "promptglass").symlink_to(ROOT, target_is_directory=True)
        started(with_pack)  # warms the disk's cache, and compiles the pack
        pairs = [(started(without), started(with_pack)) for _ in range(rounds)]
    for name, starts in zip(("without", "with"), zip(*pairs, strict=True), strict=True):
        costs = [one.cpu_s for one in starts]
        print(f"{name + ':':9}{median(costs):6.2f} CPU s ({min(costs):.2f} to {max(costs):.2f})")
    print(f"added:   {median(b.cpu_s - a.cpu_s for a, b in pairs):+6.2f} CPU s, median of {rounds} pairs")
    imports = [one.import_s for _, one in pairs if one.import_s is not None]
    print(f"import:  {median(imports):6.3f} CPU s ({min(imports):.3f} to {max(imports):.3f})")
    print(f"packages it brought along: {', '.join(sorted(pairs[0][1].packages)) or 'none'}")


def started(base: Path) -> Start:
    before = cpu_s()
    ended = subprocess.run(
        [sys.executable, "-c", TIMED, "--base-directory", str(base), *FLAGS],
        cwd=os.environ["COMFYUI"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = cpu_s() - before
    said = re.search(r"^PACK\|(.*)$", ended.stdout, re.MULTILINE)
    took, *modules = said[1].split("|") if said else [""]
    # The pack's own modules are named after its place on the disk.
    packages = {name.partition(".")[0] for name in modules if not name.startswith("/")}
    return Start(seconds, float(took) if took else None, frozenset(packages - {*sys.stdlib_module_names}))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
