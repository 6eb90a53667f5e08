"""Objects that whoever may create pods or budgets makes large: what the drain keeps of them is bounded as well."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from agent import bounded_http
from agent.bounded_http import Claim, TooLarge, kept_bytes
from agent.config.schema import Drain
from agent.errors import KubeError
from agent.kube import PODS, Kube
from agent.reboot.drain.filters import Pod, pod_of
from agent.reboot.drain.informer import ResourceInformer
from agent.reboot.drain.pdb import Budgets
from agent.sandbox.server import Sandbox
from tests.support.agents import eventually
from tests.support.apiservers import ApiServer
from tests.support.kube import client_of

SYNC_SECONDS = 240.0
LABELS = {f"key-{number}": "x" * 50 for number in range(1500)}


@pytest.fixture
def kube(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kube]:
    """Memory for three such objects, and not for ten."""
    monkeypatch.setattr(bounded_http, "SMALL_BYTES", 100_000)
    monkeypatch.setattr(bounded_http, "DOCUMENT_BYTES", 2 << 20)
    monkeypatch.setattr(bounded_http, "_WAIT_SECONDS", 0.02)
    with closing(client_of(ApiServer.of(sandbox))) as made:
        yield made


def pods(kube: Kube) -> ResourceInformer[Pod]:
    return ResourceInformer(kube.follow(PODS), lambda found: pod_of(found, Drain()), lambda _uid, _pod: None)


def labelled(sandbox: Sandbox, numbers: range) -> None:
    for number in numbers:
        container = {"name": "c", "image": "i"}
        meta = {"name": f"p{number}", "labels": LABELS}
        sandbox.create("pods", {"metadata": meta, "spec": {"containers": [container]}})


def trouble_of(informer: ResourceInformer[Pod]) -> str:
    try:
        informer.items(SYNC_SECONDS)
    except KubeError as error:
        return str(error)
    return ""


def test_pods_that_are_too_large_together_are_unknown(sandbox: Sandbox, kube: Kube) -> None:
    """Listed or come later, and known again when they are gone."""
    labelled(sandbox, range(3))
    with closing(pods(kube)) as informer:
        assert len(informer.items(SYNC_SECONDS) or ()) == 3
        labelled(sandbox, range(3, 10))
        eventually(lambda: "of memory together" in trouble_of(informer), what="the limit")
    with closing(pods(kube)) as informer:
        assert "of memory together" in trouble_of(informer)
    for number in range(7):
        sandbox.delete("pods", f"p{number}")
    with closing(pods(kube)) as informer:
        assert len(informer.items(SYNC_SECONDS) or ()) == 3


def test_a_pod_that_changes_is_counted_once(sandbox: Sandbox, kube: Kube) -> None:
    labelled(sandbox, range(1))

    def turn(number: str, pod: dict[str, Any]) -> None:
        pod["metadata"]["labels"]["turn"] = number

    def turns(informer: ResourceInformer[Pod]) -> list[str | None]:
        return [pod.labels.get("turn") for pod in (informer.items(SYNC_SECONDS) or {}).values()]

    with closing(pods(kube)) as informer:
        for number in map(str, range(20)):
            sandbox.update("pods", "p0", partial(turn, number))
            eventually(lambda: turns(informer) == [number], what="the change")  # noqa: B023


def test_budgets_that_are_too_large_together_are_left_out(sandbox: Sandbox, kube: Kube) -> None:
    """Those of other namespaces are still known, and counted for as long as they are kept."""
    selector = {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": [*LABELS]}]}
    sandbox.create("namespaces", {"metadata": {"name": "shop"}})
    sandbox.create("namespaces", {"metadata": {"name": "first"}})
    for namespace, count in (("first", 3), ("default", 40), ("shop", 1)):
        for number in range(count):
            spec: dict[str, Any] = {"maxUnavailable": 0, "selector": selector}
            sandbox.create("poddisruptionbudgets", {"metadata": {"name": f"b{number}"}, "spec": spec}, namespace)
    budgets = Budgets(kube)
    with closing(budgets):
        pod = Pod("default", "p", "u")
        known = budgets.over(replace(pod, namespace="first"))
        assert len(known) == 3
        assert budgets.over(pod) == ()
        with pytest.raises(TooLarge):
            Claim().hold(bounded_http.DOCUMENT_BYTES - sum(map(kept_bytes, known)) + 1)
        assert [budget.name for budget in budgets.over(replace(pod, namespace="shop"))] == ["b0"]


@pytest.mark.parametrize("labels", [LABELS, {"a": "\U0001f600" * 20_000}, {f"{n}": "" for n in range(5000)}])
def test_what_is_kept_is_not_underestimated(labels: dict[str, str]) -> None:
    pod = pod_of({"metadata": {"labels": labels}}, Drain())
    assert kept_bytes(pod) > sum(map(sys.getsizeof, [labels, *labels, *labels.values()]))
