"""What a shell offers for names of models, suites, splits, metrics, protocols and recipes.

Runs at every press of the tab key: reads names alone, and imports no network, torch or pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _completing(names: Callable[[click.Context], Iterable[str]]) -> Complete:
    """A `shell_complete` of click, of the names that begin with what was typed."""

    def complete(
        context: click.Context, parameter: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        try:
            return [CompletionItem(name) for name in names(context) if name.startswith(typed)]
        except Exception:
            return []  # a broken suite or package must not break the user's shell

    return complete


def _models(_: click.Context) -> list[str]:
    from idbench.embedded import entries
    from idbench.registry import MODELS

    # Variants of other models are theirs to know: they are not imported only to be asked.
    prefix = "transformer_"
    variants = [f"concat_id@{n.removeprefix(prefix)}" for n in entries() if n.startswith(prefix)]
    return sorted([*MODELS.targets(), *variants])


def _metrics(_: click.Context) -> list[str]:
    from idbench.registry import METRICS

    return [text for name in METRICS.targets() for text in (name, f"+{name}")]


def _protocols(_: click.Context) -> list[str]:
    from idbench.metrics.protocols import PROTOCOLS

    return list(PROTOCOLS)


def _suites(_: click.Context) -> list[str]:
    return sorted(path.parent.name for path in _suites_folder().glob("*/suite.yaml"))


def _suites_folder() -> Path:
    import idbench.prompts

    return Path(str(idbench.prompts.__file__)).parent / "suites"


def _splits(context: click.Context) -> list[str]:
    """Splits of the suite that the line names, or of the default one."""
    import yaml

    suite = context.params.get("suite") or "avatars"
    folder = Path(suite) if Path(suite).is_dir() else _suites_folder() / suite
    content = yaml.safe_load((folder / "suite.yaml").read_text(encoding="utf-8"))
    return [str(name) for name in content["splits"]]


def _recipes(_: click.Context) -> list[str]:
    from idbench.recipes import recipe_files

    return list(recipe_files())


def _kinds(_: click.Context) -> list[str]:
    from idbench.commands.listing import KINDS

    return list(KINDS)


models = _completing(_models)
metrics = _completing(_metrics)
protocols = _completing(_protocols)
suites = _completing(_suites)
splits = _completing(_splits)
recipes = _completing(_recipes)
kinds = _completing(_kinds)
