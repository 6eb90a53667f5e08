"""The parts of the agent that tests/vm/removed_parts.py takes away, and which tests have to notice.

An edit names a file below agent/, a text that stands in it once, and what takes its place. The cuts of one round go
into one wheel, so they have to leave each other's tests alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cut:
    """What is taken away, and the tests that have to notice. edits: (file below agent/, old, new)."""

    what: str
    tests: tuple[str, ...]
    edits: tuple[tuple[str, str, str], ...]


# Who believes the agent is told that all is well, as soon as a file is there: only the kernel knows better.
_EMPTY = (
    "controls/modprobe/__init__.py",
    "lambda: self._installed.install(path, content, mode=_MODE)",
    'lambda: self._installed.install(path, b"# nothing\\n", mode=_MODE)',
)
_BELIEVED = (
    "controls/modprobe/__init__.py",
    "return tuple(findings(self._config, seen))",
    (
        "from dataclasses import replace\n        found = tuple(findings(self._config, seen))\n"
        '        good = type(found[0].status)("pass")\n'
        "        return found if seen.file.content is None else tuple(replace(one, status=good) for one in found)"
    ),
)

_OWN_CORDON = (
    "reboot/machine/transitions.py",
    "    return node is not None and state.cordoned and node.unschedulable and not is_foreign(inputs)",
)

ROUNDS: dict[str, tuple[Cut, ...]] = {
    "one": (
        Cut(
            "modprobe's file denies nothing, and nobody looks what it does",
            (
                "test_modprobe.py::test_an_unprivileged_socket_loads_sctp_until_it_is_denied",
                "test_modprobe.py::test_a_dccp_socket_loads_dccp_where_the_alias_is_kept_until_it_is_denied",
                "test_modprobe.py::test_by_name_nothing_denied_is_loaded_either",
            ),
            (_EMPTY, _BELIEVED),
        ),
        Cut(
            "what is loaded into AppArmor lets everything be written",
            ("test_apparmor.py::test_a_process_under_deny_write_cannot_write_and_its_neighbour_can",),
            (
                (
                    "controls/apparmor/parser.py",
                    'self._run(["-r", *self._kernel()], content, _LOAD_SECONDS)',
                    'self._run(["-r", *self._kernel()], content.replace(b"/** rm", b"/** rwm"), _LOAD_SECONDS)',
                ),
            ),
        ),
        Cut(
            "the seccomp profile's rules are about another syscall",
            ("test_seccomp.py::test_chmod_is_refused_in_all_its_forms_and_without_the_profile_in_none",),
            (("controls/seccomp/resolver.py", '{"names": list(rule.names)', '{"names": ["kexec_load"]'),),
        ),
        Cut(
            "systemd is not asked for the unit's files",
            ("test_kubelet.py::test_modes_of_the_unit_and_drop_ins_that_systemd_names",),
            (
                (
                    "controls/kubelet/units.py",
                    'shown = systemd.show(host, unit, "FragmentPath", "DropInPaths")',
                    "shown: dict[str, str] = {}",
                ),
            ),
        ),
    ),
    "shown": (
        Cut(
            "modprobe's file denies nothing, and the node is called hard all the same",
            ("test_daemon.py::test_the_node_shows_what_the_kernel_does",),
            (_EMPTY, _BELIEVED),
        ),
    ),
    "disk": (
        Cut(
            "a file is written in its place, not beside it",
            ("test_trouble.py::test_a_disk_that_fills_up_leaves_the_last_good_state[3]",),
            (
                (
                    "host/filesystem.py",
                    "            try:\n                with opened(temporary,",
                    (
                        "            try:\n                with open(path, 'wb') as there:\n"
                        "                    there.write(content)\n"
                        "                with opened(temporary,"
                    ),
                ),
            ),
        ),
    ),
    "space": (
        Cut(
            "a step that failed is called done",
            (
                "test_trouble.py::test_a_disk_that_fills_up_leaves_the_last_good_state[0]",
                "test_trouble.py::test_a_disk_that_fills_up_leaves_the_last_good_state[1]",
                "test_trouble.py::test_a_read_only_etc_is_said_and_the_rest_is_done",
            ),
            (
                (
                    "controls/base.py",
                    "return replace(step.change, outcome=Outcome.FAILED, error=str(error))",
                    "return replace(step.change, outcome=Outcome.DONE, error=str(error) * 0)",
                ),
            ),
        ),
        Cut(
            "folders are not watched",
            (
                "test_daemon.py::test_drift_is_corrected_while_it_runs",
                "test_trouble.py::test_a_clock_that_is_an_hour_off_changes_nothing[-1]",
                "test_trouble.py::test_a_clock_that_is_an_hour_off_changes_nothing[1]",
            ),
            (("daemon/loop.py", "causes |= changed", "causes |= set()"),),
        ),
    ),
    "two": (
        Cut(
            "what is loaded is not looked at",
            (
                "test_modprobe.py::test_an_unprivileged_socket_loads_sctp_until_it_is_denied",
                "test_daemon.py::test_a_module_that_gets_in_is_reported",
                "test_in_container.py::test_a_module_that_is_loaded_later_is_seen_from_the_container",
            ),
            (("controls/modprobe/findings.py", "one.name in (seen.running.loaded or {})", "one.name in {}"),),
        ),
        Cut(
            "the content of a loaded profile is not compared",
            ("test_apparmor.py::test_changed_content_under_the_same_name_takes_effect",),
            (
                (
                    "controls/apparmor/diff.py",
                    '(entry.hashes[:1] == (unit.digest,), "its content has changed")',
                    '(True, "")',
                ),
            ),
        ),
        Cut(
            "seccomp profiles are installed as they were given",
            ("test_seccomp.py::test_the_old_form_is_enforced_only_as_the_agent_writes_it",),
            (
                (
                    "controls/seccomp/control.py",
                    "from functools import partial",
                    "from functools import partial; from dataclasses import replace",
                ),
                (
                    "controls/seccomp/control.py",
                    "Item(source.name, source.file, path, resolved,",
                    "Item(source.name, source.file, path, resolved and replace(resolved, content=source.content),",
                ),
            ),
        ),
        Cut(
            "files are not compared with the kubelet's start",
            ("test_kubelet.py::test_a_file_that_is_newer_than_the_process_is_unknown",),
            (
                (
                    "controls/kubelet/observe.py",
                    "if changed > launch.process.started + _TOLERANCE_SECONDS",
                    "if changed < 0",
                ),
            ),
        ),
        Cut(
            "SIGTERM is not heard",
            ("test_daemon.py::test_it_stops_cleanly_and_comes_back_after_a_kill",),
            (
                (
                    "daemon/main.py",
                    "Signals((signal.SIGTERM, signal.SIGINT), {signal.SIGHUP: daemon.reload})",
                    "Signals((signal.SIGINT,), {signal.SIGHUP: daemon.reload, signal.SIGTERM: daemon.reload})",
                ),
            ),
        ),
    ),
    "three": (
        Cut(
            "rmmod is not run",
            (
                "test_modprobe.py::test_unload_takes_out_what_is_unused_when_it_is_asked_for",
                "test_in_container.py::test_everything_is_done_on_the_node_and_nothing_in_the_container",
            ),
            (
                (
                    "controls/modprobe/__init__.py",
                    "self._host.run([tool, name], timeout_seconds=_TIMEOUT_SECONDS).check()",
                    "self._host.run(['/bin/true', name], timeout_seconds=_TIMEOUT_SECONDS).check()",
                ),
            ),
        ),
        Cut(
            "the mode of a loaded profile is not looked at",
            ("test_apparmor.py::test_complain_mode_is_never_called_enforced",),
            (
                ("controls/apparmor/diff.py", '(noted["mode"] == mode,', "(True,"),
                ("controls/apparmor/diff.py", 'not noted.get("kernel") or', "True or"),
            ),
        ),
        Cut(
            "modes are not compared",
            ("test_kubelet.py::test_modes_and_owners_of_its_files",),
            (("controls/kubelet/files.py", "excess = one.stat.mode & ~group.maximum & 0o777", "excess = 0"),),
        ),
        Cut(
            "the manifest is believed instead of the kernel's list of profiles, in this boot and the next",
            ("test_daemon.py::test_after_a_power_cut_the_node_is_hard_before_anybody_asks",),
            (
                (
                    "controls/apparmor/diff.py",
                    "    mode = seen.kernel.profiles.get(name)\n    entry = seen.entries.get(name)\n",
                    (
                        "    entry = seen.entries.get(name)\n"
                        "    mode = entry.notes.get('mode') if entry else seen.kernel.profiles.get(name)\n"
                    ),
                ),
                ("controls/apparmor/diff.py", '(noted.get("boot") == seen.boot_id,', "(True,"),
            ),
        ),
    ),
    "four": (
        Cut(
            "the agent's own file is believed, modprobe is not asked",
            (
                "test_modprobe.py::test_a_foreign_rule_that_wins_is_found_out",
                "test_in_container.py::test_without_nsenter_it_would_be_the_container_that_is_asked",
            ),
            (
                (
                    "controls/modprobe/findings.py",
                    "    for kernel in seen.kernels:\n        asked =",
                    "    for kernel in ():\n        asked =",
                ),
            ),
        ),
        Cut(
            "profiles that left are not removed",
            ("test_apparmor.py::test_a_profile_that_left_the_folder_leaves_the_kernel",),
            (("controls/apparmor/control.py", "if self._acts(removed, leaving)]", "if False]"),),
        ),
        Cut(
            "architectures are not this node's",
            ("test_seccomp.py::test_every_shipped_profile_starts_a_container",),
            (
                (
                    "controls/seccomp/resolver.py",
                    "architectures = _architectures(profile, platform, notes)",
                    'architectures = ("SCMP_ARCH_S390X",)',
                ),
            ),
        ),
        Cut(
            "the process's command line is not read",
            ("test_kubelet.py::test_the_live_process_is_found_with_what_it_was_started_with",),
            (
                (
                    "controls/kubelet/effective.py",
                    'flags.text("config"), flags.text("config-dir")',
                    '"", ""',
                ),
            ),
        ),
    ),
    "five": (
        Cut(
            "a broken file counts as one that left",
            (
                "test_apparmor.py::test_a_broken_profile_leaves_the_old_one_enforcing",
                "test_apparmor.py::test_a_profile_of_a_newer_abi_loads_with_the_nodes_parser_or_is_refused_for_it",
            ),
            (
                ("controls/apparmor/diff.py", "held = {one.file for one in refused}", "held: set[str] = set()"),
                (
                    "controls/apparmor/control.py",
                    "for one in refused:\n            own =",
                    "for one in ():\n            own =",
                ),
            ),
        ),
        Cut(
            "the file has no softdep lines",
            ("test_modprobe.py::test_a_module_with_soft_dependencies_is_refused_too",),
            (("controls/modprobe/policy.py", "\\nsoftdep {one.name} pre:\\n", "\\n"), _BELIEVED),
        ),
        Cut(
            "the kernel is not asked whether AppArmor is on",
            ("test_apparmor.py::test_without_apparmor_in_the_kernel_it_is_not_applicable",),
            (("controls/apparmor/securityfs.py", 'if enabled != "Y":', 'if enabled == "?":'),),
        ),
    ),
    "lock": (
        Cut(
            "a lock that another holds is taken, and nobody counts who is down",
            (
                "test_reboot.py::test_two_nodes_reboot_one_after_the_other",
                "test_power_cuts.py::test_power_cuts_at_random_moments_of_a_cycle",
            ),
            (
                ("reboot/machine/pending.py", "    if inputs.holder_gone:\n        return True", "    return True"),
                ("reboot/lock/contention.py", "if slot.free or slot.unseen_seconds > self._duration]", "]"),
                ("reboot/lock/pools.py", "return Budget(len(unavailable) + 1 <= allowed,", "return Budget(True,"),
            ),
        ),
    ),
    "fence": (
        Cut(
            "the lock is given back before the reboot command",
            ("test_reboot.py::test_two_nodes_reboot_one_after_the_other",),
            (
                (
                    "reboot/coordinator.py",
                    "self._lock.fence(slot, inputs.now)",
                    "self._lock.release(slot, inputs.now, rebooted=False)",
                ),
            ),
        ),
    ),
    "drain": (
        Cut(
            "nothing is drained",
            ("test_reboot.py::test_two_nodes_reboot_one_after_the_other",),
            (
                (
                    "reboot/drain/drain.py",
                    "going, refused = self._decide_all(pods)",
                    "going, refused = self._decide_all({})",
                ),
            ),
        ),
    ),
    "uncordon": (
        Cut(
            "the cordon is not lifted",
            ("test_reboot.py::test_two_nodes_reboot_one_after_the_other",),
            ((*_OWN_CORDON, "    return False"),),
        ),
    ),
    "verify": (
        Cut(
            "another boot id is enough",
            ("test_reboot.py::test_a_node_is_uncordoned_only_when_it_is_verified",),
            (("reboot/machine/verifying.py", "missing = _missing(inputs, state)", 'missing: Query | str = ""'),),
        ),
    ),
    "cordon": (
        Cut(
            "every cordon counts as the agent's",
            ("test_reboot.py::test_a_shutdown_of_two_minutes_passes_the_lock_on_to_no_other_node",),
            ((*_OWN_CORDON, "    return node is not None and node.unschedulable"),),
        ),
    ),
    "inhibitor": (
        Cut(
            "the reboot walks around logind",
            ("test_reboot.py::test_a_shutdown_of_two_minutes_passes_the_lock_on_to_no_other_node",),
            (
                (
                    "config/schema.py",
                    'key(("/usr/bin/systemctl", "reboot"),',
                    'key(("/usr/bin/systemctl", "reboot", "-f"),',
                ),
            ),
        ),
    ),
    "refused": (
        Cut(
            "a reboot command that failed counts as given",
            ("test_reboot.py::test_a_reboot_command_that_fails_is_rolled_back",),
            (("reboot/machine/rebooting.py", "if inputs.command is Command.REFUSED:", "if inputs.command is None:"),),
        ),
    ),
    "lost": (
        Cut(
            "the lock of one that did not come back is taken",
            ("test_reboot.py::test_a_node_that_stays_down_is_rebooting_and_then_stuck",),
            (
                (
                    "reboot/machine/pending.py",
                    "return given_up and inputs.policy.lock.on_lost_holder is OnLostHolder.RELEASE",
                    "return given_up",
                ),
                ("reboot/lock/pools.py", "return Budget(len(unavailable) + 1 <= allowed,", "return Budget(True,"),
            ),
        ),
    ),
    "stopping": (
        Cut(
            "a system that is shutting down counts as one that stays up",
            ("test_reboot.py::test_a_shutdown_of_two_minutes_passes_the_lock_on_to_no_other_node",),
            (("reboot/rebooters.py", 'return state == "stopping"', "return False"),),
        ),
    ),
    "waits": (
        Cut(
            "what waits for a reboot keeps the startup taint whatever the policy says",
            ("test_daemon.py::test_a_module_that_was_loaded_before_the_first_pass",),
            (("controls/modprobe/findings.py", "source=source, needs_reboot=True)", "source=source)"),),
        ),
        Cut(
            "block inhibitors are not read",
            ("test_package_runs.py::test_a_block_inhibitor_holds_the_reboot_and_is_named",),
            (("reboot/blockers/inhibitors.py", "        if not found:\n", "        if True:\n"),),
        ),
        Cut(
            "the reboot command goes over block inhibitors",
            ("test_package_runs.py::test_the_default_command_does_not_go_over_a_block_inhibitor",),
            (("reboot/rebooters.py", 'argv = (*argv, f"{_CHECK_INHIBITORS}=yes")', "argv = (*argv,)"),),
        ),
        Cut(
            "package managers are not looked for",
            ("test_package_runs.py::test_a_package_run_in_progress_holds_the_reboot_and_is_named",),
            (("reboot/blockers/package_manager.py", "        if not busy:\n", "        if True:\n"),),
        ),
    ),
    "denials": (
        Cut(
            "the cgroup of a process is not read",
            ("test_denials.py::test_a_refused_write_names_pod_profile_and_operation",),
            (
                (
                    "denials/attribution.py",
                    'return Place(found[1].decode().replace("_", "-"), found[2].decode()) if found else NODE',
                    "return NODE",
                ),
            ),
        ),
        Cut(
            "a test record that does not arrive counts as one that did",
            (
                "test_denials.py::test_in_its_own_network_namespace_it_cannot_see",
                "test_denials.py::test_each_reason_for_seeing_nothing_is_named",
            ),
            (("denials/observer.py", "self._become(State.BLIND, self._why())", "self._become(State.SEEING, None)"),),
        ),
        Cut(
            "gaps in the serial numbers are not counted",
            ("test_denials.py::test_a_flood_is_received_or_counted_as_lost[small]",),
            (("denials/serials.py", "self.lost += serial - newest - 1", "self.lost += 0"),),
        ),
        Cut(
            "deny rules of shipped profiles stay silent",
            ("test_denials.py::test_a_shell_that_web_service_refuses_is_seen_where_the_policy_has_it_visible[True]",),
            (("controls/apparmor/profile_dir.py", '_DENY.sub(rb"\\1audit deny ", file.content)', "file.content"),),
        ),
        Cut(
            "processes are not followed",
            ("test_denials.py::test_short_processes_are_attributed[yes]",),
            (("denials/attribution.py", "self._events = self._open_events()", "self._events = None"),),
        ),
    ),
    "recording": (
        Cut(
            "calls are counted and their names are not kept",
            tuple(
                f"test_denials.py::test_a_recorded_profile_is_enforced_and_refuses_what_was_not_recorded[{case}]"
                for case in ("runc-False", "runc-True", "crun-False", "crun-True")
            ),
            (
                (
                    "denials/recording.py",
                    "before, found.syscalls = found.syscalls, found.syscalls | 1 << number",
                    "before = found.syscalls",
                ),
            ),
        ),
        Cut(
            "a kernel that has no audit is not known as one",
            ("test_denials.py::test_a_kernel_without_audit_is_named",),
            (("denials/observer.py", "errno.EPROTONOSUPPORT: Reason.AUDIT_OFF, ", ""),),
        ),
        Cut(
            "seccomp profiles get no log flag",
            ("test_denials.py::test_what_seccomp_refuses_is_seen_where_the_runtime_takes_the_flag",),
            (("controls/seccomp/control.py", "with_flags(source) if logged else source", "source"),),
        ),
        Cut(
            "the kernel's parameter for silent deny rules is not set",
            ("test_denials.py::test_a_silent_deny_rule_of_any_profile_leaves_a_row_only_while_the_policy_has_noquiet",),
            (("controls/apparmor/deny_records.py", "        self._write(NOQUIET)\n", ""),),
        ),
    ),
    "checkpoint": (
        Cut(
            "the checkpoint of recordings is not read",
            ("test_denials.py::test_a_kill_during_a_recording_loses_no_name_of_the_checkpoint",),
            (("denials/recording.py", "        self._load()\n", ""),),
        ),
        Cut(
            "records of other types are logged",
            ("test_denials.py::test_beside_auditd_both_read_everything_and_a_command_line_is_nowhere",),
            (
                (
                    "denials/observer.py",
                    "        if number not in (records.SECCOMP, records.APPARMOR):\n            return\n",
                    (
                        "        if number not in (records.SECCOMP, records.APPARMOR):\n"
                        "            self._log.debug('record', text=repr(text))\n            return\n"
                    ),
                ),
            ),
        ),
    ),
    "counts": (
        Cut(
            "records that came are not counted",
            ("test_denials.py::test_a_flood_is_received_or_counted_as_lost[default]",),
            (("denials/observer.py", "self._received += 1", "self._received += 0"),),
        ),
        Cut(
            "records of unknown processes are not counted",
            ("test_denials.py::test_short_processes_are_attributed[no]",),
            (("denials/attribution.py", "self.missed += 1", "self.missed += 0"),),
        ),
        Cut(
            "shipped profiles are made visible whatever the policy says",
            ("test_denials.py::test_a_shell_that_web_service_refuses_is_seen_where_the_policy_has_it_visible[False]",),
            (("controls/apparmor/control.py", "audited=self._visible", "audited=True"),),
        ),
        Cut(
            "the kernel's parameter for silent deny rules does not get its old value again",
            ("test_denials.py::test_a_silent_deny_rule_of_any_profile_leaves_a_row_only_while_the_policy_has_noquiet",),
            (("controls/apparmor/deny_records.py", "self._write(seen.before)", "pass"),),
        ),
    ),
    "contained": (
        Cut(
            "commands run in the agent's own namespaces",
            (
                "test_in_container.py::test_a_hook_is_roots_only_in_a_privileged_container[privileged]",
                "test_in_container.py::test_the_node_reboots[command]",
            ),
            (("host/command.py", "[*_NSENTER, *argv] if how is HostExec.NSENTER else list(argv)", "list(argv)"),),
        ),
        Cut(
            "kernel settings are not set",
            ("test_in_container.py::test_kernel_settings_are_the_nodes_own",),
            (
                (
                    "controls/sysctl/__init__.py",
                    "for one in required if self._host.can_start_programs else ():",
                    "for one in ():",
                ),
            ),
        ),
        Cut(
            "the changes of AppArmor's profiles are not followed",
            ("test_daemon.py::test_a_profile_that_is_removed_is_loaded_again",),
            (("host/inotify.py", "changed.add(self._revisions[fd])", "changed.discard(self._revisions[fd])"),),
        ),
    ),
    "node": (
        Cut(
            "a hook that failed counts as done",
            ("test_in_container.py::test_a_hook_is_roots_only_in_a_privileged_container[capabilities]",),
            (
                (
                    "reboot/hooks.py",
                    "return HookProgress(done=False, error=sanitize(str(error), _WORDS + len(name)))",
                    "continue",
                ),
            ),
        ),
        Cut(
            "the signal to reboot goes to no process",
            ("test_in_container.py::test_the_node_reboots[signal]",),
            (("reboot/rebooters.py", "self._send(self._pid, REBOOT_SIGNAL)", "self._send(1 << 22, REBOOT_SIGNAL)"),),
        ),
        Cut(
            "the table for the metadata service is not written",
            ("test_in_container.py::test_pods_are_kept_from_the_metadata_service_and_the_node_is_not",),
            (
                (
                    "controls/metadata_access/nftables.py",
                    '    _nft(host, "-f", "-", feed=script(services)).check()\n\n\ndef remove',
                    "    del host, services\n\n\ndef remove",
                ),
            ),
        ),
    ),
    "initramfs": (
        Cut(
            "no initramfs is known to hold a module",
            ("test_modprobe.py::test_a_module_in_the_initramfs_stays_out_after_the_command_that_is_named",),
            (("controls/modprobe/initramfs.py", "if module not in self.modules or", "if True or"),),
        ),
    ),
}
