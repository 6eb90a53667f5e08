"""The node hardening agent: one privileged daemon per Kubernetes node."""

__version__ = "0.2.0"
