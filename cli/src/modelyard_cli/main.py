"""`modelyard`: the command. Each group of commands is a module; this one puts them together and answers errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import click
import typer
from modelyard_common.errors import ModelyardError

from modelyard_cli.commands import browsing, changing, drifting, platform, predicting, training
from modelyard_cli.demo.command import demo
from modelyard_cli.embedded.layout import DEFAULT_PORT_BASE, Layout
from modelyard_cli.exits import exit_code_of
from modelyard_cli.output import ERR
from modelyard_cli.session import Session

__all__ = ["app", "main"]

app = typer.Typer(
    name="modelyard",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run a model's whole life from one manifest: train, gate, register, roll out, serve, watch, retrain.

    Start a platform on this machine:   [bold]modelyard up[/bold]
    Hand it a model:                    [bold]modelyard apply -f examples/diabetes/model.yaml[/bold]
    See what became of it:              [bold]modelyard describe diabetes[/bold]

    Exit codes: 0 fine, 1 unexpected, 2 wrong input, 3 not found, 4 refused, 5 unavailable, 6 the run failed.""",
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
            help="First port: inference; +1 registry, +2 training, +3 drift, +5 MLflow, +7 Prometheus.",
        ),
    ] = DEFAULT_PORT_BASE,
    registry_url: Annotated[str, typer.Option(envvar="MODELYARD_REGISTRY_URL", help="Of another platform.")] = "",
    training_url: Annotated[str, typer.Option(envvar="MODELYARD_TRAINING_URL", help="Of another platform.")] = "",
    inference_url: Annotated[str, typer.Option(envvar="MODELYARD_INFERENCE_URL", help="Of another platform.")] = "",
    drift_url: Annotated[str, typer.Option(envvar="MODELYARD_DRIFT_URL", help="Of another platform.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(envvar="MODELYARD_TOKEN_FILE", help="Holds your token, where one is asked for.")
    ] = None,
) -> None:
    """Keep what all commands share."""
    urls = {"registry": registry_url, "training": training_url, "inference": inference_url, "drift": drift_url}
    context.obj = Session(Layout(data_dir.absolute(), port_base), urls, token_file)


for group in (platform, changing, training, browsing, predicting, drifting):
    group.add_to(app)
app.command(rich_help_panel="Platform")(demo)


def main() -> None:
    """Run the command line and leave with the exit code that fits the error."""
    try:
        app(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(2)
    except ModelyardError as exc:
        ERR.print(f"[red]error:[/red] {_escape(str(exc))}", soft_wrap=True)
        for error in exc.errors:
            ERR.print(f"  {_escape(error.path)}: {_escape(error.message)}", soft_wrap=True)
        sys.exit(exit_code_of(exc))


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
