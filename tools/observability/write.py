"""Writes everything about observability that is generated: dashboards, rules, the table of metrics.

    python -m tools.observability.write            # write
    python -m tools.observability.write --check    # exit 1, naming the files, when one is not what it would write

Dashboards and rules lie in the Helm chart, which cannot reach outside of itself; compose mounts them from there, and
``deploy/observability`` links to them. There is no second copy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from tools.observability import alerts, metrics_table, slo
from tools.observability.dashboards import drift, health, inference, overview, training

__all__ = ["DASHBOARDS", "RULES", "rendered"]

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy/helm/observability/files"
DASHBOARDS = FILES / "dashboards"
RULES = FILES / "rules"
METRICS = ROOT / "docs/metrics.md"
_BANNER = "# Written by `python -m tools.observability.write`; rules are declared in tools/observability.\n"


class _Dumper(yaml.SafeDumper):
    """Writes expressions of several lines as such, and everything where it is used."""

    def ignore_aliases(self, data: object) -> bool:
        """Return that nothing is referred to."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def rendered() -> dict[Path, str]:
    """Return what every generated file should hold."""
    files = {
        DASHBOARDS / f"{document['uid'].removeprefix('modelyard-')}.json": json.dumps(document, indent=1) + "\n"
        for document in (made.document() for made in (overview, inference, drift, training, health))
    }
    for name, rules in alerts.documents(slo.load()).items():
        files[RULES / f"{name}.yaml"] = _BANNER + yaml.dump(rules, Dumper=_Dumper, sort_keys=False, width=1000)
    files[METRICS] = metrics_table.page()
    return files


def main() -> None:
    """Write, or check."""
    files = rendered()
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    left = [path for folder in (DASHBOARDS, RULES) for path in folder.glob("*.*") if path not in files]
    if "--check" in sys.argv:
        if stale or left:
            names = ", ".join(str(path.relative_to(ROOT)) for path in (*stale, *left))
            sys.exit(f"run `python -m tools.observability.write`: {names}")
        return
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path])
        print(path.relative_to(ROOT))
    for path in left:
        path.unlink()


if __name__ == "__main__":
    main()
