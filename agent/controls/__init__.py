"""The controls: modprobe, apparmor, seccomp, kubelet. Each observes, judges, plans; the runner applies and verifies.

Controls do not know each other and never talk to the API server.
"""
