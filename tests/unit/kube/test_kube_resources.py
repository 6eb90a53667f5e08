"""Paths lead to the object that was named and nowhere else; selectors say what was meant."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.kube import LEASES, NODES, PDBS, PODS, field_selector
from agent.kube.resources import segment


def test_paths_of_core_and_group_resources() -> None:
    """The core group lives under /api/v1, others under /apis/GROUP/VERSION."""
    assert NODES.path() == "/api/v1/nodes"
    assert NODES.path("w", subresource="status") == "/api/v1/nodes/w/status"
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("p", "shop", "eviction") == "/api/v1/namespaces/shop/pods/p/eviction"
    assert LEASES.path("l", "kube-system") == "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l"
    assert PDBS.path(namespace="shop") == "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"
    assert (PODS.api_version, LEASES.api_version) == ("v1", "coordination.k8s.io/v1")


def test_a_namespace_belongs_to_namespaced_resources_alone() -> None:
    """A pod by name needs its namespace; a node has none."""
    with pytest.raises(UsageError, match="pods/p needs a namespace"):
        PODS.path("p")
    with pytest.raises(UsageError, match="nodes are not namespaced"):
        NODES.path("n", "shop")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../../secrets", "a%2fb", "a\nb", "a\x00"])
def test_what_leads_elsewhere_is_no_name(name: str) -> None:
    """A name that a URL would fold into another path is refused before anything is sent."""
    with pytest.raises(UsageError, match="not the name of a Kubernetes object"):
        segment(name)


@given(st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="/%"), min_size=1))
def test_every_accepted_name_is_one_segment(name: str) -> None:
    """Whatever is accepted is one segment and reads back as itself."""
    assume(name not in (".", ".."))
    path = segment(name)
    assert "/" not in path
    assert "?" not in path
    assert "#" not in path
    assert unquote(path) == name


def test_selectors() -> None:
    """Values of fields are escaped as apimachinery does it."""
    assert field_selector({"spec.nodeName": "w-1"}) == "spec.nodeName=w-1"
    assert field_selector({"metadata.name": r"a,b=c\d"}) == r"metadata.name=a\,b\=c\\d"
