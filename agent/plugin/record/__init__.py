"""Recordings of containers under a logging profile, and the seccomp profile that is made of them. Installs nothing."""
