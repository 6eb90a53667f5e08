"""`completion SHELL`: a script for the shell. Behind `kubectl node-hardening` kubectl's own finds the hook."""

from __future__ import annotations

import argparse

from agent.plugin.session import OK, Command, Session

# All three run the hook that kubectl runs, so that there is one source of candidates.
_BASH = r"""# bash completion of kubectl-node_hardening:  source <(kubectl node-hardening completion bash)
# Behind `kubectl node-hardening` kubectl's own completion does it, once kubectl_complete-node_hardening is on the PATH.
_kubectl_node_hardening() {
    local line
    COMPREPLY=()
    while IFS=$'\t' read -r line _; do
        case $line in
            :0) compopt -o default ;;
            :*) ;;
            *) COMPREPLY+=("$line") ;;
        esac
    done < <(kubectl_complete-node_hardening "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _kubectl_node_hardening kubectl-node_hardening
"""
_ZSH = r"""#compdef kubectl-node_hardening
# zsh completion of kubectl-node_hardening:  source <(kubectl node-hardening completion zsh)
# Behind `kubectl node-hardening` kubectl's own completion does it, once kubectl_complete-node_hardening is on the PATH.
_kubectl_node_hardening() {
    local line
    local -a found
    while IFS= read -r line; do
        case $line in
            :0) _files ;;
            :*) ;;
            *) found+=("${${line%%$'\t'*}//:/\\:}${${line#*$'\t'}:+:${line#*$'\t'}}") ;;
        esac
    done < <(kubectl_complete-node_hardening "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe 'node-hardening' found
}
compdef _kubectl_node_hardening kubectl-node_hardening
"""
_FISH = r"""# fish completion of kubectl-node_hardening:  kubectl node-hardening completion fish | source
# Behind `kubectl node-hardening` kubectl's own completion does it, once kubectl_complete-node_hardening is on the PATH.
function __kubectl_node_hardening
    set -l words (commandline -opc) (commandline -ct)
    kubectl_complete-node_hardening $words[2..-1] 2>/dev/null | string match -v -r '^:'
end
complete -c kubectl-node_hardening -f -a '(__kubectl_node_hardening)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=sorted(_SCRIPTS), help="whose completion to print")


def _run(options: argparse.Namespace, session: Session) -> int:
    session.write(_SCRIPTS[options.shell])
    return OK


COMMAND = Command("completion", "a completion script for bash, zsh or fish", _configure, _run)
