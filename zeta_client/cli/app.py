"""The commands of `zeta`, each in a module of its own."""

import os
import sys

import typer

from zeta_client.cli import shell
from zeta_client.cli.ask import ask
from zeta_client.cli.bench import bench
from zeta_client.cli.check import check
from zeta_client.cli.demo import demo
from zeta_client.cli.embed import embed
from zeta_client.cli.eval import outcomes
from zeta_client.cli.export import export
from zeta_client.cli.feedback import feedback
from zeta_client.cli.forget import forget
from zeta_client.cli.model import model
from zeta_client.cli.replay import replay
from zeta_client.cli.responses import responses
from zeta_client.cli.route import route
from zeta_client.cli.simulate import simulate
from zeta_client.cli.top import top
from zeta_client.cli.up import up

app = typer.Typer(
    name="zeta",
    help="Several language models behind one gRPC endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (
    *(demo, up, ask, route, embed, feedback, export, forget),
    *(replay, top, bench, simulate),
):
    app.command()(shell.ends_on_interrupt(command))

config = typer.Typer(help="The fleet's configuration.", no_args_is_help=True)
config.command()(shell.ends_on_interrupt(check))
app.add_typer(config, name="config")
app.add_typer(model, name="model")
evaluation = typer.Typer(help="How well the router judges.", no_args_is_help=True)
evaluation.command()(shell.ends_on_interrupt(outcomes))
evaluation.command()(shell.ends_on_interrupt(responses))
app.add_typer(evaluation, name="eval")


def main() -> None:
    """Run the program; a mistake of ours is a sentence too, unless ZETA_TRACEBACK is set."""
    try:
        app()
    except Exception as broken:
        if os.environ.get("ZETA_TRACEBACK"):
            raise
        if isinstance(broken, OSError):  # such as a disk that is full, under our output
            typer.echo(f"error: {shell.of_system(broken)}", err=True)
            sys.exit(1)
        typer.echo(
            f"error: a mistake in zeta itself: {type(broken).__name__}: {broken}; "
            "set ZETA_TRACEBACK=1 to see where, and report it",
            err=True,
        )
        sys.exit(1)
