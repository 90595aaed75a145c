"""The table of verbs."""

from __future__ import annotations

import typer

from nefbench.cli.bench import app as bench_app
from nefbench.cli.demo import demo
from nefbench.cli.fit import fit
from nefbench.cli.importing import import_
from nefbench.cli.inspect import inspect
from nefbench.cli.render import render
from nefbench.cli.report import report
from nefbench.cli.study import study
from nefbench.cli.train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fit neural fields to whole datasets and study their weights as data.",
)
app.command("demo")(demo)
app.command("fit")(fit)
app.command("train")(train)
app.command("study")(study)
app.command("report")(report)
app.command("inspect")(inspect)
app.command("render")(render)
app.command("import")(import_)
app.add_typer(bench_app, name="bench")
