import subprocess
import sys

import pytest

from fitkit.errors import UsageError
from fitkit.registry import Registry, did_you_mean


@pytest.fixture
def table() -> Registry:
    return Registry("shape", {"square": "collections:OrderedDict", "circle": "json:dumps"})


def test_get_returns_the_object_a_name_stands_for(table):
    import json

    assert table.get("circle") is json.dumps


def test_nothing_is_imported_before_it_is_asked_for():
    code = (
        "import sys; from fitkit.registry import Registry; "
        "table = Registry('page', {'html': 'html.parser:HTMLParser'}); "
        "assert 'html.parser' not in sys.modules; table.get('html'); assert 'html.parser' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_registry_costs_no_heavy_import():
    code = "import sys, fitkit.registry; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(table):
    with pytest.raises(UsageError) as caught:
        table.get("sqare")
    assert str(caught.value) == "Unknown shape 'sqare'. Did you mean 'square'? Known: square, circle."


def test_a_name_like_no_other_gets_the_list_alone(table):
    with pytest.raises(UsageError, match=r"^Unknown shape 'xyz'\. Known: square, circle\.$"):
        table.get("xyz")


def test_registering_adds_a_plug_in(table):
    table.register("loads", "json:loads")
    assert "loads" in table
    assert table.names() == ("square", "circle", "loads")
    assert list(table) == ["square", "circle", "loads"]


def test_registering_the_same_again_changes_nothing_and_another_is_refused(table):
    table.register("circle", "json:dumps")
    with pytest.raises(UsageError, match="already registered"):
        table.register("circle", "json:loads")


@pytest.mark.parametrize("target", ["json", "json:", ":dumps", ""])
def test_a_target_needs_module_and_attribute(table, target):
    with pytest.raises(UsageError, match="package.module:Class"):
        table.register("new", target)


@pytest.mark.parametrize(
    ("word", "answer"), [("Anny", " Did you mean 'anny'?"), ("smplx2", " Did you mean 'smplx'?"), ("zzz", "")]
)
def test_did_you_mean(word, answer):
    assert did_you_mean(word, ["anny", "smplx"]) == answer
