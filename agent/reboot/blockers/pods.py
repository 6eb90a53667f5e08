"""Pods that must not be disturbed: while one with such labels is on this node and not finished, nothing reboots.

A pod that is starting, terminating or of unknown phase counts as running.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.config.selector import Selector
from agent.errors import KubeError
from agent.kube import PODS, Kube
from agent.reboot.interfaces import BlockerResult
from agent.text import join_limited

_ENOUGH = 6


class PodBlocker:
    """Lists this node's pods by each selector; the API server does the matching, and a few names are enough."""

    name = "pods"
    late = True

    def __init__(self, selectors: Sequence[Selector], kube: Kube, node: str) -> None:
        self._selectors = tuple(selectors)
        self._kube = kube
        # Field selectors know `!=`; status.phase is one of the fields that pods are selected by.
        self._fields = f"spec.nodeName={node},status.phase!=Succeeded,status.phase!=Failed"

    def check(self) -> BlockerResult:
        """One LIST of at most a few pods a selector."""
        for selector in self._selectors:
            try:
                listing = self._kube.list(
                    PODS, label_selector=str(selector), field_selector=self._fields, page_size=_ENOUGH
                )
                page = next(listing.pages())
            except KubeError as error:
                return BlockerResult(blocked=True, by=f"pods unknown: {error}")
            if page:
                names = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in page]
                more = " and more" if len(names) == _ENOUGH else ""
                return BlockerResult(blocked=True, by=f"pods with {selector}: {join_limited(names[:5])}{more}")
        return BlockerResult(blocked=False)
