"""Where in a kubeconfig a problem is: the key as a user would look it up, and nothing invented around it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.kube.kubeconfig import load


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"current-context": 7}, "current-context"),
        ({"clusters": "c"}, "clusters"),
        ({"contexts": [{"name": "x", "context": {"cluster": 7, "user": "u"}}]}, "contexts[0].context.cluster"),
        ({"users": [{"name": "u", "user": {"token": ["t"]}}]}, "users[0].user.token"),
    ],
)
def test_a_problem_is_named_by_its_place(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    """From the top of the file, joined by dots."""
    sound = {
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = tmp_path / "config"
    file.write_text(json.dumps(sound | change))
    with pytest.raises(ConfigError) as caught:
        load({}, kubeconfig=str(file))
    assert key in [problem.key for problem in caught.value.problems]
