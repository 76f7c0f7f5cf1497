"""Options, fixtures and rules of the whole test suite."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

# Each of several processes that run tests has one core. torch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TESTS = Path(__file__).resolve().parent
IN_CI = os.environ.get("CI") == "true"
# The longest tests, longest first. xdist hands them out in this order, which keeps all processes busy to the end.
LONGEST = (
    "training/test_distributed.py",
    "runner",
    "egs/test_corpora_recipes.py",
    "training/test_reading.py",
    "egs/test_mini_recipe.py",
    "training/test_train.py",
    "egs/test_new_recipe.py",
    "egs/test_tcdvoip_study.py",
    "egs/test_hubert_tiny.py",
    "fuzz",
    "ssl/test_hub_cache.py",
    "inference/test_windows.py",
    "model/test_hub.py",
    "model/test_onnx.py",
    "web/test_page.py",
    "tokens/test_tokens.py",
    "ssl/test_fairseq_module.py",
)
# How many tests may be skipped in CI, by reason. More, or another reason, fail the run there.
MAY_BE_SKIPPED = {
    "TCD-VoIP is not here": 6,
    "Kaldi is not installed": 1,
    "needs two GPUs": 1,
    "the extra references is not installed": 1,
    "no Chromium is installed": 1,
    "this system has no transparent huge pages": 1,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption(
        "--install-packages",
        action="store_true",
        default=IN_CI,
        help="install missing programs (schedulers, ffmpeg, voices) with apt-get (as root; default with CI=true)",
    )
    parser.addoption(
        "--tcdvoip",
        type=Path,
        default=TESTS.parents[1] / "shared" / "data" / "tcdvoip",
        help="the release of TCD-VoIP, for the few tests that need the real one (default: %(default)s)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need a scheduler; put the longest first."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONGEST)}
    for item in items:
        if {"slurm", "sge"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.cluster)
    if config.pluginmanager.hasplugin("xdist"):
        items.sort(key=lambda item: min(ranks.get(path, len(ranks)) for path in (item.path, item.path.parent)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests together that share fixtures: those of a file, and all of tests/runner, which share the schedulers.

    xdist's own `--dist loadgroup` does not group with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/runner" if file.startswith("tests/runner/") else file

    return Together(config, log)


def skips_not_allowed(reports: list[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return a line for each reason that skipped more tests than MAY_BE_SKIPPED allows."""
    reasons: Counter[str] = Counter()
    for report in reports:
        assert isinstance(report.longrepr, tuple)  # (path, line, reason)
        reasons[report.longrepr[2].removeprefix("Skipped: ")] += 1
    return [
        f"{number} skipped, {MAY_BE_SKIPPED.get(reason, 0)} allowed: {reason}"
        for reason, number in reasons.items()
        if number > MAY_BE_SKIPPED.get(reason, 0)
    ]


@pytest.hookimpl(tryfirst=True)  # before the summary is printed
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI that skipped tests it should have run."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not IN_CI or hasattr(session.config, "workerinput") or terminal is None:
        return  # the process that started the workers has the reports of all
    faults = skips_not_allowed(terminal.stats.get("skipped", []))
    for fault in faults:
        terminal.write_line(fault, red=True)
    if faults and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def tcdvoip_release(request: pytest.FixtureRequest) -> Path:
    """The real TCD-VoIP, with audio at any sampling rate."""
    root: Path = request.config.getoption("--tcdvoip")
    if not root.exists():
        pytest.skip("TCD-VoIP is not here")
    return root


@pytest.fixture(scope="session")
def ffmpeg(pytestconfig: pytest.Config) -> str:
    """The command ffmpeg, which is on PATH."""
    need_programs(pytestconfig, "ffmpeg", "ffmpeg")
    return "ffmpeg"


@pytest.fixture(scope="session")
def voices(pytestconfig: pytest.Config) -> None:
    """The commands espeak-ng and flite are on PATH."""
    need_programs(pytestconfig, "voices", "espeak-ng", "flite")


def need_programs(pytestconfig: pytest.Config, packages: str, *programs: str) -> None:
    """Install `packages`, a word of install.sh, if a program is missing and this is allowed; skip if one is missing."""
    if not all(map(shutil.which, programs)) and pytestconfig.getoption("--install-packages"):
        subprocess.run([TESTS / "install.sh", packages], capture_output=True, check=False)
    if not all(map(shutil.which, programs)):
        pytest.skip(f"{packages} is not installed")
