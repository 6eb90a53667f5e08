"""Seccomp profiles for pods: validated, written for this node, installed where the kubelet reads them."""

from __future__ import annotations

from agent.controls.seccomp.control import SeccompControl
from agent.controls.seccomp.linting import FILE_TYPE, advise, lint

__all__ = ["FILE_TYPE", "SeccompControl", "advise", "lint"]
