"""Another processor shows the same pages: the scripts run, and models are trained, under other instruction sets than this machine's."""

import functools
import json
import os
import shutil
import subprocess
import sys

import known_tasks
import pytest
import shared_site
import torch
import trained_here
from cached import cached

from builder import project
from builder.pages import shown
from builder.scripts import records

pytestmark = [
    pytest.mark.ci,  # the build runs them on this one
    pytest.mark.xdist_group("processors"),  # a minute as a whole: begun first, so that nobody waits for its end
]
TRAINED = str(records.ARTIFACTS)  # by the build, on this machine as it is
# the runner, with these models instead of those of the other machine that it takes itself for
RUN = "import os, sys; from builder.scripts import runner; os.environ['ATTENTION_CACHE'] = sys.argv.pop(1); sys.exit(runner.main())"
# the furthest from this machine; PROCESSORS=all tries what lies between, too
SETTINGS = {
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}
EVERYTHING = os.environ.get("PROCESSORS") == "all"
if not EVERYTHING:
    del SETTINGS["AVX2"]
SLOW = {"layouts/grid.py"}  # half a minute; test_option_grid.py looks at its cells one by one
TRAINING = [path.stem for path in (project.SNIPPETS / "recipes").glob("*.py") if "optim." in path.read_text("utf-8")]


def wanted(name):
    """Scripts that look at a trained model; PROCESSORS=all takes the others, too, which CI's own processor tries."""
    source = (project.SNIPPETS / name).read_text("utf-8")
    return name not in SLOW and (
        EVERYTHING or any(f"import {recipe}" in source or f"from {recipe} " in source for recipe in TRAINING)
    )


@functools.cache
def reckons_with(setting):
    """What PyTorch says that it reckons with in such a process."""
    ask = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    environment = {**os.environ, **SETTINGS[setting]}
    return subprocess.check_output([sys.executable, "-c", ask], env=environment, text=True).strip()


@pytest.fixture(params=SETTINGS)
def elsewhere(request):
    """The environment of a process that reckons as another processor would."""
    told = reckons_with(request.param)
    if told != request.param:
        pytest.skip(f"asked for {request.param}, PyTorch reckons with {told} on this machine")
    if told == torch.backends.cpu.get_cpu_capability():
        pytest.skip(f"{told} is what this machine has anyway")
    return {**os.environ, **SETTINGS[request.param], "ATTENTION_CACHE": TRAINED}


def digests(records, monkeypatch):
    """{page: digest of what these records put on it}, every page."""
    monkeypatch.setattr(project, "RECORDS", records)
    language = next(iter(project.LANGUAGES))
    texts = {
        page.as_posix(): (project.DOCS / language / page).read_text("utf-8") for page in project.page_files(language)
    }
    return {page: shown.digest(page, text) for page, text in texts.items()}


def test_pages_show_the_same(elsewhere, tmp_path, monkeypatch):
    """With the models that the build trained; that training ends in the same ones is the next test."""
    shared_site.built()
    here = digests(project.RECORDS, monkeypatch)
    copied = shutil.copytree(project.RECORDS, tmp_path / "records")
    names = [path.relative_to(project.SNIPPETS).as_posix() for path in records.scripts() if "recipes" not in path.parts]
    names = sorted(filter(wanted, names))
    assert len(names) > 2
    command = [sys.executable, "-c", RUN, TRAINED, "--jobs", "1", "--batch", str(copied)]
    ours, its = os.pipe()  # it ends when nobody holds the other end
    done = subprocess.run(
        [*command, *(str(project.SNIPPETS / name) for name in names)],
        env={**elsewhere, "PYTHONPATH": str(project.ROOT)}, stdin=ours, capture_output=True, text=True,
    )  # fmt: skip
    os.close(ours)
    os.close(its)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == len(names), done.stderr
    assert [f"{one['script']}: {one['fault']}" for one in told if one["fault"]] == []
    there = digests(copied, monkeypatch)
    assert [page for page in here if there[page] != here[page]] == []


def test_training_ends_in_the_same_model_in_float64_alone(elsewhere, tmp_path, monkeypatch):
    """In float32, in which nothing of the site is trained, it ends in another: there was something to lose."""
    shared_site.built()  # it trains what is compared
    file = tmp_path / "trained.pt"
    # faces: the class and the loop of sentences, three times as long; first match: one of five tasks
    kinds = ["sentences", *(["faces", *known_tasks.TASKS] if EVERYTHING else ["first match"])]
    command = [sys.executable, trained_here.__file__, str(file), *kinds]
    environment = {**elsewhere, "PYTHONPATH": str(project.SNIPPETS / "recipes")}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    there = torch.load(file, weights_only=True)
    monkeypatch.setenv("ATTENTION_CACHE", TRAINED)
    for kind in kinds:
        torch.testing.assert_close(
            there[kind], trained_by_the_build(kind), rtol=0, atol=1e-9, msg=lambda said, kind=kind: f"{kind}: {said}"
        )
    assert (there["in_float32"] - trained_here.in_float32()).abs().max() > 0.01


def trained_by_the_build(kind):
    """What trained_here.trained(kind) gives on this machine as it is; nothing is trained for it."""
    before = {path.name for path in records.ARTIFACTS.glob("*.pt")}
    if kind in known_tasks.TASKS:
        seeds = 8 if kind in ("first match", "plain copy") else 4
        found = {name: many[0] for name, many in cached(known_tasks.known_answer, kind, seeds).items()}
    else:
        found = cached(*trained_here.CLASSIFIERS[kind])
    assert {path.name for path in records.ARTIFACTS.glob("*.pt")} == before, "the build trains something else"
    return found
