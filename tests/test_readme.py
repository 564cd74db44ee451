"""What README shows works."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    less = example.replace("limit=8", "limit=2").replace("shard(1, 16)", "shard(1, 72)")  # fewer documents
    assert less.count("limit=2") == less.count("shard(1, 72)") == 1
    names: dict = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TQDM_DISABLE", "1")
        exec(compile(less, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "NeuronSet(q " in printed
    assert "before" in printed
    change = names["mw"].difference(names["mw"].evaluate(names["model"], names["texts"]), names["before"])
    assert (change["change"] == 0).all()  # outside the with, the model is as before


@pytest.mark.parametrize("page", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(page):
    assert (Path(__file__).parents[1] / page).is_file(), page


def test_the_commands_of_readme_exist():
    from mwork_lens.cli import app

    groups = app.registered_groups
    names = [
        command.name or command.callback.__name__
        for part in (app, *(g.typer_instance for g in groups))
        for command in part.registered_commands
    ]
    shown = set(re.findall(r"mwork-lens ([a-z]+)", README)) | set(
        re.findall(r"(?<=\| )[a-z]+(?=(?: \||\n| ))", README.split("```bash")[-1])
    )
    assert {"demo", "lape", "perplexity", "steer", "experts", "facts"} <= shown
    assert shown <= {*names, *(group.name for group in groups)}
