"""How `make test` spreads tests over processes: a file stays in one, and so do two groups of files with Ray.

Each group has a cluster of its own; they begin first, because they take longest. The scheduler is our own because
pytest-xdist 3.8 does not see its own groups with pytest 9.2, and says nothing.
"""

import os
from pathlib import PurePath

import pytest

OF_KILLS = ("test_finetune_ray", "test_tune_ray", "test_kill", "test_stylize_kill", "test_finetune_alone")
WITH_RAY = ("test_submit", "test_s3", "test_evaluate", "test_stylize", "test_predict", "test_prefix_cache")
WITH_RAY += ("test_augment", "test_real_images", "test_robustness", "test_cluster")
GROUPS = dict.fromkeys(OF_KILLS, "kills") | dict.fromkeys(WITH_RAY, "ray")
ORDER = ("kills", "ray")
RAY_TIMEOUT_S = 900  # starting Ray's processes takes minutes where others want the CPUs too


def group_of(nodeid):
    """What stays together: a group with Ray, or a file."""
    file = nodeid.partition("::")[0]
    return GROUPS.get(PurePath(file).stem, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than CPUs: the two processes that run tests with Ray wait half of the time."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class InOrder(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return InOrder(config, log)


def pytest_collection_modifyitems(items):
    for item in items:
        if group_of(item.nodeid) in ORDER:
            item.add_marker(pytest.mark.timeout(RAY_TIMEOUT_S))
        elif "ray_cluster" in item.fixturenames:
            raise pytest.UsageError(f"{item.nodeid} needs Ray: add its file to WITH_RAY in tests/spread.py")
    items.sort(key=lambda item: [*ORDER, group_of(item.nodeid)].index(group_of(item.nodeid)))
