"""The commands of `zeta`, each in a module of its own."""

import typer

from zeta_client.cli.check import check
from zeta_client.cli.up import up

app = typer.Typer(
    name="zeta",
    help="Several language models behind one gRPC endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(up)

config = typer.Typer(help="The fleet's configuration.", no_args_is_help=True)
config.command()(check)
app.add_typer(config, name="config")


def main() -> None:
    """Run the program."""
    app()
