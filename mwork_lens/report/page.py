"""What every page is put together from: the template, values that are safe inside a script, and how a `Run` is shown."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from .tables import Cell, Row, Table, plain

LIMIT = 8_000_000
"""Bytes that no page exceeds."""


def fill(**context: Any) -> str:
    """The page: the template filled with what is given.

    Everything is escaped on the way; a name that the template wants and `context` lacks is an error.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def ours(name: str) -> str:
        return (resources.files("mwork_lens") / "data" / name).read_text(encoding="utf-8")

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"digest": digest, "script_json": script_json}
    parts = {"style": Markup(ours("report.css")), "script": Markup(ours("report.js"))}
    return environment.from_string(ours("report.html.j2")).render(**parts, **context)


def within_limit(page: str, what: str, cure: str) -> str:
    """The page, if it is no larger than `LIMIT`.

    Args:
        page: Its text.
        what: Whose page it is.
        cure: What makes it smaller.

    Raises:
        ValueError: It is larger.
    """
    if (size := len(page.encode())) > LIMIT:
        raise ValueError(f"the page of {what} would have {size:,} bytes, more than {LIMIT:,}: {cure}")
    return page


def digest(script: str) -> str:
    """The hash by which a page's content security policy lets a script of ours run, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()


def script_json(value: Any) -> Any:
    """JSON inside a `<script>` element: nothing in it can end the element or begin a comment.

    Raises:
        ValueError: A number is nan or infinite; the page says None (null) there.
    """
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def provenance(run: Mapping[str, Any]) -> Iterator[Table]:
    """A table of keys and values for each part of what a `Run` records besides the texts and the command."""
    parameters = {
        k: v for k, v in (run.get("parameters") or {}).items() if k not in ("command", "command_line", "argv")
    }
    made = {
        "method": run.get("method"),
        "time (UTC)": run.get("time"),
        "seed": run.get("seed"),
        "git commit": run.get("git_commit"),
    }
    groups = {"run": made, "model": run.get("model"), "parameters": parameters, "versions": run.get("versions")}
    for name, values in groups.items():
        if values:
            yield keys(name.capitalize(), values)


def keys(caption: str, values: Mapping[str, Any]) -> Table:
    """A table of names and values, nested ones written `outer.inner`."""
    rows = [Row([Cell(key, "h"), Cell(plain(value))]) for key, value in _flat(values)]
    return Table([Cell("name"), Cell("value")], rows, caption)


def model_name(run: Mapping[str, Any]) -> str:
    """Of the model, or `a language model`."""
    return str((run.get("model") or {}).get("name") or "a language model")


def day(run: Mapping[str, Any]) -> str:
    """When it was made."""
    return str(run.get("time") or "")[:10] or "date unknown"


def documents(run: Mapping[str, Any]) -> int:
    """Documents of all languages together."""
    held = (run.get("corpora") or {}).values()
    return sum(int(facts.get("documents") or 0) for facts in held if isinstance(facts, Mapping))


def short(count: int) -> str:
    """`2.36 M`, `8.03 B`."""
    for size, unit in ((10**9, "B"), (10**6, "M")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
