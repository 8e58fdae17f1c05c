"""Build all images, or those that are named, and print what each adds to its base: `make images`."""

import argparse
import sys

from tools.images.base import cache_dir, ensure_base
from tools.images.build import Built, build
from tools.images.catalog import IMAGES
from tools.images.engine import EngineError, docker


def main() -> None:
    """Build, print a table, and fail when an image outgrew its budget."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("packages", nargs="*", choices=[*IMAGES, []], help="default: all")
    packages = parser.parse_args().packages or list(IMAGES)
    try:
        with docker(cache_dir() / "docker") as engine:
            base = ensure_base(engine)
            print(f"base {base}: {int(str(engine.inspect(base)['Size'])) / 1e6:.0f} MB", flush=True)
            built = [_report(build(engine, IMAGES[package], base=base)) for package in packages]
    except EngineError as error:
        sys.exit(f"images: {error}")
    if too_large := [item.tag for item in built if not item.fits]:
        sys.exit(f"images: larger than their budget: {', '.join(too_large)}")


def _report(item: Built) -> Built:
    size = f"{item.added_mb:6.1f} MB over the base (budget {item.image.budget_mb})"
    print(f"{item.tag:28} {size}", flush=True)
    return item


if __name__ == "__main__":
    main()
