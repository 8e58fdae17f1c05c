"""`modelyard`: the command. Each group of commands is a module; this one puts them together and answers errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from modelyard_common.errors import ModelyardError, Unavailable
from rich.markup import escape

from modelyard_cli.commands import browsing, changing, describing, drifting, explaining, platform, predicting, training
from modelyard_cli.demo.command import demo
from modelyard_cli.embedded.layout import DEFAULT_PORT_BASE, Layout
from modelyard_cli.exits import exit_code_of
from modelyard_cli.output import ERR
from modelyard_cli.session import Session

__all__ = ["app", "main", "tell"]

app = typer.Typer(
    name="modelyard",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run a model's whole life from one manifest: train, gate, register, roll out, serve, watch, retrain.

    Examples:
      modelyard up --detach                            start a platform on this machine
      modelyard apply -f examples/diabetes/model.yaml  hand it a model
      modelyard describe diabetes                      see what became of it
      modelyard predict diabetes -f rows.csv           ask it
      modelyard down                                   stop; the data stays

    Exit codes: 0 fine, 1 unexpected, 2 wrong input, 3 not found, 4 refused, 5 unavailable, 6 the run failed,
    7 the run's version did not pass the gates.""",
)


@app.callback()
def options(
    context: typer.Context,
    data_dir: Annotated[
        Path, typer.Option(envvar="MODELYARD_DATA_DIR", help="Folder of the embedded platform.")
    ] = Path(".modelyard"),
    port_base: Annotated[
        int,
        typer.Option(
            envvar="MODELYARD_PORT_BASE",
            min=1024,
            max=65_000,
            help="First port: inference; +1 registry, +2 training, +3 drift, +5 MLflow, +7 Prometheus, +10 gRPC.",
        ),
    ] = DEFAULT_PORT_BASE,
    registry_url: Annotated[str, typer.Option(envvar="MODELYARD_REGISTRY_URL", help="Of another platform.")] = "",
    training_url: Annotated[str, typer.Option(envvar="MODELYARD_TRAINING_URL", help="Of another platform.")] = "",
    inference_url: Annotated[str, typer.Option(envvar="MODELYARD_INFERENCE_URL", help="Of another platform.")] = "",
    drift_url: Annotated[str, typer.Option(envvar="MODELYARD_DRIFT_URL", help="Of another platform.")] = "",
    mlflow_url: Annotated[
        str, typer.Option(envvar="MODELYARD_MLFLOW_URL", help="Of another platform; only register needs it.")
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(envvar="MODELYARD_TOKEN_FILE", help="Holds your token, where one is asked for.")
    ] = None,
) -> None:
    """Keep what all commands share."""
    urls = {
        "registry": registry_url,
        "training": training_url,
        "inference": inference_url,
        "drift": drift_url,
        "mlflow": mlflow_url,
    }
    session = Session(Layout(data_dir.absolute(), port_base), urls, token_file)
    context.obj = session
    context.call_on_close(session.close)


for group in (platform, changing, training, browsing, describing, predicting, explaining, drifting):
    group.add_to(app)
app.command(rich_help_panel="Platform")(demo)


def main() -> None:
    """Run the command line and leave with the exit code that fits the error."""
    try:
        app()  # typer answers wrong usage itself, with exit code 2, and leaves our errors alone
    except ModelyardError as exc:
        sys.exit(tell(exc))


def tell(error: ModelyardError) -> int:
    """Print an error, then each wrong field that its sentence has not named; return its exit code."""
    ERR.print(f"[red]error:[/red] {escape(error.message)}", soft_wrap=True)
    for part in error.errors:
        line = f"{part.path}: {part.message}"
        if line != error.message:
            ERR.print(f"  {escape(line)}", soft_wrap=True)
    if isinstance(error, Unavailable):
        ERR.print(
            "[dim]`modelyard status` shows who is away; `modelyard up` starts a platform here[/dim]", soft_wrap=True
        )
    return exit_code_of(error)


if __name__ == "__main__":
    main()
