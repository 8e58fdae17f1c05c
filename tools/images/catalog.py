"""The images of Modelyard: what each is built from, and how much it may add to its base image.

A budget is a promise of the documentation; `make images` and the tests fail when an image outgrows it.
"""

from dataclasses import dataclass

__all__ = ["IMAGES", "REPOSITORY", "TRAINING_WITH_TRAINER", "USER", "Image"]

REPOSITORY = "modelyard"
USER = 10001
"""The numeric user and group of every image."""


@dataclass(frozen=True)
class Image:
    """One image: the workspace member behind it, its port if it serves, and its budget in MB over the base.

    Attributes:
        beside: a second member in the same environment.
        socket: whether it serves a Unix socket, beside another container.
        deployed: whether a chart runs it; else people name it where they use it.
    """

    package: str
    port: int | None
    budget_mb: int
    beside: str | None = None
    deployed: bool = True
    socket: bool = False

    @property
    def module(self) -> str:
        """The member's import name."""
        return f"modelyard_{self.package.replace('-', '_')}"

    @property
    def modules(self) -> tuple[str, ...]:
        """The import names of all members inside."""
        return (self.module, *((f"modelyard_{self.beside}",) if self.beside else ()))

    @property
    def env_prefix(self) -> str:
        """What the member's environment variables begin with."""
        return f"{self.module.upper()}_"

    def tag(self, version: str = "dev") -> str:
        """Return the image's full name."""
        name = f"{self.package}-with-{self.beside}" if self.beside else self.package
        return f"{REPOSITORY}/{name}:{version}"


IMAGES = {
    image.package: image
    for image in (
        Image("registry", 8081, budget_mb=120),
        Image("inference", 8080, budget_mb=200),
        Image("inference-runtime", None, budget_mb=700, socket=True),
        Image("training", 8082, budget_mb=420),
        Image("drift", 8083, budget_mb=500),
        Image("operator", 8084, budget_mb=200),
        Image("trainer", None, budget_mb=900),
        Image("cli", None, budget_mb=400, deployed=False),
    )
}

TRAINING_WITH_TRAINER = Image("training", 8082, budget_mb=900, beside="trainer")
"""Training where no cluster runs Jobs: its runs are processes beside it. Only docker-compose.yml has it."""
