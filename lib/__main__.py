"""The command line: `python -m lib`, also installed as `paperplay`."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from lib.chapters import open_chapters
from lib.command_line import Command, refusals
from lib.files import atomic_path, output_file

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Paperplay: ten research papers as notebooks to play with."""


@app.command(cls=Command)
@refusals()
def claims(
    chapters: Annotated[list[str] | None, typer.Argument(help="Names or numbers; all chapters by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write the table as a page.")] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
) -> None:
    """Check the claims of the papers; exit code 0 only if all hold."""
    from rich.console import Console
    from rich.table import Table

    from lib.claims import Table as Results
    from lib.claims import run_claims
    from lib.validation import job_count

    for name, path in (("--json", json_file), ("--html", html_file)):
        if path is not None:
            output_file(name, path)
    job_count(jobs)
    results = run_claims(chapters or (), jobs=jobs)
    table = Table(show_lines=True)
    for column in ("chapter", "source", "statement", "paper", "here", "holds", "seconds"):
        table.add_column(column, overflow="fold")
    for result in results:
        claim, evidence = result.claim, result.evidence
        verdict = "yes" if evidence.holds else "NO"
        here = f"{evidence.measured} (asked: {evidence.bound})"
        table.add_row(claim.chapter, claim.source, claim.statement, claim.paper, here, verdict, f"{result.seconds:.1f}")
    Console().print(table)
    if json_file is not None:
        with atomic_path(json_file) as temporary:
            temporary.write_text(json.dumps([result.record() for result in results], indent=1) + "\n", encoding="utf-8")
    if html_file is not None:
        page = f"<!doctype html><meta charset='utf-8'><title>Paperplay: claims</title>{Results(results)._repr_html_()}"
        with atomic_path(html_file) as temporary:
            temporary.write_text(page, encoding="utf-8")
    held = sum(result.evidence.holds for result in results)
    typer.echo(f"{held} of {len(results)} claims hold")
    if held < len(results):
        raise typer.Exit(1)


def _add_chapter_commands() -> None:
    """Give every chapter's commands their place: `python -m lib VERB CHAPTER`."""
    groups: dict[str, typer.Typer] = {}
    for chapter in open_chapters():
        name = f"lib.{chapter.name}.commands"
        if find_spec(name) is None:
            continue
        for verb, what in import_module(name).COMMANDS.items():
            if verb not in groups:
                groups[verb] = typer.Typer(help=f"{verb.capitalize()}: one command a chapter.", no_args_is_help=True)
                app.add_typer(groups[verb], name=verb)
            words = chapter.name.replace("_", "-")
            if isinstance(what, type):  # a class that makes its options itself
                groups[verb].command(words, cls=what, help=what.__doc__)(lambda: None)
            else:
                groups[verb].command(words, cls=Command)(what)


_add_chapter_commands()

if __name__ == "__main__":
    app(prog_name="paperplay")
