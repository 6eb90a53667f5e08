"""What AppArmor and seccomp refuse on this node, from the kernel's audit records: `denials: {mode: observe}`.

One thread waits for a netlink socket; nothing runs while nothing is refused. Loaded only when the policy has it.
It never changes what the kernel audits: no AUDIT_SET, no rules, no auditd. Facts about the kernel: docs/denials.md.
"""
